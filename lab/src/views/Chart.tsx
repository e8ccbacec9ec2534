/** A line chart of one group of metrics, drawn in SVG: axes, a cursor that mouse and arrow keys move. */

import { useMemo, useState } from 'react';

import type { Point } from '../model/records';
import {
  linePath,
  makeScale,
  nearestIndex,
  stepScale,
  tickTexts,
  tightScale,
  type Scale,
  type ScaleKind
} from '../model/scale';
import { durationText, numberText } from '../model/texts';
import { useWidth } from './host';

export interface Series {
  name: string;
  /** 0…5, which colour of the theme. */
  colour: number;
  points: readonly Point[];
}

export type XAxis = 'step' | 'time';

interface ChartProps {
  title: string;
  series: Series[];
  scale: ScaleKind;
  x: XAxis;
}

const HEIGHT = 196;
const TOP = 16;
const RIGHT = 14;
const BOTTOM = 26;

interface Geometry {
  width: number;
  left: number;
  xScale: Scale;
  yScale: Scale;
  xTexts: string[];
  yTexts: string[];
  px(value: number): number;
  py(value: number): number | null;
}

export function Chart(props: ChartProps): JSX.Element {
  const [element, width] = useWidth();
  const [cursor, setCursor] = useState<number | null>(null);
  const start = useMemo(() => Math.min(...props.series.map(one => one.points[0]?.[2] ?? Infinity)), [props.series]);
  const xs = useMemo(() => allXs(props, start), [props.series, props.x, start]);
  const geometry = useMemo(
    () => (width > 60 ? measure(props, xs, width) : null),
    [props.series, props.scale, xs, width]
  );
  const at = cursor === null ? null : Math.min(cursor, xs.length - 1);
  const move = (event: React.MouseEvent<HTMLDivElement>): void => {
    if (geometry && xs.length > 0) {
      const x = event.clientX - event.currentTarget.getBoundingClientRect().left;
      const part = (x - geometry.left) / (geometry.width - geometry.left - RIGHT);
      const [low, high] = geometry.xScale.domain;
      setCursor(nearestIndex(xs, low + part * (high - low)));
    }
  };
  const key = (event: React.KeyboardEvent): void => {
    const next = moved(event.key, at, xs.length);
    if (next !== undefined) {
      event.preventDefault();
      event.stopPropagation();
      setCursor(next);
    }
  };
  const shown = at ?? xs.length - 1;
  const values = props.series.map(one => valueAt(one.points, xs[shown] ?? 0, props.x, start));
  const words = props.series.map((one, index) => `${one.name} ${numberText(values[index])}`).join(', ');
  return (
    <figure className="at-chart">
      <figcaption className="at-legend">
        {props.series.map((one, index) => (
          <span key={one.name} className={`at-key at-colour-${one.colour}`}>
            <i className="at-swatch" />
            {one.name} <b>{numberText(values[index])}</b>
          </span>
        ))}
      </figcaption>
      <div
        ref={element}
        className="at-plot"
        tabIndex={0}
        role="slider"
        aria-label={`${props.title} by ${props.x}`}
        aria-valuemin={0}
        aria-valuemax={Math.max(0, xs.length - 1)}
        aria-valuenow={Math.max(0, shown)}
        aria-valuetext={`${xText(xs[shown] ?? 0, props.x)}: ${words}`}
        onMouseMove={move}
        onMouseLeave={() => setCursor(null)}
        onKeyDown={key}
        onBlur={() => setCursor(null)}
      >
        {geometry && (
          <Drawing
            geometry={geometry}
            {...props}
            start={start}
            cursorX={at === null ? null : (xs[at] ?? null)}
            values={values}
          />
        )}
      </div>
    </figure>
  );
}

interface DrawingProps extends ChartProps {
  geometry: Geometry;
  start: number;
  cursorX: number | null;
  values: (number | null)[];
}

function Drawing(props: DrawingProps): JSX.Element {
  const { geometry, cursorX } = props;
  return (
    <svg width={geometry.width} height={HEIGHT} aria-hidden="true">
      <Axes {...geometry} />
      {props.series.map(one => (
        <Curve key={one.name} series={one} geometry={geometry} x={props.x} start={props.start} />
      ))}
      {cursorX !== null && (
        <g>
          <line
            className="at-cursor"
            x1={geometry.px(cursorX)}
            x2={geometry.px(cursorX)}
            y1={TOP}
            y2={HEIGHT - BOTTOM}
          />
          <text className="at-cursor-text" x={geometry.px(cursorX)} y={TOP - 5} textAnchor={anchor(geometry, cursorX)}>
            {xText(cursorX, props.x)}
          </text>
          {props.series.map((one, index) => {
            const y = geometry.py(props.values[index] ?? NaN);
            return y === null || Number.isNaN(y) ? null : (
              <circle
                key={one.name}
                className={`at-dot at-colour-${one.colour}`}
                cx={geometry.px(cursorX)}
                cy={y}
                r={3.5}
              />
            );
          })}
        </g>
      )}
    </svg>
  );
}

function Axes(props: Geometry): JSX.Element {
  const bottom = HEIGHT - BOTTOM;
  return (
    <g className="at-axes">
      {props.yScale.ticks.map((tick, index) => {
        const y = Math.round(props.py(tick) ?? 0) + 0.5;
        return (
          <g key={tick}>
            <line x1={props.left} x2={props.width - RIGHT} y1={y} y2={y} />
            <text x={props.left - 6} y={y + 3.5} textAnchor="end">
              {props.yTexts[index]}
            </text>
          </g>
        );
      })}
      <line className="at-base" x1={props.left} x2={props.width - RIGHT} y1={bottom + 0.5} y2={bottom + 0.5} />
      {props.xScale.ticks.map((tick, index) => (
        <g key={tick}>
          <line className="at-base" x1={crisp(props.px(tick))} x2={crisp(props.px(tick))} y1={bottom} y2={bottom + 4} />
          <text x={props.px(tick)} y={bottom + 17} textAnchor="middle">
            {props.xTexts[index]}
          </text>
        </g>
      ))}
    </g>
  );
}

function Curve(props: { series: Series; geometry: Geometry; x: XAxis; start: number }): JSX.Element {
  const { series, geometry } = props;
  const path = useMemo(() => {
    const places = series.points.map((point, index): [number, number | null] => [
      geometry.px(xOf(point, index, props.x, props.start)),
      point[1] === null ? null : geometry.py(point[1])
    ]);
    return linePath(places);
  }, [series.points, geometry, props.x, props.start]);
  const single = series.points.length === 1 ? path.slice(1).split(',').map(Number) : null;
  return (
    <g className={`at-colour-${series.colour}`}>
      <path className="at-line" d={path} />
      {single && !single.some(Number.isNaN) && <circle className="at-dot" cx={single[0]} cy={single[1]} r={3} />}
    </g>
  );
}

function measure(props: ChartProps, xs: number[], width: number): Geometry {
  const values = props.series.flatMap(one => one.points.map(point => point[1] ?? NaN));
  const yScale = makeScale(values, props.scale, 4);
  const yTexts = tickTexts(yScale.ticks);
  const left = 14 + Math.max(...yTexts.map(text => text.length), 2) * 6.4;
  const xScale = (props.x === 'step' ? stepScale : tightScale)(xs, Math.max(2, Math.floor((width - left) / 60)));
  const xTexts = props.x === 'step' ? tickTexts(xScale.ticks) : timeTexts(xScale.ticks);
  const bottom = HEIGHT - BOTTOM;
  return {
    width,
    left,
    xScale,
    yScale,
    xTexts,
    yTexts,
    px: value => left + (xScale.place(value) ?? 0) * (width - left - RIGHT),
    py: value => {
      const place = yScale.place(value);
      return place === null ? null : bottom - place * (bottom - TOP);
    }
  };
}

function allXs(props: ChartProps, start: number): number[] {
  const all = new Set<number>();
  for (const one of props.series) {
    one.points.forEach((point, index) => all.add(xOf(point, index, props.x, start)));
  }
  return [...all].sort((a, b) => a - b);
}

/** Where a point stands; one without a step stands at its number. */
function xOf(point: Point, index: number, x: XAxis, start: number): number {
  return x === 'time' ? point[2] - start : (point[0] ?? index);
}

/** The value at a place: the newest one logged there (a step may be logged twice, after a resume). */
function valueAt(points: readonly Point[], x: number, axis: XAxis, start: number): number | null {
  for (let index = points.length - 1; index >= 0; index -= 1) {
    if (xOf(points[index] as Point, index, axis, start) <= x) {
      return (points[index] as Point)[1];
    }
  }
  return null;
}

function xText(x: number, axis: XAxis): string {
  return axis === 'step' ? `step ${numberText(x)}` : durationText(x);
}

/** Seconds while they are few, else the largest two units. */
function timeTexts(ticks: number[]): string[] {
  const few = (ticks[ticks.length - 1] ?? 0) < 60;
  return few ? tickTexts(ticks).map(text => `${text} s`) : ticks.map(tick => (tick === 0 ? '0' : durationText(tick)));
}

/** The cursor's text stays within the plot. */
function anchor(geometry: Geometry, x: number): 'start' | 'middle' | 'end' {
  const place = geometry.px(x);
  return place < geometry.left + 30 ? 'start' : place > geometry.width - RIGHT - 30 ? 'end' : 'middle';
}

function crisp(place: number): number {
  return Math.round(place) + 0.5;
}

function moved(key: string, at: number | null, count: number): number | null | undefined {
  const last = count - 1;
  const from = at ?? last;
  const big = Math.max(1, Math.round(count / 10));
  const moves: Record<string, number | null> = {
    ArrowLeft: Math.max(0, from - 1),
    ArrowRight: Math.min(last, from + 1),
    PageDown: Math.max(0, from - big),
    PageUp: Math.min(last, from + big),
    Home: 0,
    End: last,
    Escape: null
  };
  return moves[key];
}

/** The curves of a run: which metrics, on which axes. */

import { useMemo, useState } from 'react';

import type { Curves as CurveData } from '../model/records';
import { metricGroup, type ScaleKind } from '../model/scale';
import { isSystemMetric, numberText } from '../model/texts';
import { Chart, type Series, type XAxis } from './Chart';
import { Button } from './parts';

const SHOWN_AT_FIRST = 8;
const COLOURS = 6;

export function Curves(props: { curves: CurveData; live: boolean }): JSX.Element {
  const names = useMemo(() => sortedNames(props.curves), [Object.keys(props.curves).join('\n')]);
  const [picked, setPicked] = useState<Record<string, boolean>>({});
  const [scale, setScale] = useState<ScaleKind>('linear');
  const [x, setX] = useState<XAxis>('step');
  const [picking, setPicking] = useState(false);
  const first = names.filter(name => !isSystemMetric(name)).slice(0, SHOWN_AT_FIRST);
  const isShown = (name: string): boolean => picked[name] ?? first.includes(name);
  const shown = names.filter(isShown);
  const single = singles(shown, props);
  const groups = useMemo(
    () =>
      grouped(
        shown.filter(name => !single.includes(name)),
        names,
        props.curves
      ),
    [names, picked, props.curves, props.live]
  );
  if (names.length === 0) {
    return (
      <p className="at-quiet at-no-metrics">
        {props.live ? 'No metrics yet. ' : 'No metrics were logged. '}
        The code logs them with <code>atelier.current_run().log(step=1, loss=0.21)</code>
      </p>
    );
  }
  return (
    <div role="group" className="at-curves" aria-label="Metrics">
      <div className="at-toolbar">
        <Button kind="bare" icon={picking ? 'down' : 'next'} expanded={picking} onClick={() => setPicking(!picking)}>
          Metrics {shown.length} of {names.length}
        </Button>
        <div className="at-switches">
          <Button kind="bare" pressed={x === 'time'} onClick={() => setX(x === 'time' ? 'step' : 'time')}>
            By time
          </Button>
          <Button kind="bare" pressed={scale === 'log'} onClick={() => setScale(scale === 'log' ? 'linear' : 'log')}>
            Log scale
          </Button>
        </div>
      </div>
      {picking && (
        <div className="at-chips" role="group" aria-label="Metrics that are shown">
          {names.map(name => (
            <button
              type="button"
              key={name}
              className={`at-chip at-colour-${colourOf(name, names)}`}
              aria-pressed={isShown(name)}
              onClick={() => setPicked({ ...picked, [name]: !isShown(name) })}
            >
              <i className="at-swatch" />
              {name}
            </button>
          ))}
        </div>
      )}
      <div className="at-charts">
        {groups.map(([title, series]) => (
          <Chart key={title} title={title} series={series} scale={scale} x={x} />
        ))}
      </div>
      {single.length > 0 && (
        <dl className="at-values" aria-label="Logged once">
          {single.map(name => (
            <div key={name}>
              <dt title={name}>{name}</dt>
              <dd>{numberText(props.curves[name]?.[0]?.[1])}</dd>
            </div>
          ))}
        </dl>
      )}
      {shown.length === 0 && (
        <p className="at-quiet at-no-metrics">
          {names.every(isSystemMetric)
            ? 'The code has logged no metrics. How it used the machine can be picked above.'
            : 'No metric is picked.'}
        </p>
      )}
    </div>
  );
}

/** What was logged once is a number, no curve; a run that has just begun may still make one of it. */
function singles(shown: string[], props: { curves: CurveData; live: boolean }): string[] {
  const isOver = !props.live || Object.values(props.curves).some(points => points.length > 1);
  return isOver ? shown.filter(name => props.curves[name]?.length === 1) : [];
}

function sortedNames(curves: CurveData): string[] {
  const names = Object.keys(curves);
  return names.sort((a, b) => rank(a) - rank(b) || metricGroup(a).localeCompare(metricGroup(b)) || a.length - b.length);
}

function rank(name: string): number {
  const group = metricGroup(name);
  return isSystemMetric(name) ? 3 : group === 'loss' ? 0 : group.startsWith('acc') ? 1 : 2;
}

function colourOf(name: string, names: string[]): number {
  const group = names.filter(other => metricGroup(other) === metricGroup(name));
  return group.indexOf(name) % COLOURS;
}

function grouped(shown: string[], names: string[], curves: CurveData): [string, Series[]][] {
  const groups = new Map<string, Series[]>();
  for (const name of shown) {
    const series = { name, colour: colourOf(name, names), points: curves[name] ?? [] };
    const group = groups.get(metricGroup(name));
    if (group) {
      group.push(series);
    } else {
      groups.set(metricGroup(name), [series]);
    }
  }
  return [...groups];
}

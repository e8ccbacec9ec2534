/** From numbers to places in a chart: domains, ticks, paths. */

import type { Point } from './records';

export type ScaleKind = 'linear' | 'log';

export interface Scale {
  kind: ScaleKind;
  domain: [number, number];
  /** Place of a value on 0…1; null for what the scale can't show (zero and below on a log scale). */
  place(value: number): number | null;
  ticks: number[];
}

/** A scale that holds all values, with its ends on nice numbers. */
export function makeScale(values: Iterable<number>, kind: ScaleKind, count: number): Scale {
  return kind === 'log' ? logScale(values, count) : linearScale(values, count);
}

function linearScale(values: Iterable<number>, count: number): Scale {
  let [low, high] = extent(values);
  if (low === high) {
    const around = Math.abs(low) * 0.1 || 1;
    [low, high] = [low - around, high + around];
  }
  const step = niceStep((high - low) / Math.max(1, count));
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  const ticks = Array.from({ length: last - first + 1 }, (_, at) => rounded((first + at) * step, step));
  const domain: [number, number] = [ticks[0] as number, ticks[ticks.length - 1] as number];
  return { kind: 'linear', domain, ticks, place: value => (value - domain[0]) / (domain[1] - domain[0]) };
}

function logScale(values: Iterable<number>, count: number): Scale {
  const [low, high] = extent(positive(values));
  const first = Math.floor(Math.log10(low) + 1e-9);
  let last = Math.ceil(Math.log10(high) - 1e-9);
  if (last <= first) {
    last = first + 1;
  }
  const every = Math.max(1, Math.ceil((last - first) / Math.max(1, count)));
  const ticks: number[] = [];
  for (let power = first; power <= last; power += every) {
    ticks.push(10 ** power);
  }
  if (last - first <= 2) {
    for (let power = first; power < last; power += 1) {
      ticks.push(2 * 10 ** power, 5 * 10 ** power);
    }
    ticks.sort((a, b) => a - b);
  }
  const place = (value: number): number | null => (value > 0 ? (Math.log10(value) - first) / (last - first) : null);
  return { kind: 'log', domain: [10 ** first, 10 ** last], ticks, place };
}

/** A scale that ends where its values end: a time axis has no room to give away. */
export function tightScale(values: Iterable<number>, count: number): Scale {
  const [low, high] = extent(values);
  const whole = linearScale([low, high], count);
  const domain: [number, number] = low === high ? whole.domain : [low, high];
  const ticks = whole.ticks.filter(tick => tick >= domain[0] && tick <= domain[1]);
  return { kind: 'linear', domain, ticks, place: value => (value - domain[0]) / (domain[1] - domain[0]) };
}

/** A tight scale of steps: there is nothing between whole ones, and one alone stands in the middle. */
export function stepScale(values: readonly number[], count: number): Scale {
  const scale = tightScale(values, count);
  if (!values.every(Number.isInteger)) {
    return scale;
  }
  const [low, high] = extent(values);
  const domain: [number, number] = low === high ? [low - 1, high + 1] : scale.domain;
  const ticks = low === high ? [low] : scale.ticks.filter(Number.isInteger);
  return { kind: 'linear', domain, ticks, place: value => (value - domain[0]) / (domain[1] - domain[0]) };
}

function* positive(values: Iterable<number>): Iterable<number> {
  for (const value of values) {
    if (value > 0) {
      yield value;
    }
  }
}

function extent(values: Iterable<number>): [number, number] {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (Number.isFinite(value)) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return low <= high ? [low, high] : [1, 1];
}

function niceStep(raw: number): number {
  const power = 10 ** Math.floor(Math.log10(raw));
  const part = raw / power;
  return (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10) * power;
}

function rounded(value: number, step: number): number {
  const digits = Math.max(0, -Math.floor(Math.log10(step)) + 1);
  return digits > 20 ? value : Number(value.toFixed(digits));
}

/** Numbers beside an axis, all with the digits that tell neighbours apart. */
export function tickTexts(ticks: number[]): string[] {
  const most = Math.max(...ticks.map(Math.abs), 0);
  const least = ticks.slice(1).reduce((step, tick, at) => Math.min(step, tick - (ticks[at] as number)), Infinity);
  if (most >= 1e5) {
    return ticks.map(shortText);
  }
  if (most !== 0 && most < 1e-3) {
    return ticks.map(tick => (tick === 0 ? '0' : tick.toExponential().replace('e+', 'e')));
  }
  const digits =
    Number.isFinite(least) && least > 0 ? Math.min(6, Math.max(0, -Math.floor(Math.log10(least) + 1e-9))) : 2;
  return ticks.map(tick => (Number.isInteger(tick) && digits > 0 ? String(tick) : tick.toFixed(digits)));
}

function shortText(value: number): string {
  const size = Math.abs(value);
  const [divisor, unit] = size >= 1e9 ? [1e9, 'G'] : size >= 1e6 ? [1e6, 'M'] : size >= 1e3 ? [1e3, 'k'] : [1, ''];
  return `${Number((value / divisor).toPrecision(3))}${unit}`;
}

/** An SVG path through points; a gap where a value is missing or can't be shown. */
export function linePath(places: Iterable<[number, number | null]>): string {
  let path = '';
  let open = false;
  for (const [x, y] of places) {
    if (y === null || !Number.isFinite(y)) {
      open = false;
      continue;
    }
    path += `${open ? 'L' : 'M'}${x.toFixed(1)},${y.toFixed(1)}`;
    open = true;
  }
  return path;
}

/** Adds new points to known ones in order of time, each once; halves the older part beyond `limit`. */
export function mergePoints(known: readonly Point[], added: readonly Point[], limit = 4000): Point[] {
  const last = known[known.length - 1];
  const inOrder = last === undefined || added.every(point => point[2] > last[2]);
  let all: Point[] = [...known, ...added];
  if (!inOrder) {
    const seen = new Set<string>();
    all = all.filter(point => {
      const key = point.join();
      return seen.has(key) ? false : seen.add(key);
    });
    all.sort((a, b) => a[2] - b[2]);
  }
  return all.length > limit ? all.filter((_, at) => at % 2 === 0 || at === all.length - 1) : all;
}

/** Index of the x nearest to a wanted one, in a list that ascends. */
export function nearestIndex(xs: readonly number[], wanted: number): number {
  let low = 0;
  let high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((xs[middle] as number) < wanted) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return Math.abs((xs[low] as number) - wanted) <= Math.abs((xs[high] as number) - wanted) ? low : high;
}

/** `val_loss` and `loss` belong in one chart: the name without what says which data it is of. */
export function metricGroup(name: string): string {
  return name
    .replace(/^(?:val|valid|validation|test|train|training|eval)[_/.-]/, '')
    .replace(/[_/.-](?:val|test|train)$/, '');
}

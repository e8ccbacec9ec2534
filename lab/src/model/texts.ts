/** States, times and sizes in words. */

import type { Line } from './logfold';
import type { Attempt, AttemptState, Progress, Run, RunState } from './records';

const STATES: Record<AttemptState, string> = {
  created: 'Created',
  queued: 'Waiting',
  starting: 'Starting',
  running: 'Running',
  succeeded: 'Done',
  failed: 'Failed',
  cancelled: 'Cancelled',
  timed_out: 'Timed out',
  preempted: 'Preempted',
  lost: 'Lost'
};

export const STATE_CHOICES: RunState[] = [
  'running',
  'queued',
  'starting',
  'succeeded',
  'failed',
  'cancelled',
  'timed_out',
  'lost'
];

export function stateText(state: AttemptState): string {
  return STATES[state] ?? String(state);
}

/** The state of a run as its head shows it: a run that is asked to stop says so until it has. */
export function runStateText(run: Pick<Run, 'state' | 'desired' | 'ended_at'>): string {
  const stopping = run.desired === 'cancelled' && run.ended_at === null;
  return stopping ? 'Cancelling' : stateText(run.state);
}

/** `3725` → `1 h 2 min`, as the command line writes it. */
export function durationText(seconds: number): string {
  if (!(seconds >= 0)) {
    return '–';
  }
  if (seconds < 10) {
    return `${seconds.toFixed(1)} s`;
  }
  const whole = Math.round(seconds);
  if (whole < 60) {
    return `${whole} s`;
  }
  const [unitS, unit, partS, part] =
    whole >= 86400
      ? ([86400, 'd', 3600, 'h'] as const)
      : whole >= 3600
        ? ([3600, 'h', 60, 'min'] as const)
        : ([60, 'min', 1, 's'] as const);
  const rest = Math.floor((whole % unitS) / partS);
  return `${Math.floor(whole / unitS)} ${unit}${rest > 0 ? ` ${rest} ${part}` : ''}`;
}

export function bytesText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let size = bytes;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  const plain = size >= 100 || Number.isInteger(size) ? size.toFixed(0) : size.toFixed(1);
  return `${plain} ${units[unit]}`;
}

const GAP = /^\[(\d+ bytes were left out here: .+)\]$/;

/** What a line says that stands in a log for the middle that was left out; null for any other line. */
export function gapText(line: Line): string | null {
  const words = GAP.exec(line.map(span => span.text).join(''))?.[1];
  return words?.replace(/(\d+)(?: bytes)?/g, (_whole, bytes: string) => bytesText(Number(bytes))) ?? null;
}

/** A number for reading: four significant digits, powers of ten only where plain digits get long. */
export function numberText(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) {
    return 'not finite';
  }
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) {
    return value.toExponential(2).replace('e+', 'e');
  }
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
}

/** A measured time for a table: three significant digits, however short it is. */
export function threeDigits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value === 0 ? '0' : value.toPrecision(3);
}

/** The part that is done, 0 to 1; null when the whole is not known. */
export function progressPart(progress: Progress | null): number | null {
  const percent = exactPercent(progress);
  return percent === null ? null : percent / 100;
}

/** Progress in whole percent, as the texts of the terminal have it: 100 only when all is done. */
export function progressPercent(progress: Progress | null): number | null {
  const percent = exactPercent(progress);
  return percent === null ? null : Math.floor(percent);
}

function exactPercent(progress: Progress | null): number | null {
  if (progress === null || progress.total === null || !(progress.total > 0)) {
    return null;
  }
  return Math.min(100, Math.max(0, (100 * progress.done) / progress.total));
}

export function progressText(progress: Progress): string {
  return progress.total === null ? `${countText(progress)} done` : countText(progress);
}

/** Where a run that has ended stopped; empty when it got to its end, or never said how far it was. */
export function stoppedText(run: Pick<Run, 'state' | 'progress' | 'ended_at'>): string {
  const { progress } = run;
  if (progress === null || run.ended_at === null) {
    return '';
  }
  const isWhole = progress.total === null ? run.state === 'succeeded' : progress.done >= progress.total;
  return isWhole ? '' : `stopped at ${countText(progress)}`;
}

function countText(progress: Progress): string {
  const done = numberText(progress.done);
  const count = progress.total === null ? done : `${done} of ${numberText(progress.total)}`;
  return progress.unit ? `${count} ${progress.unit}` : count;
}

/** Time left, counted down since it was told; "unknown" until the service has two points to tell it from. */
export function leftText(progress: Progress | null, now: number): string {
  if (progress === null || progress.left_s === null) {
    return 'time left unknown';
  }
  const left = progress.left_s - Math.max(0, (now - Date.parse(progress.at)) / 1000);
  if (left <= 0) {
    return 'nearly done';
  }
  return left < 10 ? 'a few seconds left' : `about ${durationText(left)} left`;
}

export interface Timed extends Pick<Attempt, 'started_at' | 'ended_at'> {
  state?: AttemptState;
  last_seen_at?: string | null;
  attempts?: readonly Attempt[];
}

/** How long a run or attempt took, or has been going, a lost one until it was last heard of; null before it began. */
export function lasted(timed: Timed, now: number): number | null {
  if (timed.started_at === null) {
    return null;
  }
  const heard = timed.last_seen_at ?? timed.attempts?.[timed.attempts.length - 1]?.last_seen_at;
  const ended = timed.state === 'lost' && heard ? heard : timed.ended_at;
  const end = timed.ended_at === null || ended === null ? now : Date.parse(ended);
  return Math.max(0, (end - Date.parse(timed.started_at)) / 1000);
}

export function lastedText(timed: Timed, now: number): string {
  const seconds = lasted(timed, now);
  if (seconds === null) {
    return '–';
  }
  // tenths of a second that tick by are no use to anybody
  return timed.ended_at === null && seconds < 10 ? `${Math.floor(seconds)} s` : durationText(seconds);
}

/** A moment as people say it: the time today, the day before that. */
export function momentText(iso: string | null, now: number): string {
  if (iso === null) {
    return '–';
  }
  const then = new Date(iso);
  const today = new Date(now);
  const time = then.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
  if (then.toDateString() === today.toDateString()) {
    return time;
  }
  return `${dayText(then, today)}, ${time}`;
}

/** The same to the second, and short. */
export function secondText(iso: string, now: number): string {
  const then = new Date(iso);
  const time = then.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
  return then.toDateString() === new Date(now).toDateString() ? time : `${dayText(then, new Date(now))}, ${time}`;
}

function dayText(then: Date, today: Date): string {
  const isThisYear = then.getFullYear() === today.getFullYear();
  return then.toLocaleDateString([], { day: 'numeric', month: 'short', ...(isThisYear ? {} : { year: 'numeric' }) });
}

export function fullMomentText(iso: string | null): string {
  return iso === null ? '' : new Date(iso).toLocaleString([], { hourCycle: 'h23' });
}

/** The metric that says most in one cell of a table: of held-out data before others, an accuracy, then a loss. */
export function headlineMetric(metrics: Record<string, number | null>): [string, number | null] | null {
  const names = Object.keys(metrics).filter(name => !isSystemMetric(name));
  const name = names.sort((a, b) => headlineRank(a) - headlineRank(b) || a.localeCompare(b))[0];
  return name === undefined ? null : [name, metrics[name] ?? null];
}

const HELD_OUT = [/^test[/._-]/, /^(?:val|valid|validation)[/._-]/];

function headlineRank(name: string): number {
  const heldOut = HELD_OUT.findIndex(prefix => prefix.test(name));
  const kind = /(?:^|[/._-])acc(?:uracy)?$/.test(name) ? 0 : /(?:^|[/._-])loss$/.test(name) ? 1 : 2;
  return (heldOut < 0 ? 10 : 0) + kind * 2 + Math.max(0, heldOut);
}

export function isSystemMetric(name: string): boolean {
  return /^(?:system|process|gpu|cpu|memory|usage)[/._]/.test(name);
}

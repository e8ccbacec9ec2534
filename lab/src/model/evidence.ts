/**
 * Why a run waits or how it ended, beside the service's own sentence and next action: what is known, by name.
 * The static view (`display/evidence.py`) names the same facts.
 */

import { isPausing } from './queue';
import { isFinal, type Attempt, type ErrorReport, type Run } from './records';
import { bytesText, durationText, secondText } from './texts';

export type Fact = readonly [name: string, value: string];

const SILENT = new Set<string | null>(['agent_lost', 'stalled']);
const SIGNALS: Record<number, string> = {
  1: 'SIGHUP',
  2: 'SIGINT',
  3: 'SIGQUIT',
  4: 'SIGILL',
  6: 'SIGABRT',
  7: 'SIGBUS',
  8: 'SIGFPE',
  9: 'SIGKILL',
  11: 'SIGSEGV',
  13: 'SIGPIPE',
  14: 'SIGALRM',
  15: 'SIGTERM',
  24: 'SIGXCPU',
  25: 'SIGXFSZ'
};

/** Whether a run waits, also for a start that is put off, or ended otherwise than well: what its card is for. */
export function isExplained(run: Pick<Run, 'state' | 'hint'>): boolean {
  const isPutOff = run.state === 'starting' && Boolean(run.hint);
  return run.state === 'queued' || isPutOff || (isFinal(run) && run.state !== 'succeeded');
}

/** Where in the code, how the process ended, what it used, what comes next. */
export function facts(run: Run, now: number): Fact[] {
  const attempt = run.attempts[run.attempts.length - 1];
  const isSilent = run.state === 'lost' || SILENT.has(attempt?.reason ?? null);
  const known: Fact[] = [
    ['In the queue', placeText(run)],
    ['Priority', run.priority ? String(run.priority) : ''],
    ['Next attempt', nextAttemptText(run, now)],
    run.state === 'queued' ? ['Goes on from', checkpointText(run)] : ['Newest checkpoint', stepText(run)],
    ['Where', whereText(attempt?.error ?? null)],
    exit(attempt?.exit_code ?? null),
    ['Memory', memoryText(attempt?.usage ?? {}, run.memory_bytes ?? null)],
    ['Last heard of', isSilent && attempt?.last_seen_at ? secondText(attempt.last_seen_at, now) : '']
  ];
  return known.filter(([, value]) => value !== '');
}

export function placeText(run: Pick<Run, 'state' | 'queue_position'>): string {
  if (run.state !== 'queued' || !run.queue_position) {
    return '';
  }
  return run.queue_position === 1 ? 'next' : `place ${run.queue_position}`;
}

/** When a run is tried again after an attempt that failed, and in how long; once that has passed it waits as any other. */
function nextAttemptText(run: Run, now: number): string {
  if (!run.not_before || !isPausing(run, now)) {
    return '';
  }
  const left = Math.ceil((Date.parse(run.not_before) - now) / 1000);
  return `${secondText(run.not_before, now)} (in ${left < 10 ? `${left} s` : durationText(left)})`;
}

/** Whether the card of a run has its attempts: where there are several, or one that is tried again. */
export function hasAttempts(run: Run): boolean {
  return isExplained(run) && run.attempts.length > (run.state === 'queued' ? 0 : 1);
}

export function checkpointText(run: Pick<Run, 'checkpoint_step'>): string {
  return stepText(run) && `checkpoint of ${stepText(run)}`;
}

function stepText(run: Pick<Run, 'checkpoint_step'>): string {
  return run.checkpoint_step === null || run.checkpoint_step === undefined ? '' : `step ${run.checkpoint_step}`;
}

export function whereText(error: ErrorReport | null): string {
  const place = [error?.cell ? `cell ${error.cell}` : '', error?.file ?? '', error?.line ? `line ${error.line}` : ''];
  return place.filter(Boolean).join(' · ');
}

/** The exit code of a process, or the signal that ended it: the negative ones. */
function exit(code: number | null): Fact {
  if (code === null || code >= 0) {
    return ['Exit code', code === null ? '' : String(code)];
  }
  const name = SIGNALS[-code];
  return ['Signal', name ? `${-code} (${name})` : String(-code)];
}

/** The most that it used, of what its machine has: where the agent measured it. */
function memoryText(usage: Attempt['usage'], limit: number | null): string {
  const peak = usage['memory_peak_bytes'];
  return peak ? `${bytesText(peak)} at its peak${limit ? `, of ${bytesText(limit)}` : ''}` : '';
}

/** What was noticed at submit or later, each once. */
export function warningsOf(run: Run): string[] {
  return [...new Set([...run.source.warnings, ...run.warnings])];
}

/** The order in which the caller's waiting runs will be tried, and what moves one of them in it. */

import type { Place } from './api';
import type { Run } from './records';

/** A run to be moved, and where to. */
export interface Order {
  run: string;
  to: Place;
}

export interface Moves {
  up: Order | null;
  down: Order | null;
  first: Order | null;
  last: Order | null;
}

export function isWaiting(run: Pick<Run, 'state' | 'desired'>): boolean {
  return run.state === 'queued' && run.desired !== 'cancelled';
}

/** Runs that wait, the next one first; those whose place is not known come last, as they were submitted. */
export function queueOf(runs: Iterable<Run>): Run[] {
  return [...runs].filter(isWaiting).sort((a, b) => place(a) - place(b) || a.created_at.localeCompare(b.created_at));
}

function place(run: Run): number {
  return run.queue_position ?? Number.MAX_SAFE_INTEGER;
}

/**
 * What moves a run in its queue; null where it is at that end already, or doesn't wait. Each changes this run only: one that
 * goes before another takes that one's priority. The first place is also for a run that pauses after an attempt, to be tried now.
 */
export function movesOf(queue: readonly Run[], id: string, now: number): Moves {
  const at = queue.findIndex(run => run.id === id);
  const [before, own, after, beyond] = [queue[at - 1], queue[at], queue[at + 1], queue[at + 2]];
  const order = (to: Place): Order => ({ run: id, to });
  return {
    up: own && before ? order({ before: before.id }) : null,
    down: own && after ? order(beyond ? { before: beyond.id } : 'last') : null,
    first: own && (before || isPausing(own, now)) ? order('first') : null,
    last: own && after ? order('last') : null
  };
}

/** Whether a run waits for a moment, after an attempt that failed. */
export function isPausing(run: Pick<Run, 'state' | 'not_before'>, now: number): boolean {
  return run.state === 'queued' && Boolean(run.not_before) && Date.parse(run.not_before as string) > now;
}

/** Runs of a list as it shows them: those that wait first, in their order, then the others as they came. */
export interface Arranged {
  waiting: Run[];
  others: Run[];
  /** Waiting runs that are not shown. */
  more: number;
}

export interface ListPlace {
  state: string | null;
  isFirstPage: boolean;
  /** Whether it lists all of the caller's runs, not some that are named. */
  isOfAll: boolean;
}

/** Beside other runs; alone, as many as `MOST_WAITING`. */
const WAITING_BESIDE = 6;
const MOST_WAITING = 100;

/**
 * Puts the queue before the first page of all runs, and in the place of the pages of waiting ones. It is read from what is
 * known of the caller's unfinished runs: a page of the newest would lack those that are next.
 */
export function arrange(runs: readonly Run[], queue: readonly Run[], place: ListPlace): Arranged {
  const hasQueue = place.isOfAll && place.isFirstPage && (place.state === null || place.state === 'queued');
  if (!hasQueue) {
    return { waiting: [], others: [...runs], more: 0 };
  }
  const ids = new Set(queue.map(run => run.id));
  const most = place.state === null ? WAITING_BESIDE : MOST_WAITING;
  const waiting = queue.slice(0, most);
  return { waiting, others: runs.filter(run => !ids.has(run.id)), more: queue.length - waiting.length };
}

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

/** What moves a run in its queue; null where it is at that end already, or doesn't wait. */
export function movesOf(queue: readonly Run[], id: string): Moves {
  const at = queue.findIndex(run => run.id === id);
  const [before, after] = [queue[at - 1], queue[at + 1]];
  const isIn = at >= 0;
  return {
    up: isIn && before ? { run: id, to: { before: before.id } } : null,
    down: isIn && after ? { run: after.id, to: { before: id } } : null,
    first: isIn && before ? { run: id, to: 'first' } : null,
    last: isIn && after ? { run: id, to: 'last' } : null
  };
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

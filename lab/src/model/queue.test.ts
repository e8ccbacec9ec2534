import { describe, expect, it } from 'vitest';

import { makeRun } from '../testing/page';
import { arrange, movesOf, queueOf } from './queue';
import type { Run } from './records';

function waits(id: string, place: number | null, more: Partial<Run> = {}): Run {
  return makeRun({ id, state: 'queued', queue_position: place, ...more });
}

const A = waits('r-aaaaaaaaaa', 5);
const B = waits('r-bbbbbbbbbb', 2);
const C = waits('r-cccccccccc', 9);
const NOW = Date.parse('2026-11-24T10:01:00Z');
const RUNNING = makeRun({ id: 'r-dddddddddd' });

function ids(runs: Run[]): string[] {
  return runs.map(run => run.id[2] as string);
}

describe('the queue', () => {
  it('is in the order of places, without those that do not wait', () => {
    const stopping = waits('r-eeeeeeeeee', 1, { desired: 'cancelled' });
    const unplaced = waits('r-ffffffffff', null, { created_at: '2026-11-24T09:00:00Z' });
    expect(ids(queueOf([A, unplaced, RUNNING, stopping, B, C]))).toEqual(['b', 'a', 'c', 'f']);
  });

  it('moves a run by its neighbours, and not beyond an end', () => {
    const queue = queueOf([A, B, C]);
    expect(movesOf(queue, A.id, NOW)).toEqual({
      up: { run: A.id, to: { before: B.id } },
      down: { run: A.id, to: 'last' },
      first: { run: A.id, to: 'first' },
      last: { run: A.id, to: 'last' }
    });
    expect(movesOf(queue, B.id, NOW)).toMatchObject({ up: null, first: null, down: { to: { before: C.id } } });
    expect(movesOf(queue, C.id, NOW)).toMatchObject({ down: null, last: null });
    expect(movesOf(queue, RUNNING.id, NOW)).toEqual({ up: null, down: null, first: null, last: null });
  });

  it('lets a run that pauses after an attempt be tried now, alone as it is', () => {
    const pauses = waits(A.id, 1, { not_before: '2026-11-24T10:01:08Z' });
    expect(movesOf([pauses], A.id, NOW).first).toEqual({ run: A.id, to: 'first' });
    expect(movesOf([pauses], A.id, NOW + 60_000).first).toBeNull();
  });
});

describe('a list', () => {
  const queue = queueOf([A, B]);
  const first = { state: null, isFirstPage: true, isOfAll: true };

  it('begins with the queue, each run once, with waiting runs of later pages', () => {
    const { waiting, others, more } = arrange([A, RUNNING], queue, first);
    expect([ids(waiting), ids(others), more]).toEqual([['b', 'a'], ['d'], 0]);
  });

  it('counts what of a long queue it leaves out, until only the queue is shown', () => {
    const many = Array.from({ length: 9 }, (_, place) => waits(`r-${'abcdefghi'[place]}aaaaaaaaa`, place + 1));
    expect(arrange([RUNNING], many, first)).toMatchObject({ waiting: many.slice(0, 6), more: 3 });
    expect(arrange(many, many, { ...first, state: 'queued' })).toMatchObject({ waiting: many, others: [], more: 0 });
  });

  it('stays as it is on later pages, in other states and where runs are named', () => {
    for (const other of [{ isFirstPage: false }, { state: 'failed' }, { isOfAll: false }]) {
      expect(arrange([A, RUNNING], queue, { ...first, ...other })).toEqual({
        waiting: [],
        others: [A, RUNNING],
        more: 0
      });
    }
  });
});

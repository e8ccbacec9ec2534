import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { answersFor, Failure, makeArtifact, makeAttempt, makeRun, Page, type Answers } from '../testing/page';
import { ActivityStore, activityText } from './activity';
import { ListStore, PAGE_SIZE } from './liststore';
import { LogStore } from './logstore';
import type { LogPart, Run } from './records';
import { RunStore } from './runstore';

const RUN = makeRun();
const ends: (() => void)[] = [];

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  ends.splice(0).forEach(end => end());
  vi.useRealTimers();
});

/** Lets answers arrive and changes be told. */
async function settle(ms = 50): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
}

function watch(store: { subscribe(callback: () => void): () => void }): void {
  ends.push(store.subscribe(() => undefined));
}

describe('one run', () => {
  async function opened(answers: Answers = answersFor(RUN)): Promise<[Page, RunStore]> {
    const page = new Page(answers);
    const store = new RunStore(RUN.id, page.api, page.events);
    watch(store);
    page.connect();
    await settle();
    return [page, store];
  }

  it('is read, and then kept up by what is told', async () => {
    const curves = { names: { loss: { last: {}, points: [[0, 1, 10]] } } };
    const [page, store] = await opened(answersFor(RUN, { [`api/v1/runs/${RUN.id}/metrics`]: curves }));
    page.tell('metrics', {
      run: RUN.id,
      last: { loss: 0.5 },
      points: {
        loss: [
          [0, 1, 10],
          [1, 0.5, 11]
        ],
        acc: [[1, 0.9, 11]]
      }
    });
    page.tell('artifact', { run: RUN.id, artifact: makeArtifact('a.txt') });
    page.tell('artifact', { run: RUN.id, artifact: makeArtifact('a.txt', { size_bytes: 5 }) });
    page.tell('run', makeRun({ progress: { done: 1, total: 5, unit: null, left_s: null, at: '' } }));
    const { run, curves: known, artifacts } = store.snapshot();
    expect(run?.progress?.done).toBe(1);
    expect(known).toEqual({
      loss: [
        [0, 1, 10],
        [1, 0.5, 11]
      ],
      acc: [[1, 0.9, 11]]
    });
    expect(artifacts?.map(one => one.size_bytes)).toEqual([5]);
  });

  it('loses nothing that is told during a read', async () => {
    const [page, store] = await opened(
      answersFor(RUN, { [`api/v1/runs/${RUN.id}/metrics`]: { names: { loss: { points: [[0, 1, 10]] } } } })
    );
    const read = store.refresh();
    page.tell('metrics', { run: RUN.id, points: { loss: [[1, 0.5, 11]] } });
    page.tell('artifact', { run: RUN.id, artifact: makeArtifact('a.txt') });
    page.tell('run', makeRun({ progress: { done: 1, total: 5, unit: null, left_s: null, at: '' } }));
    await settle();
    await read;
    const { run, curves, artifacts } = store.snapshot();
    expect(curves?.['loss']?.map(point => point[0])).toEqual([0, 1]);
    expect(artifacts).toHaveLength(1);
    expect(run?.progress?.done).toBe(1);
  });

  it('never goes back to an older epoch', async () => {
    const [page, store] = await opened();
    page.tell('run', makeRun({ state: 'succeeded', epoch: 4, ended_at: '2026-11-24T10:00:09Z' }));
    page.tell('run', makeRun({ state: 'running', epoch: 3 }));
    expect(store.snapshot().run?.state).toBe('succeeded');
  });

  it('keeps the newer of two records of one epoch, told or read', async () => {
    const told = (second: number, done: number): Run => {
      const at = `2026-11-24T10:00:${second}.000Z`;
      const attempts = [makeAttempt({ last_seen_at: at })];
      return makeRun({ attempts, progress: { done, total: 5, unit: null, left_s: null, at } });
    };
    const [page, store] = await opened();
    const done = (): number | undefined => store.snapshot().run?.progress?.done;
    page.tell('run', told(20, 3));
    page.tell('run', told(10, 2));
    expect(done()).toBe(3);
    page.answers[`api/v1/runs/${RUN.id}`] = told(15, 2);
    await store.refresh();
    expect(done()).toBe(3);
    page.answers[`api/v1/runs/${RUN.id}`] = told(30, 4);
    await store.refresh();
    expect(done()).toBe(4);
    page.tell('run', { ...told(25, 4), state: 'failed', epoch: RUN.epoch + 1 });
    expect(store.snapshot().run?.state).toBe('failed');
  });

  it('is read again after a gap, and when it has ended', async () => {
    const [page] = await opened();
    const reads = (): number => page.asked.filter(one => one.path === `api/v1/runs/${RUN.id}`).length;
    expect(reads()).toBeGreaterThanOrEqual(1);
    const before = reads();
    page.tell('resync', {});
    await settle();
    expect(reads()).toBe(before + 1);
    page.tell('run', makeRun({ state: 'failed', epoch: 4 }));
    await settle();
    expect(reads()).toBe(before + 2);
  });

  it('says that it is not there, and does not ask again', async () => {
    const [page, store] = await opened({
      [`api/v1/runs/${RUN.id}`]: new Failure(404, 'unknown_run', 'There is no run.')
    });
    expect(store.snapshot().error?.code).toBe('unknown_run');
    const before = page.asked.length;
    await settle(60_000);
    expect(page.asked).toHaveLength(before);
  });

  it('keeps what it knows while nobody answers, and recovers', async () => {
    const [page, store] = await opened();
    page.away = true;
    await store.refresh();
    expect(store.snapshot()).toMatchObject({ run: { id: RUN.id }, error: { status: 0 } });
    page.away = false;
    await settle(6000);
    expect(store.snapshot().error).toBeNull();
  });

  it('asks for nothing when nobody looks', async () => {
    const [page, store] = await opened();
    ends.splice(0).forEach(end => end());
    const before = page.asked.length;
    page.tell('resync', {});
    await settle(60_000);
    expect(page.asked).toHaveLength(before);
    expect(store.snapshot().run?.id).toBe(RUN.id);
  });
});

describe('the list', () => {
  const runs = Array.from({ length: PAGE_SIZE }, (_, at) =>
    makeRun({ id: `r-aaaaaaaa${'abcdefghijklmnopqrstuvwxyz'[at]}2` })
  );
  const first = `api/v1/runs?limit=${PAGE_SIZE}`;
  const second = `api/v1/runs?limit=${PAGE_SIZE}&page=tok`;

  async function opened(
    target = { ids: null as string[] | null, state: null as string | null }
  ): Promise<[Page, ListStore]> {
    const page = new Page({ [first]: { items: runs, next: 'tok' }, [second]: { items: [RUN], next: null } });
    const store = new ListStore(target, page.api, page.events);
    watch(store);
    page.connect();
    await settle();
    return [page, store];
  }

  it('goes to older runs and back', async () => {
    const [, store] = await opened();
    expect(store.snapshot().runs).toHaveLength(PAGE_SIZE);
    store.older();
    await settle();
    expect(store.snapshot().runs?.map(run => run.id)).toEqual([RUN.id]);
    store.older();
    store.newer();
    await settle();
    expect(store.snapshot().runs).toHaveLength(PAGE_SIZE);
    store.newer();
    expect(store.snapshot().trail).toEqual([null]);
  });

  it('shows a new run first, on the first page only', async () => {
    const [page, store] = await opened();
    const fresh = makeRun({ id: 'r-zzzzzzzzzz', created_at: '2026-11-24T11:00:00Z' });
    page.tell('run', fresh);
    expect(store.snapshot().runs?.[0]?.id).toBe(fresh.id);
    expect(store.snapshot().runs).toHaveLength(PAGE_SIZE);
    store.older();
    await settle();
    page.tell('run', makeRun({ id: 'r-yyyyyyyyyy', created_at: '2026-11-24T12:00:00Z' }));
    expect(store.snapshot().runs?.map(run => run.id)).toEqual([RUN.id]);
  });

  it('keeps the newer of two records of one run, told or read', async () => {
    const [page, store] = await opened();
    const id = runs[0]?.id as string;
    const told = (second: number, part: Partial<Run> = {}): Run =>
      makeRun({ ...runs[0], attempts: [makeAttempt({ last_seen_at: `2026-11-24T10:00:${second}.000Z` })], ...part });
    const shown = (): Run | undefined => store.snapshot().runs?.find(run => run.id === id);
    page.tell('run', told(20, { message: 'new' }));
    page.tell('run', told(10, { message: 'old' }));
    expect(shown()?.message).toBe('new');
    page.answers[first] = { items: [told(15, { message: 'read' }), ...runs.slice(1)], next: 'tok' };
    await store.refresh();
    expect(shown()?.message).toBe('new');
    page.tell('run', told(20, { state: 'succeeded', epoch: 9 }));
    page.tell('run', told(30, { state: 'running' }));
    expect(shown()?.state).toBe('succeeded');
  });

  it('drops a run that leaves the state that is shown', async () => {
    const page = new Page({ [`api/v1/runs?state=running&limit=${PAGE_SIZE}`]: { items: [RUN], next: null } });
    const store = new ListStore({ ids: null, state: 'running' }, page.api, page.events);
    watch(store);
    page.connect();
    await settle();
    page.tell('run', makeRun({ state: 'succeeded', epoch: 9 }));
    expect(store.snapshot().runs).toEqual([]);
  });

  it('of named runs reads these, and leaves out one that is gone', async () => {
    const page = new Page({ [`api/v1/runs/${RUN.id}`]: RUN });
    const store = new ListStore({ ids: [RUN.id, 'r-gggggggggg'], state: null }, page.api, page.events);
    watch(store);
    page.connect();
    await settle();
    expect(store.snapshot()).toMatchObject({ runs: [{ id: RUN.id }], error: null });
    page.tell('run', makeRun({ id: 'r-zzzzzzzzzz' }));
    expect(store.snapshot().runs).toHaveLength(1);
  });

  it('shows the newest value of a metric', async () => {
    const [page, store] = await opened();
    const id = runs[0]?.id as string;
    page.tell('metrics', {
      run: id,
      last: { loss: 0.2 },
      points: {
        loss: [
          [1, 0.4, 1],
          [2, 0.2, 2]
        ]
      }
    });
    expect(store.snapshot().runs?.[0]?.metrics).toEqual({ loss: 0.2 });
  });
});

describe('the log', () => {
  const PART = 65_536;

  /** A log of `text`, answered as the service does. */
  function logged(read: () => string, attempt = (): number => 1): Answers {
    const part = (offset: number): LogPart => {
      const text = read();
      const start = offset < 0 ? Math.max(0, text.length + offset) : offset;
      const cut = text.slice(start, start + PART);
      return { attempt: attempt(), offset: start, next: start + cut.length, size: text.length, text: cut, end: false };
    };
    return new Proxy({} as Answers, {
      get: (_, key) => {
        const offset = /offset=(-?\d+)/.exec(String(key));
        return offset ? part(Number(offset[1])) : undefined;
      }
    });
  }

  async function opened(answers: Answers, attempt: number | null = null): Promise<[Page, LogStore]> {
    const page = new Page(answers);
    const store = new LogStore(RUN.id, page.api, page.events, attempt);
    watch(store);
    page.connect();
    await settle();
    return [page, store];
  }

  const shown = (store: LogStore): string[] => store.snapshot().lines.map(line => line.map(span => span.text).join(''));

  it('begins near its end with a whole line', async () => {
    const text = Array.from({ length: 20_000 }, (_, at) => `line ${at}\n`).join('');
    const [, store] = await opened(logged(() => text));
    expect(shown(store)[0]).toMatch(/^line \d+$/);
    expect(store.snapshot().from).toBe(text.length - PART);
    store.earlier();
    await settle();
    expect(store.snapshot().from).toBe(text.length - 2 * PART);
    expect(shown(store).at(-2)).toBe('line 19999');
    for (let n = 0; n < 3; n += 1) {
      store.earlier();
      await settle();
    }
    expect(store.snapshot().from).toBe(0);
    expect(shown(store)[0]).toBe('line 0');
  });

  it('grows by what is new, once', async () => {
    let text = 'one\ntw';
    const [page, store] = await opened(logged(() => text));
    text += 'o\nthree\n';
    page.tell('log', { run: RUN.id, attempt: 1, size: text.length });
    page.tell('log', { run: RUN.id, attempt: 1, size: text.length });
    await settle();
    expect(shown(store)).toEqual(['one', 'two', 'three', '']);
  });

  it('jumps to the end when a flood comes', async () => {
    let text = 'begin\n';
    const [page, store] = await opened(logged(() => text));
    text += 'flood of text\n'.repeat(100_000);
    const before = page.asked.length;
    page.tell('log', { run: RUN.id, attempt: 1, size: text.length });
    await settle();
    expect(page.asked.length - before).toBeLessThanOrEqual(3);
    expect(store.snapshot().from).toBe(text.length - PART);
    expect(shown(store).at(-2)).toBe('flood of text');
  });

  it('changes over to a new attempt, unless one is picked', async () => {
    let [text, attempt] = ['first try\n', 1];
    const answers = logged(
      () => text,
      () => attempt
    );
    const [page, store] = await opened(answers);
    const [, picked] = await opened(answers, 1);
    [text, attempt] = ['second\n', 2];
    page.tell('log', { run: RUN.id, attempt: 2, size: text.length });
    await settle();
    expect(store.snapshot().attempt).toBe(2);
    expect(shown(store)).toEqual(['second', '']);
    expect(shown(picked)).toEqual(['first try', '']);
  });
});

describe('the unfinished runs', () => {
  const path = 'api/v1/runs?state=running&state=starting&state=queued&state=created&limit=500';
  const queued = makeRun({ id: 'r-qqqqqqqqqq', state: 'queued' });

  async function opened(): Promise<[Page, ActivityStore, Run[]]> {
    const page = new Page({ [path]: { items: [RUN, queued], next: null } });
    const store = new ActivityStore(page.api, page.events);
    const ended: Run[] = [];
    store.onEnd(run => ended.push(run));
    watch(store);
    page.connect();
    await settle();
    return [page, store, ended];
  }

  it('are counted in words', async () => {
    const [page, store] = await opened();
    expect(activityText(store.snapshot().unfinished)).toBe('1 running, 1 waiting');
    page.tell('removed', { run: queued.id });
    expect(activityText(store.snapshot().unfinished)).toBe('1 running');
    page.tell('run', makeRun({ state: 'succeeded' }));
    expect(activityText(store.snapshot().unfinished)).toBe('No active runs');
  });

  it('tell their end once, and only when they were seen going', async () => {
    const [page, , ended] = await opened();
    page.tell('run', makeRun({ id: 'r-oooooooooo', state: 'failed' }));
    expect(ended).toEqual([]);
    page.tell('run', makeRun({ state: 'succeeded' }));
    page.tell('run', makeRun({ state: 'succeeded' }));
    expect(ended.map(run => run.id)).toEqual([RUN.id]);
  });

  it('that ended during a gap are told after it', async () => {
    const [page, , ended] = await opened();
    page.answers[path] = { items: [queued], next: null };
    page.answers[`api/v1/runs/${RUN.id}`] = makeRun({ state: 'failed', epoch: 9 });
    page.tell('resync', {});
    await settle();
    expect(ended.map(run => run.state)).toEqual(['failed']);
  });

  it('are read again when the service is back, and again when that fails', async () => {
    const [page, store] = await opened();
    const words = (): string => activityText(store.snapshot().unfinished);
    page.socket.lose();
    page.answers[path] = new Failure(503, 'service_unreachable', 'The run service does not answer.');
    await settle(1_000);
    page.connect();
    await settle();
    expect(words()).toBe('1 running, 1 waiting');
    page.answers[path] = { items: [RUN], next: null };
    await settle(6_000);
    expect(words()).toBe('1 running');
    page.tell('service', { up: false, error: { code: 'service_unreachable', message: 'x', hint: '' } });
    page.answers[path] = { items: [], next: null };
    page.tell('service', { up: true, error: null });
    await settle();
    expect(store.snapshot().unfinished.size).toBe(0);
  });
});

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { Page } from '../testing/page';
import { backOffMs, EVERYTHING, LINGER_MS, SILENCE_MS, type Change } from './events';

const RUN = 'r-aaaaaaaaaa';
const OTHER = 'r-bbbbbbbbbb';

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

describe('the wait before the next try', () => {
  it('doubles up to 20 s and is spread', () => {
    expect([0, 1, 2, 3].map(tries => backOffMs(tries, 0.5))).toEqual([500, 1000, 2000, 4000]);
    expect(backOffMs(50, 0.5)).toBe(20_000);
    expect(backOffMs(0, 0)).toBeLessThan(backOffMs(0, 1));
  });
});

describe('the one socket', () => {
  it('carries all views of a page, each subject once', () => {
    const page = new Page();
    page.events.listen(RUN, () => undefined);
    page.events.listen(RUN, () => undefined);
    page.events.listen(EVERYTHING, () => undefined);
    expect(page.sockets).toHaveLength(1);
    page.connect();
    expect(page.socket.sent).toEqual([{ subscribe: RUN }, { subscribe: EVERYTHING }]);
  });

  it('hands a change to those who asked, once', () => {
    const page = new Page();
    const heard: string[] = [];
    const both = (change: Change): unknown => heard.push(`both ${change.type}`);
    page.events.listen(RUN, both);
    page.events.listen(EVERYTHING, both);
    page.events.listen(OTHER, change => heard.push(`other ${change.type}`));
    page.connect();
    page.tell('log', { run: RUN, attempt: 1, size: 3 });
    expect(heard).toEqual(['both log']);
    page.tell('resync', {});
    expect(heard).toEqual(['both log', 'both resync', 'other resync']);
  });

  it('takes leave of a subject when its last view is gone, and closes when none is left', () => {
    const page = new Page();
    const ends = [page.events.listen(RUN, () => undefined), page.events.listen(RUN, () => undefined)];
    page.connect();
    ends[0]?.();
    expect(page.socket.sent).toHaveLength(1);
    ends[1]?.();
    ends[1]?.();
    expect(page.socket.sent).toEqual([{ subscribe: RUN }, { unsubscribe: RUN }]);
    vi.advanceTimersByTime(LINGER_MS - 1);
    page.events.listen(OTHER, () => undefined);
    vi.advanceTimersByTime(LINGER_MS * 2);
    expect(page.sockets).toHaveLength(1);
    expect(page.socket.readyState).toBe(1);
  });
});

describe('a lost connection', () => {
  it('is told, and found again with all subjects', () => {
    const page = new Page();
    const states: string[] = [];
    page.events.watch(() => states.push(page.events.connection.state));
    page.events.listen(RUN, () => undefined);
    page.connect();
    page.socket.lose();
    vi.advanceTimersByTime(499);
    expect(page.sockets).toHaveLength(1);
    vi.advanceTimersByTime(1);
    expect(page.sockets).toHaveLength(2);
    page.socket.lose();
    vi.advanceTimersByTime(999);
    expect(page.sockets).toHaveLength(2);
    vi.advanceTimersByTime(1);
    page.connect();
    expect(page.socket.sent).toEqual([{ subscribe: RUN }]);
    expect(states).toEqual(['live', 'reconnecting', 'live']);
  });

  it('begins again with short waits after it was good', () => {
    const page = new Page();
    page.events.listen(RUN, () => undefined);
    for (let n = 0; n < 5; n += 1) {
      page.socket.lose();
      vi.advanceTimersByTime(20_000);
    }
    page.connect();
    const before = page.sockets.length;
    page.socket.lose();
    vi.advanceTimersByTime(500);
    expect(page.sockets).toHaveLength(before + 1);
  });

  it('is noticed when the server just falls silent', () => {
    const page = new Page();
    page.events.listen(RUN, () => undefined);
    page.connect();
    vi.advanceTimersByTime(SILENCE_MS - 1);
    page.tell('beat', {});
    vi.advanceTimersByTime(SILENCE_MS - 1);
    expect(page.events.connection.state).toBe('live');
    vi.advanceTimersByTime(1);
    expect(page.events.connection.state).toBe('reconnecting');
  });

  it('is tried at once when the user asks', () => {
    const page = new Page();
    page.events.listen(RUN, () => undefined);
    page.connect();
    page.socket.lose();
    page.events.retry();
    expect(page.sockets).toHaveLength(2);
    vi.advanceTimersByTime(60_000);
    expect(page.sockets).toHaveLength(2);
  });
});

describe('a service that is away', () => {
  it('is told apart from a server that is away', () => {
    const page = new Page();
    page.events.listen(RUN, () => undefined);
    page.connect();
    page.tell('service', {
      up: false,
      since: '',
      error: { code: 'service_unreachable', message: 'No answer.', hint: '' }
    });
    expect(page.events.connection).toMatchObject({ state: 'service-down', error: { message: 'No answer.' } });
    page.events.retry();
    expect(page.socket.sent).toContainEqual({ retry: true });
    page.tell('service', { up: true, since: '', error: null });
    expect(page.events.connection).toMatchObject({ state: 'live', error: null });
  });
});

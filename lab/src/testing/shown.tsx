/** Views drawn over a page whose answers the test sets; the clock stands unless the test moves it. */

import { act, render } from '@testing-library/react';
import { vi } from 'vitest';

import type { Run } from '../model/records';
import { HostContext, type Host } from '../views/host';
import { RunView } from '../views/RunView';
import { answersFor, Page, type Answers } from './page';

export function standClock(): void {
  vi.useFakeTimers({
    toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date'],
    now: Date.parse('2026-11-24T10:01:00Z')
  });
}

export async function settle(ms = 100): Promise<void> {
  await act(() => vi.advanceTimersByTimeAsync(ms));
}

export async function show(view: JSX.Element, answers: Answers, more: Partial<Host> = {}): Promise<Page> {
  const page = new Page(answers);
  render(<HostContext.Provider value={{ ...page.host, ...more }}>{view}</HostContext.Provider>);
  if (page.socket) {
    act(() => page.connect());
  }
  await settle();
  return page;
}

export function showRun(run: Run, answers: Answers = {}, more: Partial<Host> = {}): Promise<Page> {
  return show(<RunView id={run.id} />, answersFor(run, answers), more);
}

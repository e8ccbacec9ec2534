import { act, cleanup, fireEvent, screen, within } from '@testing-library/react';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import type { Run } from '../model/records';
import { answersFor, Failure, makeRun, type Answers, type Page } from '../testing/page';
import { settle, show, showRun, standClock } from '../testing/shown';
import { RunList } from './RunList';
import { RunView } from './RunView';

beforeEach(standClock);

afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

const FIRST = 'api/v1/runs?limit=15';
const UNFINISHED = 'api/v1/runs?state=running&state=starting&state=queued&state=created&limit=500';

function waits(letter: string, place: number, more: Partial<Run> = {}): Run {
  const id = `r-${letter.repeat(10)}`;
  return makeRun({ id, name: letter, state: 'queued', queue_position: place, started_at: null, ...more });
}

const [A, B, C] = [waits('a', 1), waits('b', 2, { priority: 3 }), waits('c', 3)];
const DONE = makeRun({ id: 'r-dddddddddd', name: 'd', state: 'succeeded', ended_at: '2026-11-24T10:00:09Z' });

async function showList(more: Answers = {}): Promise<Page> {
  const answers = { [FIRST]: { items: [C, B, DONE], next: null }, [UNFINISHED]: { items: [C, B, A], next: null } };
  return show(<RunList target={{ ids: null, state: null }} />, { ...answers, ...more });
}

function rows(): string[] {
  return [...document.querySelectorAll('.at-row')].map(row => row.querySelector('.at-link')?.textContent ?? '');
}

function openMenu(name: string): HTMLElement {
  fireEvent.click(screen.getByRole('button', { name: `What can be done with ${name}` }));
  return screen.getByRole('menu', { name });
}

function sent(page: Page): unknown[] {
  return page.asked.filter(one => one.method !== 'GET').map(one => [one.method, one.path, one.body]);
}

describe('waiting runs', () => {
  it('come first, in their order, with place and priority', async () => {
    await showList();
    expect(rows()).toEqual(['a', 'b', 'c', 'd']);
    const states = [...document.querySelectorAll('.at-cell-state')].map(cell => cell.textContent);
    expect(states).toEqual(['Waiting next', 'Waiting place 2', 'Waiting place 3', 'Done']);
    expect(screen.getAllByText(/^priority/).map(tag => tag.textContent)).toEqual(['priority 3']);
  });

  it('are moved by a menu that keys reach, and the focus comes back', async () => {
    const page = await showList({ [`POST api/v1/runs/${B.id}/move`]: { ...B, queue_position: 1 } });
    const menu = openMenu('b');
    expect(
      within(menu)
        .getAllByRole('menuitem')
        .map(item => item.textContent)
    ).toEqual(['Move up', 'Move down', 'First', 'Last', 'Pin', 'Cancel…']);
    expect(document.activeElement?.textContent).toBe('Move up');
    fireEvent.keyDown(menu, { key: 'ArrowUp' });
    expect(document.activeElement?.textContent).toBe('Cancel…');
    fireEvent.keyDown(menu, { key: 'ArrowDown' });
    fireEvent.click(document.activeElement as HTMLElement);
    await settle();
    expect(sent(page)).toEqual([['POST', `api/v1/runs/${B.id}/move`, { to: { before: A.id } }]]);
    expect(screen.queryByRole('menu')).toBeNull();
    expect(document.activeElement).toBe(screen.getByRole('button', { name: 'What can be done with b' }));
    expect(screen.getByText('b: next in the queue')).toBeTruthy();
    act(() => page.tell('run', { ...B, queue_position: 1 }));
    act(() => page.tell('run', { ...A, queue_position: 2 }));
    await settle();
    expect(rows()).toEqual(['b', 'a', 'c', 'd']);
  });

  it('are not moved beyond the ends, nor by Escape or a click elsewhere', async () => {
    const page = await showList();
    const menu = openMenu('a');
    expect(document.activeElement?.textContent).toBe('Move down');
    fireEvent.click(within(menu).getByRole('menuitem', { name: 'First' }));
    fireEvent.keyDown(menu, { key: 'Escape' });
    expect(screen.queryByRole('menu')).toBeNull();
    openMenu('c');
    fireEvent.pointerDown(document.body);
    expect(screen.queryByRole('menu')).toBeNull();
    expect(sent(page)).toEqual([]);
  });

  it('say why they were not moved', async () => {
    await showList({ [`POST api/v1/runs/${C.id}/move`]: new Failure(409, 'not_waiting', 'The run c has begun.') });
    fireEvent.click(within(openMenu('c')).getByRole('menuitem', { name: 'First' }));
    await settle();
    expect(screen.getByRole('alert').textContent).toBe('The run c has begun.');
  });

  it('are cancelled in place, after a question', async () => {
    const page = await showList({ [`POST api/v1/runs/${B.id}/cancel`]: { ...B, state: 'cancelled' } });
    fireEvent.click(within(openMenu('b')).getByRole('menuitem', { name: 'Cancel…' }));
    expect(document.activeElement?.textContent).toBe('Keep it');
    expect(screen.getByRole('group', { name: 'Stop “b”?' }).textContent).toContain('Stop “b”?');
    fireEvent.click(screen.getByRole('button', { name: 'Cancel run' }));
    await settle();
    expect(sent(page)).toEqual([['POST', `api/v1/runs/${B.id}/cancel`, { now: false }]]);
  });

  it('of a long queue are shown when they are asked for', async () => {
    const many = [...'abcdefghi'].map((letter, index) => waits(letter, index + 1));
    const answers = {
      [UNFINISHED]: { items: many, next: null },
      'api/v1/runs?state=queued&limit=15': { items: [], next: null }
    };
    await showList({ ...answers, [FIRST]: { items: [], next: null } });
    expect(rows()).toHaveLength(6);
    fireEvent.click(screen.getByRole('button', { name: 'Show 3 more that wait' }));
    await settle();
    expect(rows()).toEqual([...'abcdefghi']);
  });
});

describe('a pin', () => {
  it('is set and taken by the menu of a row', async () => {
    const page = await showList({ [`PUT api/v1/runs/${DONE.id}/pin`]: { ...DONE, pinned: true } });
    const menu = openMenu('d');
    expect(
      within(menu)
        .getAllByRole('menuitem')
        .map(item => item.textContent)
    ).toEqual(['Pin']);
    fireEvent.click(within(menu).getByRole('menuitem', { name: 'Pin' }));
    await settle();
    act(() => page.tell('run', { ...DONE, pinned: true }));
    await settle();
    expect(screen.getByText('pinned')).toBeTruthy();
    page.answers[`DELETE api/v1/runs/${DONE.id}/pin`] = DONE;
    fireEvent.click(within(openMenu('d')).getByRole('menuitem', { name: 'Unpin' }));
    await settle();
    expect(sent(page).map(one => (one as unknown[]).slice(0, 2))).toEqual([
      ['PUT', `api/v1/runs/${DONE.id}/pin`],
      ['DELETE', `api/v1/runs/${DONE.id}/pin`]
    ]);
  });

  it('is set in the view of a run, and what it forbids is said', async () => {
    const answers = {
      [`PUT api/v1/runs/${DONE.id}/pin`]: { ...DONE, pinned: true },
      [`DELETE api/v1/runs/${DONE.id}`]: new Failure(409, 'run_pinned', 'The run is pinned.')
    };
    await show(<RunView id={DONE.id} onRemoved={() => undefined} />, answersFor(DONE, answers));
    fireEvent.click(screen.getByRole('button', { name: 'Pin' }));
    await settle();
    expect(screen.getByText('pinned')).toBeTruthy();
    expect(screen.getByRole('button', { name: 'Unpin' })).toBeTruthy();
    fireEvent.click(screen.getByRole('button', { name: 'Delete' }));
    fireEvent.click(
      within(screen.getByRole('group', { name: /Delete its record/ })).getByRole('button', { name: 'Delete' })
    );
    await settle();
    expect(screen.getByRole('alert').textContent).toBe('The run is pinned.');
  });

  it('that could not be set says why', async () => {
    await showRun(DONE, { [`PUT api/v1/runs/${DONE.id}/pin`]: new Failure(503, 'database_busy', 'Try again.') });
    fireEvent.click(screen.getByRole('button', { name: 'Pin' }));
    await settle();
    expect(screen.getByRole('alert').textContent).toBe('Try again.');
  });
});

import { act, cleanup, fireEvent, screen, within } from '@testing-library/react';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import type { Run } from '../model/records';
import { secondText } from '../model/texts';
import { Failure, makeAttempt, makeRun } from '../testing/page';
import { settle, showRun, standClock } from '../testing/shown';

beforeEach(standClock);

afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

function card(): HTMLElement {
  return screen.getByRole('group', { name: 'What happened' });
}

function evidence(): string[] {
  return [...card().querySelectorAll('dl > div')].map(pair =>
    [...pair.children].map(one => one.textContent).join(': ')
  );
}

const ENDED: Partial<Run> = { state: 'failed', ended_at: '2026-11-24T10:00:09Z' };

describe('the card of a run', () => {
  it('says what is waited for, what to do and the place', async () => {
    await showRun(
      makeRun({
        state: 'queued',
        queue_position: 2,
        priority: 5,
        started_at: null,
        message: 'The machine is busy.',
        hint: 'Wait.'
      })
    );
    expect(screen.getByTestId('atelier-run-state').textContent).toBe('Waiting');
    expect(card().querySelector('.at-message')?.textContent).toBe('The machine is busy.Wait.');
    expect(evidence()).toEqual(['In the queue: place 2', 'Priority: 5']);
    expect(screen.queryByRole('progressbar')).toBeNull();
  });

  it('counts down to the next attempt, and says where that goes on from', async () => {
    const attempts = [makeAttempt({ state: 'lost', reason: 'agent_lost', message: 'It died.', exit_code: -9 })];
    const waits = makeRun({ state: 'queued', attempts, not_before: '2026-11-24T10:01:08Z', checkpoint_step: 3 });
    await showRun(waits);
    const at = secondText('2026-11-24T10:01:08Z', Date.now());
    expect(at).toMatch(/^\d\d:01:08$/);
    const rest = ['Goes on from: checkpoint of step 3', 'Signal: 9 (SIGKILL)'];
    expect(evidence()).toEqual([`Next attempt: ${at} (in 8 s)`, ...rest]);
    await settle(5_000);
    expect(evidence()[0]).toBe(`Next attempt: ${at} (in 3 s)`);
    expect(within(card()).getByRole('button', { name: 'Try now' })).toBeTruthy();
    await settle(4_000);
    expect(evidence()).toEqual(rest);
    expect(within(card()).getByText('It died.')).toBeTruthy();
    expect(within(card()).queryByRole('button')).toBeNull();
  });

  it('lets a run be tried without the rest of its pause', async () => {
    const waits = makeRun({ state: 'queued', attempts: [makeAttempt()], not_before: '2026-11-24T10:01:08Z' });
    const move = `POST api/v1/runs/${waits.id}/move`;
    const page = await showRun(waits, { [move]: new Failure(409, 'not_waiting', 'It has begun.') });
    const button = (): HTMLElement => within(card()).getByRole('button', { name: 'Try now' });
    fireEvent.click(button());
    await settle();
    expect(within(card()).getByRole('alert').textContent).toBe('It has begun.');
    page.answers[move] = { ...waits, not_before: '2026-11-24T10:01:00Z' };
    fireEvent.click(button());
    await settle();
    expect(within(card()).queryByRole('button')).toBeNull();
    expect(page.asked.filter(one => one.method === 'POST').map(one => one.body)).toEqual([
      { to: 'first' },
      { to: 'first' }
    ]);
  });

  it('has the sentence and the action of the record once, then where, how and with what it ended', async () => {
    const error = {
      kind: 'ValueError',
      message: '<b>bad</b>',
      traceback: 'line <script>',
      cell: 4,
      file: 'train.ipynb',
      line: 7
    };
    const usage = { memory_peak_bytes: 3 * 2 ** 30 };
    const attempts = [makeAttempt({ state: 'failed', error, exit_code: 1, usage })];
    await showRun(
      makeRun({
        ...ENDED,
        memory_bytes: 2 ** 32,
        checkpoint_step: 3,
        attempts,
        message: 'ValueError: <b>bad</b> (cell 4)',
        hint: 'Mend it.'
      })
    );
    expect(screen.getAllByText(/<b>bad<\/b>/).map(node => node.textContent)).toEqual([
      'ValueError: <b>bad</b> (cell 4)'
    ]);
    expect(within(card()).getByText('Mend it.')).toBeTruthy();
    expect(evidence()).toEqual([
      'Newest checkpoint: step 3',
      'Where: cell 4 · train.ipynb · line 7',
      'Exit code: 1',
      'Memory: 3 GiB at its peak, of 4 GiB'
    ]);
    expect(within(card()).getByText('line <script>').closest('details')?.open).toBe(false);
    expect(document.querySelector('script')).toBeNull();
  });

  it('has each attempt with its reason, which Details then does not repeat', async () => {
    const attempts = [
      makeAttempt({ n: 1, state: 'lost', message: 'Its agent died.', ended_at: '2026-11-24T10:00:04Z' }),
      makeAttempt({ n: 2, state: 'failed', message: 'ValueError: bad', ended_at: '2026-11-24T10:00:09Z' })
    ];
    await showRun(makeRun({ ...ENDED, attempts }));
    const rows = within(card()).getAllByRole('row').slice(1);
    expect(rows.map(row => row.lastElementChild?.textContent)).toEqual(['ValueError: bad', 'Its agent died.']);
    act(() => screen.getByRole('tab', { name: 'Details' }).click());
    expect(screen.getAllByRole('group', { name: 'Attempts' })).toHaveLength(1);
  });

  it('is not there for a run that is well', async () => {
    const page = await showRun(makeRun({ checkpoint_step: 7 }));
    expect(screen.queryByRole('group', { name: 'What happened' })).toBeNull();
    expect(screen.getByText('checkpoint of step 7')).toBeTruthy();
    const done = makeRun({ state: 'succeeded', message: 'Done.', ended_at: '2026-11-24T10:00:09Z', epoch: 9 });
    page.answers[`api/v1/runs/${done.id}`] = done;
    act(() => page.tell('run', done));
    await settle();
    expect(screen.getByTestId('atelier-run-state').textContent).toBe('Done');
    expect(screen.queryByRole('group', { name: 'What happened' })).toBeNull();
  });

  it('tells when a run that fell silent was heard of last', async () => {
    const attempts = [makeAttempt({ state: 'lost', last_seen_at: '2026-11-24T10:00:07Z' })];
    await showRun(makeRun({ ...ENDED, state: 'lost', attempts }));
    expect(evidence()[0]).toMatch(/^Last heard of: .*00:07/);
  });
});

describe('warnings of a record', () => {
  it('are shown each once, and many are folded', async () => {
    const source = { ...makeRun().source, warnings: ['It opens /data.'] };
    const page = await showRun(makeRun({ warnings: ['It opens /data.', 'No room.'], source }));
    const shown = (): string[] =>
      within(screen.getByRole('list', { name: 'Warnings' }))
        .getAllByRole('listitem')
        .map(one => one.textContent ?? '');
    expect(shown()).toEqual(['It opens /data.', 'No room.']);
    expect(screen.queryByText('3 warnings')).toBeNull();
    act(() => page.tell('run', makeRun({ warnings: ['It opens /data.', 'No room.', 'Slow.'], source, epoch: 4 })));
    await settle();
    expect(screen.getByText('3 warnings').closest('details')?.open).toBe(false);
  });
});

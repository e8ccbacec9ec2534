import { act, cleanup, fireEvent, screen } from '@testing-library/react';
import { useState } from 'react';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { answersFor, Failure, makeArtifact, makeRun, type Answers, type Page } from '../testing/page';
import { settle, show, showRun, standClock } from '../testing/shown';
import type { Host } from './host';
import { ModelView } from './ModelView';
import { Panel } from './Panel';
import { RunList } from './RunList';
import { RunView } from './RunView';

const ID = 'r-aaaaaaaaaa';

beforeEach(standClock);

afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

describe('a run', () => {
  it('shows its progress, and the time left only when it is known', async () => {
    const at = '2026-11-24T10:01:00Z';
    const page = await showRun(makeRun({ progress: { done: 1, total: 4, unit: null, left_s: null, at } }));
    const bar = screen.getByRole('progressbar');
    expect(bar.getAttribute('aria-valuenow')).toBe('25');
    expect(bar.getAttribute('aria-valuetext')).toBe('1 of 4, time left unknown');
    act(() => page.tell('run', makeRun({ progress: { done: 2, total: 4, unit: null, left_s: 40, at } })));
    await settle();
    expect(bar.getAttribute('aria-valuetext')).toBe('2 of 4, about 40 s left');
    await settle(11_000);
    expect(bar.getAttribute('aria-valuetext')).toBe('2 of 4, about 29 s left');
  });

  it('says after the end where it stopped, and nothing when it got to its end', async () => {
    const progress = { done: 3, total: 12, unit: 'cells' as const, left_s: null, at: '2026-11-24T10:00:08Z' };
    const ended = { state: 'failed' as const, ended_at: '2026-11-24T10:00:09Z' };
    const page = await showRun(makeRun({ progress }));
    expect(screen.getByRole('progressbar').getAttribute('aria-valuetext')).toMatch(/^3 of 12 cells, /);
    act(() => page.tell('run', makeRun({ ...ended, progress, epoch: 4 })));
    page.answers[`api/v1/runs/${ID}`] = makeRun({ ...ended, progress, epoch: 4 });
    await settle();
    expect(screen.queryByRole('progressbar')).toBeNull();
    expect(screen.getByText('stopped at 3 of 12 cells')).toBeTruthy();
    page.answers[`api/v1/runs/${ID}`] = makeRun({ ...ended, progress: { ...progress, done: 12 }, epoch: 5 });
    act(() => page.tell('resync', {}));
    await settle();
    expect(screen.queryByText(/stopped at/)).toBeNull();
  });

  it('offers its executed notebook when there is one', async () => {
    const open = { name: 'Open a copy of the executed notebook' };
    const page = await showRun(makeRun());
    expect(screen.queryByRole('button', open)).toBeNull();
    act(() => page.tell('artifact', { run: ID, artifact: makeArtifact('train.ipynb', { kind: 'notebook' }) }));
    await settle();
    expect(screen.getByRole('button', open)).toBeTruthy();
  });

  it('is cancelled after a question, and not by Escape', async () => {
    const page = await showRun(makeRun(), { [`POST api/v1/runs/${ID}/cancel`]: makeRun({ desired: 'cancelled' }) });
    fireEvent.click(screen.getByRole('button', { name: 'Cancel' }));
    expect(document.activeElement?.textContent).toBe('Keep it');
    fireEvent.keyDown(screen.getByRole('group', { name: 'Stop this run?' }), { key: 'Escape' });
    expect(page.asked.filter(one => one.method === 'POST')).toEqual([]);
    fireEvent.click(screen.getByRole('button', { name: 'Cancel' }));
    fireEvent.click(screen.getByRole('button', { name: 'Cancel run' }));
    await settle();
    expect(page.asked.filter(one => one.method === 'POST').map(one => one.path)).toEqual([`api/v1/runs/${ID}/cancel`]);
    expect(screen.getByTestId('atelier-run-state').textContent).toBe('Cancelling');
    expect(screen.queryByRole('button', { name: 'Cancel' })).toBeNull();
  });

  it('that is not there says so in plain words', async () => {
    await show(<RunView id={ID} />, { [`api/v1/runs/${ID}`]: new Failure(404, 'unknown_run', 'x') });
    expect(screen.getByText(`There is no run ${ID} for you.`)).toBeTruthy();
  });

  it('says that it is not live, with the time of what is shown, and recovers', async () => {
    const page = await showRun(makeRun());
    const error = {
      code: 'service_unreachable',
      message: 'The run service does not answer.',
      hint: 'Runs go on without it.'
    };
    act(() => page.tell('service', { up: false, since: '', error }));
    expect(screen.queryByText('The run service does not answer.')).toBeNull();
    await settle(1300);
    expect(screen.getByText('The run service does not answer.')).toBeTruthy();
    expect(screen.getByText(/Shown is the state of/)).toBeTruthy();
    act(() => page.tell('service', { up: true, since: '', error: null }));
    await settle();
    expect(screen.queryByText('The run service does not answer.')).toBeNull();
    act(() => page.socket.lose());
    await settle(1300);
    expect(screen.getByText('Reconnecting…')).toBeTruthy();
  });

  it('goes through its parts by keys', async () => {
    await showRun(makeRun({ spec: { ...makeRun().spec, params: { name: 'a\n"b"' } } }));
    const first = screen.getByRole('tab', { selected: true });
    expect(first.textContent).toBe('Metrics, log');
    fireEvent.keyDown(screen.getByRole('tablist'), { key: 'ArrowLeft' });
    expect(screen.getByRole('tab', { selected: true }).textContent).toBe('Details');
    expect(document.activeElement?.textContent).toBe('Details');
    fireEvent.keyDown(screen.getByRole('tablist'), { key: 'Home' });
    expect(document.activeElement?.textContent).toBe('Metrics, log');
    fireEvent.keyDown(screen.getByRole('tablist'), { key: 'End' });
    expect(screen.getByText('"a\\n\\"b\\""')).toBeTruthy();
    expect(screen.getByText('1 file, 10 B')).toBeTruthy();
  });

  it('offers to follow the log only while it grows', async () => {
    const page = await showRun(makeRun());
    expect(screen.getByRole('button', { name: 'Follow' }).getAttribute('aria-pressed')).toBe('true');
    page.answers[`api/v1/runs/${ID}`] = makeRun({ state: 'succeeded', ended_at: '2026-11-24T10:00:09Z', epoch: 4 });
    act(() => page.tell('resync', {}));
    await settle();
    expect(screen.queryByRole('button', { name: 'Follow' })).toBeNull();
  });

  it('says what was logged once as a number, when there is a curve beside it', async () => {
    const metrics = {
      names: {
        loss: {
          points: [
            [1, 0.5, 10],
            [2, 0.4, 11]
          ]
        },
        baseline: { points: [[2, 0.73419, 12]] }
      }
    };
    await showRun(makeRun(), { [`api/v1/runs/${ID}/metrics`]: metrics });
    expect(screen.getAllByRole('slider').map(plot => plot.getAttribute('aria-label'))).toEqual(['loss by step']);
    expect(screen.getByText('baseline').nextSibling?.textContent).toBe('0.7342');
  });

  it('draws a curve for each group, with values for those who cannot see it', async () => {
    const points = [
      [0, 2, 10],
      [1, null, 11],
      [2, 0.5, 12]
    ];
    const names = { loss: { points }, val_loss: { points }, 'system/cpu': { points } };
    await showRun(makeRun(), { [`api/v1/runs/${ID}/metrics`]: { names } });
    const plots = screen.getAllByRole('slider');
    expect(plots.map(plot => plot.getAttribute('aria-label'))).toEqual(['loss by step']);
    const plot = plots[0] as HTMLElement;
    expect(plot.getAttribute('aria-valuetext')).toBe('step 2: loss 0.5, val_loss 0.5');
    fireEvent.keyDown(plot, { key: 'ArrowLeft' });
    expect(plot.getAttribute('aria-valuetext')).toBe('step 1: loss not finite, val_loss not finite');
    fireEvent.keyDown(plot, { key: 'Home' });
    expect(plot.getAttribute('aria-valuetext')).toBe('step 0: loss 2, val_loss 2');
    fireEvent.click(screen.getByRole('button', { name: 'Metrics 2 of 3' }));
    fireEvent.click(screen.getByRole('button', { name: 'system/cpu' }));
    expect(screen.getAllByRole('slider')).toHaveLength(2);
    fireEvent.click(screen.getByRole('button', { name: 'By time' }));
    fireEvent.keyDown(plot, { key: 'End' });
    expect(screen.getAllByRole('slider')[0]?.getAttribute('aria-valuetext')).toMatch(/^2.0 s: /);
  });
});

describe('the files of a run', () => {
  const artifacts = {
    items: [makeArtifact('out/model.pt'), makeArtifact('../evil'), makeArtifact('plot.png', { kind: 'saved' })]
  };
  const path = `api/v1/runs/${ID}/artifacts`;

  async function opened(answers: Answers, more: Partial<Host> = {}): Promise<Page> {
    const page = await showRun(makeRun(), { [path]: artifacts, ...answers }, more);
    fireEvent.click(screen.getByRole('tab', { name: 'Files 3' }));
    return page;
  }

  it('are downloaded by an address of their own run only', async () => {
    await opened({});
    const links = screen.getAllByRole('link').map(link => link.getAttribute('href'));
    expect(links).toEqual([
      `http://localhost/user/ann/atelier/api/v1/runs/${ID}/artifacts/plot.png`,
      `http://localhost/user/ann/atelier/api/v1/runs/${ID}/artifacts/out/model.pt`
    ]);
  });

  it('are copied beside the notebook, and never over a file unasked', async () => {
    const openFile = vi.fn();
    const exists = new Failure(409, 'file_exists', 'There is already a file.', { free: 'out/model-1.pt' });
    const page = await opened({ 'POST copy-back': exists }, { beside: 'work/train.ipynb', openFile });
    fireEvent.click(screen.getByRole('button', { name: 'Copy out/model.pt back beside the notebook' }));
    await settle();
    expect(screen.getByText('Already there.')).toBeTruthy();
    page.answers['POST copy-back'] = { path: 'work/out/model-1.pt', size_bytes: 3 };
    fireEvent.click(screen.getByRole('button', { name: 'Keep both' }));
    await settle();
    expect(page.asked.filter(one => one.path === 'copy-back').map(one => one.body)).toEqual([
      { run: ID, artifact: 'out/model.pt', beside: 'work/train.ipynb' },
      { run: ID, artifact: 'out/model.pt', beside: 'work/train.ipynb', name: 'out/model-1.pt' }
    ]);
    fireEvent.click(screen.getByRole('button', { name: 'Open work/out/model-1.pt' }));
    expect(openFile).toHaveBeenCalledWith('work/out/model-1.pt');
  });
});

describe('the list of runs', () => {
  const first = 'api/v1/runs?limit=15';

  it('opens a run below its row, and one at a time', async () => {
    const other = makeRun({ id: 'r-bbbbbbbbbb', name: 'other', state: 'failed' });
    const answers = {
      ...answersFor(makeRun()),
      ...answersFor(other),
      [first]: { items: [makeRun(), other], next: null }
    };
    await show(<RunList target={{ ids: null, state: null }} />, answers);
    const button = screen.getByRole('button', { name: 'digits' });
    fireEvent.click(button);
    await settle();
    expect(button.getAttribute('aria-expanded')).toBe('true');
    fireEvent.click(screen.getByRole('button', { name: 'other' }));
    expect(screen.getAllByTestId('atelier-run').map(view => view.getAttribute('data-run'))).toEqual(['r-bbbbbbbbbb']);
  });

  it('says how to begin when there is none, and how to see all when a filter hides them', async () => {
    const page = await show(<RunList target={{ ids: null, state: null }} />, { [first]: { items: [], next: null } });
    expect(screen.getByText('No runs yet')).toBeTruthy();
    page.answers['api/v1/runs?state=failed&limit=15'] = { items: [], next: null };
    fireEvent.change(screen.getByRole('combobox'), { target: { value: 'failed' } });
    await settle();
    expect(screen.getByText('No run is “failed”')).toBeTruthy();
    fireEvent.click(screen.getByRole('button', { name: 'Show all runs' }));
    await settle();
    expect(screen.getByText('No runs yet')).toBeTruthy();
  });

  it('says what keeps it from being shown', async () => {
    const failure = new Failure(503, 'service_not_running', 'No run service is running on this computer.');
    const page = await show(<RunList target={{ ids: null, state: null }} />, { [first]: failure });
    expect(screen.getByText('No run service is running on this computer.')).toBeTruthy();
    page.answers[first] = { items: [makeRun()], next: null };
    fireEvent.click(screen.getByRole('button', { name: 'Try again' }));
    await settle();
    expect(screen.getByRole('button', { name: 'digits' })).toBeTruthy();
  });
});

describe('the panel', () => {
  it('keeps the focus in itself when it goes to a run and back', async () => {
    const InPanel = (): JSX.Element => {
      const [shown, setShown] = useState<string | null>(null);
      return <Panel shown={shown} show={setShown} openInTab={() => undefined} />;
    };
    await show(<InPanel />, {
      ...answersFor(makeRun()),
      'api/v1/runs?limit=15': { items: [makeRun()], next: null }
    });
    expect(document.activeElement).toBe(document.body);
    const row = screen.getByRole('button', { name: 'digits' });
    row.focus();
    fireEvent.click(row);
    await settle();
    expect(document.activeElement).toBe(screen.getByRole('button', { name: 'All runs' }));
    fireEvent.click(document.activeElement as HTMLElement);
    await settle();
    expect(document.activeElement).toBe(screen.getByRole('heading', { name: 'Atelier runs' }));
  });
});

describe('a model', () => {
  const report = {
    size_bytes: 1000,
    files: ['onnx/model.onnx'],
    batches: [
      { batch: 1, dims: {}, max_abs: 1.2e-7, max_rel: 3e-6, labels_equal: 1, within: true },
      { batch: 8, dims: { time: 5 }, max_abs: 'inf', max_rel: 'nan', labels_equal: null, within: false }
    ],
    latency_ms: { source: 0.004123, exported: 0.001031, batch: 1, threads: 1 },
    latency_large_ms: null,
    tolerance: { abs: 1e-4, rel: 1e-3 },
    verdict: 'different'
  };
  const version = {
    name: 'digits',
    version: 2,
    owner: 'ann',
    run: ID,
    aliases: ['production'],
    card: {
      framework: 'pytorch',
      formats: { onnx: report },
      signature: { inputs: [{ name: 'x', dtype: 'float32', shape: ['batch', 3] }] }
    },
    files: [],
    size_bytes: 1000,
    created_at: '2026-11-24T10:00:00Z'
  };

  it('shows how far each format is from its source', async () => {
    await show(<ModelView target={{ name: 'digits', version: null }} />, {
      'api/v1/models/digits': { items: [version], next: null }
    });
    const rows = screen.getAllByRole('row').map(row => [...row.children].map(cell => cell.textContent));
    expect(rows[1]).toEqual(['1', '1.2e-7', '3.0e-6', '100 %', '0.00412 ms', '0.00103 ms', 'yes']);
    expect(rows[2]).toEqual(['8, time 5', 'inf', 'nan', '–', '–', '–', 'no']);
    expect(screen.getByText('Differs from its source')).toBeTruthy();
    expect(screen.getByText(/4.0 × as fast/)).toBeTruthy();
    expect(screen.getByText('float32 [batch, 3]')).toBeTruthy();
    const link = screen.getByRole('link').getAttribute('href');
    expect(link).toBe('http://localhost/user/ann/atelier/api/v1/models/digits/versions/2/archive');
  });

  it('stands in the view of the run that made it', async () => {
    await showRun(makeRun({ state: 'succeeded', ended_at: '2026-11-24T10:00:09Z' }), {
      [`api/v1/models?run=${ID}`]: { items: [version], next: null },
      'api/v1/models/digits/versions/2': version
    });
    fireEvent.click(screen.getByRole('tab', { name: 'Model' }));
    await settle();
    expect(screen.getByRole('article', { name: 'Model digits' })).toBeTruthy();
    expect(screen.getByText('Differs from its source')).toBeTruthy();
  });

  it('survives a card that is not as expected', async () => {
    const odd = { ...version, card: { formats: { onnx: { batches: 'none' } }, signature: 3, labels: null } };
    await show(<ModelView target={{ name: 'digits', version: 2 }} />, { 'api/v1/models/digits/versions/2': odd });
    expect(screen.getByText('ONNX')).toBeTruthy();
  });
});

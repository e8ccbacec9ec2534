import { describe, expect, it } from 'vitest';

import { makeRun } from '../testing/page';
import { LogFold, type Line } from './logfold';
import {
  bytesText,
  durationText,
  gapText,
  headlineMetric,
  lastedText,
  momentText,
  secondText,
  leftText,
  numberText,
  progressPart,
  progressPercent,
  progressText,
  runStateText,
  stoppedText,
  STATE_CHOICES,
  stateText
} from './texts';

describe('states', () => {
  it('are words, each another one', () => {
    const words = STATE_CHOICES.map(stateText);
    expect(new Set(words).size).toBe(words.length);
    expect(words.every(word => /^[A-Z]/.test(word))).toBe(true);
  });

  it('say that a run is being stopped until it has', () => {
    expect(runStateText(makeRun({ desired: 'cancelled' }))).toBe('Cancelling');
    const ended = makeRun({ desired: 'cancelled', state: 'cancelled', ended_at: '2026-11-24T10:00:09Z' });
    expect(runStateText(ended)).toBe('Cancelled');
    // it was asked to stop, and was done before
    expect(runStateText({ ...ended, state: 'succeeded' })).toBe('Done');
  });
});

describe('time left', () => {
  const at = '2026-11-24T10:00:00.000Z';
  const then = Date.parse(at);

  it('is unknown until the service has told it', () => {
    expect(leftText(null, then)).toBe('time left unknown');
    expect(leftText({ done: 1, total: 5, unit: null, left_s: null, at }, then)).toBe('time left unknown');
  });

  it('counts down from when it was told', () => {
    const progress = { done: 2, total: 5, unit: null, left_s: 60, at };
    expect(leftText(progress, then)).toBe('about 1 min left');
    expect(leftText(progress, then + 20_000)).toBe('about 40 s left');
    expect(leftText(progress, then + 55_000)).toBe('a few seconds left');
    expect(leftText(progress, then + 90_000)).toBe('nearly done');
  });

  it('does not grow when the clocks differ', () => {
    expect(leftText({ done: 2, total: 5, unit: null, left_s: 60, at }, then - 3_600_000)).toBe('about 1 min left');
  });
});

describe('amounts', () => {
  it('are as the command line writes them', () => {
    expect([0.42, 9.96, 10, 59.4, 61, 3725, 90_000].map(durationText)).toEqual([
      '0.4 s',
      '10.0 s',
      '10 s',
      '59 s',
      '1 min 1 s',
      '1 h 2 min',
      '1 d 1 h'
    ]);
    expect([0, 1023, 1536, 4294967296, 431201].map(bytesText)).toEqual([
      '0 B',
      '1023 B',
      '1.5 KiB',
      '4 GiB',
      '421 KiB'
    ]);
    expect([0, 0.1 + 0.2, 1e-7, 12345678.9, 1234.5678, 42, null].map(numberText)).toEqual([
      '0',
      '0.3',
      '1.00e-7',
      '1.23e7',
      '1235',
      '42',
      'not finite'
    ]);
  });

  it('never show a part beyond the whole', () => {
    const at = '2026-11-24T10:00:00Z';
    expect(progressPart({ done: 7, total: 5, unit: null, left_s: 0, at })).toBe(1);
    expect(progressPart({ done: 7, total: null, unit: null, left_s: null, at })).toBeNull();
    expect(progressPart({ done: 0, total: 0, unit: null, left_s: null, at })).toBeNull();
    expect(progressText({ done: 7, total: null, unit: null, left_s: null, at })).toBe('7 done');
  });

  it('never say 100 % before the end, nor more than is done', () => {
    const at = '2026-11-24T10:00:00Z';
    const percents = [0, 170, 580, 1999, 2000, 2001].map(done =>
      progressPercent({ done, total: 2000, unit: null, left_s: null, at })
    );
    expect(percents).toEqual([0, 8, 29, 99, 100, 100]);
  });

  it('say what is counted, and after the end only where it stopped', () => {
    const told = { left_s: null, at: '2026-11-24T10:00:00Z' };
    const cells = { ...told, done: 3, total: 12, unit: 'cells' as const };
    const steps = { ...told, done: 3, total: 3, unit: null };
    const open = { ...steps, total: null };
    expect(progressText(cells)).toBe('3 of 12 cells');
    const ended = { state: 'failed' as const, ended_at: told.at };
    expect([cells, steps, open, null].map(progress => stoppedText({ ...ended, progress }))).toEqual([
      'stopped at 3 of 12 cells',
      '',
      'stopped at 3',
      ''
    ]);
    expect(stoppedText({ state: 'succeeded', ended_at: told.at, progress: open })).toBe('');
    expect(stoppedText({ state: 'running', ended_at: null, progress: cells })).toBe('');
  });

  it('count a going run in whole seconds', () => {
    const now = Date.parse('2026-11-24T10:00:12.900Z');
    expect(lastedText(makeRun(), now)).toBe('12 s');
    expect(lastedText(makeRun(), now - 9000)).toBe('2 s');
    expect(lastedText(makeRun({ started_at: null }), now)).toBe('–');
    expect(lastedText(makeRun({ ended_at: '2026-11-24T10:00:02.500Z' }), now)).toBe('1.5 s');
    expect(lastedText(makeRun({ ended_at: '2026-11-24T10:00:06.460Z' }), now)).toBe('5.5 s');
    const evening = new Date(2026, 10, 24, 17, 5, 9);
    expect(momentText(evening.toISOString(), evening.getTime())).toBe('17:05');
    expect(secondText(evening.toISOString(), evening.getTime())).toBe('17:05:09');
    const end = { state: 'lost', ended_at: '2026-11-24T10:12:23Z', last_seen_at: '2026-11-24T10:00:09Z' } as const;
    expect(lastedText({ started_at: '2026-11-24T10:00:01Z', ...end }, now)).toBe('8.0 s');
  });
});

describe('a log whose middle was left out', () => {
  const lines = (text: string): readonly Line[] => {
    const fold = new LogFold();
    fold.push(text);
    return fold.lines;
  };

  it('says how much, in one line', () => {
    const [before, gap, after] = lines(
      'a\n[431201 bytes were left out here: this log reached its limit of 1048576]\nb'
    );
    expect([before, gap, after].map(line => gapText(line as Line))).toEqual([
      null,
      '421 KiB were left out here: this log reached its limit of 1 MiB',
      null
    ]);
  });
});

describe('the metric of a row', () => {
  it('is a held-out one first, and never one of the machine', () => {
    expect(headlineMetric({ loss: 1, val_accuracy: 0.9, accuracy: 1 })).toEqual(['val_accuracy', 0.9]);
    expect(headlineMetric({ accuracy: 1, loss: 0.1, test_acc: 0.8, val_acc: 0.9 })).toEqual(['test_acc', 0.8]);
    expect(headlineMetric({ accuracy: 1, 'valid/loss': 0.4 })).toEqual(['valid/loss', 0.4]);
    expect(headlineMetric({ a: 1, test_f1: 0.4, loss: 0.3 })).toEqual(['test_f1', 0.4]);
    expect(headlineMetric({ testament: 1, loss: 0.3 })).toEqual(['loss', 0.3]);
    expect(headlineMetric({ 'system/cpu': 3, f1: null })).toEqual(['f1', null]);
    expect(headlineMetric({ 'system/cpu': 3 })).toBeNull();
  });
});

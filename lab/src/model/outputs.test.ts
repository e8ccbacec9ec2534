import { describe, expect, it } from 'vitest';

import { needsKernelText } from './outputs';

describe('what stands in place of a widget', () => {
  it('names a form of ours as one, and needs no output to say something', () => {
    const texts = ['TrainForm(train.ipynb): open …', 'IntSlider(value=0)', undefined].map(line =>
      needsKernelText({ data: { 'text/plain': line } })
    );
    expect(texts).toEqual([
      'This form needs its kernel: run the cell again.',
      'This widget needs its kernel: run the cell again.',
      'This widget needs its kernel: run the cell again.'
    ]);
    expect(needsKernelText(null)).toBe('This widget needs its kernel: run the cell again.');
  });
});

import { describe, expect, it } from 'vitest';

import type { Point } from './records';
import { linePath, makeScale, mergePoints, metricGroup, nearestIndex, stepScale, tickTexts, tightScale } from './scale';

describe('a linear scale', () => {
  it('ends on round numbers around its values', () => {
    const scale = makeScale([0.13, 2.31], 'linear', 4);
    expect(scale.ticks).toEqual([0, 1, 2, 3]);
    expect(scale.place(0)).toBe(0);
    expect(scale.place(3)).toBe(1);
  });

  it.each([
    [[], 1],
    [[5], 5],
    [[0, 0, 0], 0],
    [[NaN, Infinity, 2], 2],
    [[-3, -3], -3]
  ])('of %j has room', (values, inside) => {
    const scale = makeScale(values as number[], 'linear', 4);
    expect(scale.domain[1]).toBeGreaterThan(scale.domain[0]);
    const place = scale.place(inside as number);
    expect(place).toBeGreaterThanOrEqual(0);
    expect(place).toBeLessThanOrEqual(1);
  });

  it('has few ticks at any size of numbers', () => {
    for (const [low, high] of [
      [1e-9, 3e-9],
      [0.999, 1.001],
      [1e6, 1.7e9],
      [-7, 13]
    ] as const) {
      const { ticks } = makeScale([low, high], 'linear', 4);
      expect(ticks.length).toBeGreaterThanOrEqual(2);
      expect(ticks.length).toBeLessThanOrEqual(8);
      expect(new Set(tickTexts(ticks)).size).toBe(ticks.length);
    }
  });
});

describe('a log scale', () => {
  it('spans powers of ten and leaves out what is not above zero', () => {
    const scale = makeScale([0, -1, 0.002, 30], 'log', 4);
    expect(scale.domain).toEqual([0.001, 100]);
    expect(scale.place(0)).toBeNull();
    expect(scale.place(-1)).toBeNull();
    expect(scale.place(0.001)).toBe(0);
    expect(scale.place(100)).toBe(1);
  });

  it('works for one value and for none', () => {
    expect(makeScale([10], 'log', 4).domain).toEqual([10, 100]);
    expect(makeScale([0], 'log', 4).domain[0]).toBeGreaterThan(0);
  });
});

describe('a tight scale', () => {
  it('gives no room away and has its ticks inside', () => {
    const scale = tightScale([0, 199], 4);
    expect(scale.domain).toEqual([0, 199]);
    expect(scale.ticks).toEqual([0, 50, 100, 150]);
    expect(tightScale([3], 4).place(3)).toBeCloseTo(0.5);
  });
});

describe('a scale of steps', () => {
  it('has no tick between whole steps', () => {
    expect(stepScale([1, 2, 3, 4], 8).ticks).toEqual([1, 2, 3, 4]);
    expect(stepScale([0, 199], 4).ticks).toEqual([0, 50, 100, 150]);
    expect(stepScale([0.5, 1, 1.5], 4).ticks).toEqual([0.5, 1, 1.5]);
  });

  it('puts one step in the middle', () => {
    const scale = stepScale([7], 4);
    expect(scale.ticks).toEqual([7]);
    expect(scale.place(7)).toBe(0.5);
  });
});

describe('tick texts', () => {
  it('have the digits that tell neighbours apart', () => {
    expect(tickTexts([0, 0.5, 1])).toEqual(['0', '0.5', '1']);
    expect(tickTexts([0.99, 1, 1.01])).toEqual(['0.99', '1', '1.01']);
    expect(tickTexts([0, 100_000, 200_000])).toEqual(['0', '100k', '200k']);
    expect(tickTexts([1e-6, 1e-5, 1e-4])).toEqual(['1e-6', '1e-5', '1e-4']);
  });
});

describe('a path', () => {
  it('has a gap where a value is missing', () => {
    expect(
      linePath([
        [0, 1],
        [1, 2],
        [2, null],
        [3, NaN],
        [4, 5]
      ])
    ).toBe('M0.0,1.0L1.0,2.0M4.0,5.0');
  });
});

describe('points', () => {
  const point = (step: number, time: number): Point => [step, step / 10, time];

  it('are added once, in order of time', () => {
    const known = [point(1, 1), point(2, 2)];
    expect(mergePoints(known, [point(2, 2), point(3, 3)])).toEqual([point(1, 1), point(2, 2), point(3, 3)]);
    expect(mergePoints(known, [point(0, 0.5)])).toEqual([point(0, 0.5), point(1, 1), point(2, 2)]);
  });

  it('of a resumed run keep both values of a step', () => {
    expect(mergePoints([point(1, 1), point(2, 2)], [[2, 0.7, 9]])).toHaveLength(3);
  });

  it('are thinned out beyond the limit, and the newest stays', () => {
    const many = Array.from({ length: 41 }, (_, at) => point(at, at));
    const thin = mergePoints(many, [point(41, 41)], 40);
    expect(thin.length).toBeLessThan(25);
    expect(thin[thin.length - 1]).toEqual(point(41, 41));
  });

  it('are found by the nearest place', () => {
    expect(nearestIndex([0, 10, 20], 14)).toBe(1);
    expect(nearestIndex([0, 10, 20], 16)).toBe(2);
    expect(nearestIndex([0, 10, 20], -99)).toBe(0);
    expect(nearestIndex([5], 99)).toBe(0);
  });
});

describe('groups', () => {
  it('put a held-out metric beside its own', () => {
    expect(['loss', 'val_loss', 'train/loss', 'loss/val', 'test-loss'].map(metricGroup)).toEqual(Array(5).fill('loss'));
    expect(metricGroup('validity')).toBe('validity');
    expect(metricGroup('trainable')).toBe('trainable');
  });
});

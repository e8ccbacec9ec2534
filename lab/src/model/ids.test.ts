import { describe, expect, it } from 'vitest';

import { artifactAddress, readModelTarget, readQuestion, readRunsTarget, readRunTarget } from './ids';

describe('what a MIME bundle names', () => {
  it.each([
    null,
    'r-aaaaaaaaaa',
    {},
    { id: 3 },
    { id: 'r-aaaaaaaaa' },
    { id: 'r-AAAAAAAAAA' },
    { id: 'r-aaaaaaaaaa/../x' },
    { id: 'r-aaaaaaaaaa\n' },
    { id: '../../hub/api' },
    { id: ['r-aaaaaaaaaa'] }
  ])('%j is no run', data => {
    expect(readRunTarget(data)).toBeNull();
  });

  it('is a run by its whole id', () => {
    expect(readRunTarget({ id: 'r-abcdefgh27', more: 1 })).toEqual({ id: 'r-abcdefgh27' });
  });

  it('is some runs, or all', () => {
    expect(readRunsTarget({})).toEqual({ ids: null, state: null });
    expect(readRunsTarget({ ids: ['r-aaaaaaaaaa'], state: 'failed' })).toEqual({
      ids: ['r-aaaaaaaaaa'],
      state: 'failed'
    });
    expect(readRunsTarget({ ids: ['r-aaaaaaaaaa', '..'] })).toBeNull();
    expect(readRunsTarget({ ids: 'r-aaaaaaaaaa' })).toBeNull();
    expect(readRunsTarget({ state: 'failed&limit=1' })).toBeNull();
    expect(readRunsTarget({ ids: Array(501).fill('r-aaaaaaaaaa') })).toBeNull();
  });

  it('is a model by name and version', () => {
    expect(readModelTarget({ name: 'digits-cnn', version: 3 })).toEqual({ name: 'digits-cnn', version: 3 });
    expect(readModelTarget({ name: 'digits' })).toEqual({ name: 'digits', version: null });
    for (const name of ['..', 'a/b', 'a..b', '', '.hidden', 'a%2fb', 7]) {
      expect(readModelTarget({ name })).toBeNull();
    }
    for (const version of [0, -1, 1.5, '3']) {
      expect(readModelTarget({ name: 'digits', version })).toBeNull();
    }
  });
});

describe('the address of an artifact', () => {
  it('keeps folders and encodes all else', () => {
    expect(artifactAddress('out/100%25 naïve?#.txt')).toBe('out/100%2525%20na%C3%AFve%3F%23.txt');
  });

  it.each(['../x', 'a/../b', '/etc/passwd', 'a//b', '', '.', 'a\\b', 'a\0b'])('%j is none', path => {
    expect(artifactAddress(path)).toBeNull();
  });
});

describe('a question of a cell', () => {
  it('has an id that can be part of an address, and words', () => {
    const asked = { id: 'aB3_-', prompt: 'Name: ', password: false };
    expect(readQuestion(asked)).toEqual(asked);
    expect(readQuestion({ id: 'a' })).toEqual({ id: 'a', prompt: '', password: false });
    expect([null, {}, { id: '../x' }, { id: 7 }].map(readQuestion)).toEqual([null, null, null, null]);
  });
});

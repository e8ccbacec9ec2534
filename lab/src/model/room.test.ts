import { describe, expect, it } from 'vitest';

import { Room, SHOWN_MS } from './room';

describe('the room for notes', () => {
  it('is for three at once, each for ten seconds', () => {
    const room = new Room();
    expect([0, 1, 2].map(n => [room.isFree(n), room.take(`n${n}`, n)])).toEqual(Array(3).fill([true, null]));
    expect(room.isFree(SHOWN_MS - 1)).toBe(false);
    expect(room.isFree(SHOWN_MS)).toBe(true);
    expect([0, 1, 2].map(n => room.has(`n${n}`, SHOWN_MS))).toEqual([false, true, true]);
  });

  it('is made for an answer to the user by the oldest', () => {
    const room = new Room();
    ['a', 'b', 'c'].forEach((id, at) => room.take(id, at));
    room.renew('a', 5);
    expect(room.take('d', 6)).toBe('b');
    expect(['a', 'b', 'c', 'd'].filter(id => room.has(id, 6))).toEqual(['a', 'c', 'd']);
  });

  it('leaves a note alone that is about to go, or gone', () => {
    const room = new Room();
    room.take('a', 0);
    expect(room.left('a', 5_000)).toBe(SHOWN_MS);
    expect(room.left('a', SHOWN_MS - 500)).toBeNull();
    expect(room.left('b', 0)).toBeNull();
  });
});

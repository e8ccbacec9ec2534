import { describe, expect, it } from 'vitest';

import { LINE_LIMIT, LINES_LIMIT, LogFold } from './logfold';

const ESC = '\x1b';

function folded(...pieces: string[]): LogFold {
  const fold = new LogFold();
  pieces.forEach(piece => fold.push(piece));
  return fold;
}

function shown(...pieces: string[]): string[] {
  return folded(...pieces).lines.map(line => line.map(span => span.text).join(''));
}

describe('carriage returns and cursor moves', () => {
  it('overwrite as a terminal does', () => {
    expect(shown('10%\r50%\r100%\ndone\n')).toEqual(['100%', 'done', '']);
    expect(shown('loading…\rok')).toEqual(['okading…']);
    expect(shown(`loading…\r${ESC}[Kok`)).toEqual(['ok']);
    expect(shown('abc\b\bX')).toEqual(['aXc']);
    expect(shown('line\r\nnext\r\n')).toEqual(['line', 'next', '']);
  });

  it('redraw the bars above, as nested progress bars do', () => {
    const bars = `outer 1/3\ninner 1/9\r${ESC}[Aouter 2/3\n\rinner 2/9`;
    expect(shown(bars)).toEqual(['outer 2/3', 'inner 2/9']);
  });

  it('do not write above the text', () => {
    expect(shown(`a\n${ESC}[99Ab`)).toEqual(['b', '']);
  });

  it('are the same however the text is cut', () => {
    const text = `one ${ESC}[1;31mred${ESC}[0m\r\ntwo\rTW\t|${ESC}]8;;http://x${ESC}\\link${ESC}]8;;${ESC}\\\nend`;
    const whole = folded(text).lines;
    for (let cut = 1; cut < text.length; cut += 1) {
      expect(folded(text.slice(0, cut), text.slice(cut)).lines).toEqual(whole);
    }
    expect(folded(...text).lines).toEqual(whole);
  });
});

describe('colours', () => {
  it('mark their text and end', () => {
    const [line] = folded(`${ESC}[1;32mgood${ESC}[22m still${ESC}[0m plain`).lines;
    expect(line?.map(span => [span.text, span.style.colour, span.style.bold])).toEqual([
      ['good', 2, true],
      [' still', 2, false],
      [' plain', null, false]
    ]);
  });

  it('of 256 and of RGB become one of the 16 that follow the theme', () => {
    const [line] = folded(`${ESC}[38;5;196mred${ESC}[38;2;0;200;0mgreen${ESC}[48;5;21mon blue${ESC}[39;49mplain`).lines;
    expect(line?.map(span => [span.text, span.style.colour, span.style.background])).toEqual([
      ['red', 9, null],
      ['green', 2, null],
      ['on blue', 2, 12],
      ['plain', null, null]
    ]);
  });

  it('that nobody knows, and other sequences, leave no trace', () => {
    expect(shown(`a${ESC}[?25lb${ESC}[2Jc${ESC}7d${ESC}(e\x07f`).join('')).not.toContain('[');
  });
});

describe('hostile logs', () => {
  it('cost no more than their limit: one line of 3 MB', () => {
    const fold = new LogFold();
    const begun = performance.now();
    for (let n = 0; n < 48; n += 1) {
      fold.push('x'.repeat(65_536));
    }
    const text = fold.lines[0]?.map(span => span.text).join('') ?? '';
    expect(text.length).toBeLessThan(LINE_LIMIT + 60);
    expect(text.endsWith(`${48 * 65_536 - LINE_LIMIT} more characters`)).toBe(true);
    expect(performance.now() - begun).toBeLessThan(2000);
  });

  it('keep the last lines of a million', () => {
    const fold = new LogFold();
    for (let n = 0; n < 100; n += 1) {
      fold.push(Array.from({ length: 500 }, (_, at) => `line ${n * 500 + at}`).join('\n') + '\n');
    }
    expect(fold.lines.length).toBeLessThanOrEqual(LINES_LIMIT * 1.1 + 12);
    expect(fold.lines[fold.lines.length - 2]?.[0]?.text).toBe('line 49999');
    expect(fold.dropped + fold.lines.length).toBe(50_001);
  });

  it('are text, never markup', () => {
    expect(shown('<img src=x onerror=alert(1)>')).toEqual(['<img src=x onerror=alert(1)>']);
  });

  it('may move the cursor as far right as they like', () => {
    expect(shown(`${ESC}[999999999Cx`)[0]?.length).toBeLessThan(LINE_LIMIT + 60);
    expect(shown(`${ESC}[999999999Gx`)[0]?.length).toBeLessThan(LINE_LIMIT + 60);
  });
});

/** A terminal's text as lines: carriage returns overwrite, cursor moves are followed, colours become marks. */

export interface Style {
  colour: number | null;
  background: number | null;
  bold: boolean;
  faint: boolean;
  italic: boolean;
  underline: boolean;
}

export interface Span {
  text: string;
  style: Style;
}

export type Line = Span[];

const PLAIN: Style = { colour: null, background: null, bold: false, faint: false, italic: false, underline: false };
/** Longest line that is kept for show; what is cut is counted. */
export const LINE_LIMIT = 4000;
/** Lines that are kept; older ones are dropped. */
export const LINES_LIMIT = 20_000;

const ESCAPE = '\x1b';
/* eslint-disable-next-line no-control-regex */
const SEQUENCE = /^\x1b(?:\[([0-9;:?]*)([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])/;
/* eslint-disable-next-line no-control-regex */
const UNFINISHED = /^\x1b(?:\[[0-9;:?]*|\][^\x07\x1b]{0,2000}\x1b?)?$/;
/* eslint-disable-next-line no-control-regex */
const RUN_OF_TEXT = /[^\x00-\x1f\x7f]+/y;

interface Cell {
  text: string;
  style: Style;
}

/** Folds text that arrives in pieces; `lines` is what a terminal of endless width would show. */
export class LogFold {
  /** Lines dropped at the front because there were more than `LINES_LIMIT`. */
  dropped = 0;

  private readonly finished: Line[] = [];
  private readonly open: Row[] = [new Row()];
  private row = 0;
  private column = 0;
  private style: Style = PLAIN;
  private rest = '';

  push(text: string): void {
    const all = this.rest + text;
    this.rest = '';
    let at = 0;
    while (at < all.length) {
      RUN_OF_TEXT.lastIndex = at;
      const run = RUN_OF_TEXT.exec(all);
      if (run) {
        this.write(run[0]);
        at += run[0].length;
        continue;
      }
      const used = this.control(all, at);
      if (used === 0) {
        this.rest = all.slice(at);
        return;
      }
      at += used;
    }
  }

  get lines(): readonly Line[] {
    return [...this.finished, ...this.open.map(row => row.line())];
  }

  /** Handles one control character or escape sequence; returns its length, 0 when more text is needed. */
  private control(text: string, at: number): number {
    const letter = text[at];
    if (letter === ESCAPE) {
      return this.escape(text.slice(at, at + 2100));
    }
    if (letter === '\n') {
      this.newLine();
    } else if (letter === '\r') {
      this.column = 0;
    } else if (letter === '\b') {
      this.column = Math.max(0, this.column - 1);
    } else if (letter === '\t') {
      this.write(' '.repeat(8 - (this.column % 8)));
    }
    return 1;
  }

  private escape(text: string): number {
    const found = SEQUENCE.exec(text);
    if (!found) {
      return UNFINISHED.test(text) ? 0 : 1;
    }
    const [whole, given = '', action] = found;
    const count = Math.max(1, parseInt(given, 10) || 1);
    if (action === 'm') {
      this.style = styled(this.style, given);
    } else if (action === 'K') {
      this.current().erase(this.column, given);
    } else if (action === 'A') {
      this.row = Math.max(0, this.row - count);
    } else if (action === 'B') {
      this.row = Math.min(this.open.length - 1, this.row + count);
    } else if (action === 'C') {
      this.column += Math.min(count, LINE_LIMIT);
    } else if (action === 'D') {
      this.column = Math.max(0, this.column - count);
    } else if (action === 'G') {
      this.column = Math.min(count, LINE_LIMIT) - 1;
    }
    return whole.length;
  }

  private write(text: string): void {
    this.column += this.current().write(this.column, text, this.style);
  }

  private current(): Row {
    return this.open[this.row] as Row;
  }

  /** Some rows stay open, because progress bars move the cursor up to redraw the ones above. */
  private newLine(): void {
    this.column = 0;
    this.row += 1;
    if (this.row === this.open.length) {
      this.open.push(new Row());
    }
    if (this.open.length > 12) {
      this.finished.push((this.open.shift() as Row).line());
      this.row -= 1;
    }
    if (this.finished.length > LINES_LIMIT * 1.1) {
      this.dropped += this.finished.splice(0, this.finished.length - LINES_LIMIT).length;
    }
  }
}

/** One line that can still be written over. Text beyond `LINE_LIMIT` is counted, not kept. */
class Row {
  private cells: Cell[] = [];
  private cut = 0;

  /** Writes at a column and returns how many columns the text takes, also those that are not kept. */
  write(column: number, text: string, style: Style): number {
    let at = column;
    for (const letter of column < LINE_LIMIT ? text.slice(0, 2 * LINE_LIMIT) : '') {
      if (at >= LINE_LIMIT) {
        break;
      }
      while (this.cells.length < at) {
        this.cells.push({ text: ' ', style: PLAIN });
      }
      this.cells[at] = { text: letter, style };
      at += 1;
    }
    if (column + text.length <= LINE_LIMIT) {
      return at - column;
    }
    this.cut = Math.max(this.cut, column + text.length - LINE_LIMIT);
    return text.length;
  }

  erase(column: number, mode: string): void {
    if (mode === '' || mode === '0') {
      this.cells.length = Math.min(this.cells.length, column);
    } else if (mode === '2') {
      this.cells = [];
    } else {
      this.cells.forEach((cell, at) => {
        if (at <= column) {
          cell.text = ' ';
        }
      });
    }
    this.cut = 0;
  }

  line(): Line {
    const line: Line = [];
    for (const cell of this.cells) {
      const last = line[line.length - 1];
      if (last && last.style === cell.style) {
        last.text += cell.text;
      } else {
        line.push({ ...cell });
      }
    }
    if (this.cut > 0) {
      line.push({ text: ` … ${this.cut} more characters`, style: { ...PLAIN, italic: true, faint: true } });
    }
    return line;
  }
}

function styled(style: Style, given: string): Style {
  const codes = given.split(/[;:]/).map(code => parseInt(code || '0', 10));
  let next = { ...style };
  for (let at = 0; at < codes.length; at += 1) {
    const code = codes[at] as number;
    if (code === 38 || code === 48) {
      const [colour, used] = extended(codes.slice(at + 1));
      next[code === 38 ? 'colour' : 'background'] = colour;
      at += used;
    } else {
      next = coded(next, code);
    }
  }
  return next;
}

function coded(style: Style, code: number): Style {
  if (code === 0) {
    return { ...PLAIN };
  }
  if (code >= 30 && code <= 37) {
    return { ...style, colour: code - 30 };
  }
  if (code >= 90 && code <= 97) {
    return { ...style, colour: code - 90 + 8 };
  }
  if (code >= 40 && code <= 47) {
    return { ...style, background: code - 40 };
  }
  if (code >= 100 && code <= 107) {
    return { ...style, background: code - 100 + 8 };
  }
  const simple: Record<number, Partial<Style>> = {
    1: { bold: true },
    2: { faint: true },
    3: { italic: true },
    4: { underline: true },
    22: { bold: false, faint: false },
    23: { italic: false },
    24: { underline: false },
    39: { colour: null },
    49: { background: null }
  };
  return { ...style, ...simple[code] };
}

/** 256-colour and RGB codes, as the nearest of the 16 that follow the theme. */
function extended(codes: number[]): [number | null, number] {
  if (codes[0] === 5) {
    return [nearest256(codes[1] ?? 0), 2];
  }
  if (codes[0] === 2) {
    return [nearestRgb(codes[1] ?? 0, codes[2] ?? 0, codes[3] ?? 0), 4];
  }
  return [null, 1];
}

function nearest256(code: number): number | null {
  if (code < 16) {
    return code;
  }
  if (code >= 232) {
    return code < 238 ? 8 : code < 250 ? 7 : 15;
  }
  const cube = code - 16;
  const level = (part: number): number => (part === 0 ? 0 : 55 + part * 40);
  return nearestRgb(level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6));
}

function nearestRgb(red: number, green: number, blue: number): number {
  const most = Math.max(red, green, blue);
  if (most < 60) {
    return 0;
  }
  const half = most * 0.6;
  const colour = (red > half ? 1 : 0) + (green > half ? 2 : 0) + (blue > half ? 4 : 0);
  return most > 200 && colour !== 7 ? colour + 8 : colour;
}

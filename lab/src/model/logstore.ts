/** The end of a run's log, kept up with the service, and as much before it as the user asks for. */

import { asApiError, type Api, type ApiError } from './api';
import type { Change, Events } from './events';
import { LogFold, type Line } from './logfold';
import type { LogPart } from './records';
import { Store } from './store';

export interface LogData {
  lines: readonly Line[];
  /** Attempt that is shown; null before the first answer. */
  attempt: number | null;
  /** First byte of the log that is shown; 0 is the whole log. */
  from: number;
  size: number;
  loaded: boolean;
  error: ApiError | null;
}

const PART_BYTES = 65_536;
/** When the log runs ahead by more than this, the view jumps to its end instead of reading all between. */
const JUMP_BYTES = 4 * PART_BYTES;

export class LogStore extends Store<LogData> {
  private fold = new LogFold();
  /** Where the next read begins; negative is from the end. */
  private next = -PART_BYTES;
  private span = PART_BYTES;
  private fresh = true;
  private caughtUp = false;
  private told = 0;
  private busy = false;

  /** `attempt` null shows the newest one, and changes over when a new one begins. */
  constructor(
    readonly id: string,
    private readonly api: Api,
    private readonly events: Events,
    private readonly attempt: number | null
  ) {
    super({ lines: [], attempt, from: 0, size: 0, loaded: false, error: null });
  }

  /** Shows more of what is before. */
  earlier(): void {
    this.span *= 2;
    this.restart(-this.span);
    void this.follow();
  }

  protected start(): (() => void)[] {
    this.restart(-this.span);
    void this.follow();
    return [this.events.listen(this.id, change => this.take(change))];
  }

  private take(change: Change): void {
    if (change.type === 'log' && (this.attempt ?? change.data.attempt) === change.data.attempt) {
      this.told = change.data.size;
      void this.follow();
    } else if (change.type === 'resync') {
      void this.follow();
    }
  }

  private restart(offset: number): void {
    this.fold = new LogFold();
    this.next = offset;
    this.fresh = true;
    this.caughtUp = false;
  }

  /** Reads on from where the last read ended, until nothing is new. */
  private async follow(): Promise<void> {
    if (this.busy) {
      return;
    }
    this.busy = true;
    try {
      while (this.live && (await this.readOn())) {
        // each part may show that there is more
      }
    } catch (problem) {
      this.change({ error: asApiError(problem), loaded: true });
    } finally {
      this.busy = false;
    }
  }

  /** Reads one part; whether another is due at once. */
  private async readOn(): Promise<boolean> {
    const fold = this.fold;
    const query = { offset: this.next, limit: PART_BYTES };
    const part = await this.api.log(this.id, this.attempt === null ? query : { ...query, attempt: this.attempt });
    if (fold !== this.fold) {
      return true;
    }
    const shown = this.snapshot();
    const another = !this.fresh && (part.attempt !== shown.attempt || part.size < part.offset);
    if (another || (this.caughtUp && part.size - part.next > JUMP_BYTES)) {
      this.told = another ? 0 : this.told;
      this.restart(-this.span);
      return true;
    }
    this.show(part);
    this.caughtUp = part.next >= Math.max(part.size, this.told) || part.next <= part.offset;
    return !this.caughtUp;
  }

  private show(part: LogPart): void {
    this.fold.push(this.fresh && part.offset > 0 ? fromWholeLine(part.text) : part.text);
    const from = this.fresh ? part.offset : this.snapshot().from;
    this.fresh = false;
    this.next = part.next;
    this.change({ lines: this.fold.lines, attempt: part.attempt, from, size: part.size, loaded: true, error: null });
  }
}

/** A read from the middle begins inside a line: that rest is left out, unless it is all there is. */
function fromWholeLine(text: string): string {
  const end = text.indexOf('\n');
  return end >= 0 && end < text.length - 1 ? text.slice(end + 1) : text;
}

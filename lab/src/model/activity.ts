/** The caller's unfinished runs, and which of them ended while the page was open. */

import { asApiError, type Api } from './api';
import { EVERYTHING, type Change, type Events } from './events';
import { isFinal, newer, type Run } from './records';
import { Store } from './store';

export interface ActivityData {
  unfinished: ReadonlyMap<string, Run>;
  /** Whether the list has been read since the page opened. */
  known: boolean;
}

const STATES = ['running', 'starting', 'queued', 'created'];
/** The most that the service gives at once. */
const LIMIT = 500;
const RETRY_MS = 5_000;

export class ActivityStore extends Store<ActivityData> {
  /** Runs told of since the list was asked for: newer than what that answer says of them. */
  private told = new Map<string, Run>();
  private turn = 0;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private readonly endListeners = new Set<(run: Run) => void>();

  constructor(
    private readonly api: Api,
    private readonly events: Events
  ) {
    super({ unfinished: new Map(), known: false });
  }

  /** Calls back for each run that was unfinished and no longer is; returns its end. */
  onEnd(callback: (run: Run) => void): () => void {
    this.endListeners.add(callback);
    return () => this.endListeners.delete(callback);
  }

  protected start(): (() => void)[] {
    const ends = [
      this.events.listen(EVERYTHING, change => this.take(change)),
      this.events.whenLive(() => void this.refresh()),
      () => this.stopTimer()
    ];
    void this.refresh();
    return ends;
  }

  /** Reads the list; the newest call wins, and one that fails in passing is made again. */
  private async refresh(): Promise<void> {
    const turn = ++this.turn;
    this.told = new Map();
    this.stopTimer();
    try {
      const page = await this.api.runs({ states: STATES, limit: LIMIT });
      if (turn === this.turn) {
        await this.found(page.items);
      }
    } catch (problem) {
      if (turn === this.turn) {
        this.failed(asApiError(problem).passing);
      }
    }
  }

  private async found(runs: Run[]): Promise<void> {
    const found = new Map(runs.map(run => [run.id, run]));
    this.told.forEach(told => {
      const read = found.get(told.id);
      const run = read ? newer(read, told) : told;
      return isFinal(run) ? found.delete(run.id) : found.set(run.id, run);
    });
    const gone = [...this.snapshot().unfinished.keys()].filter(id => !found.has(id));
    this.change({ unfinished: found, known: true });
    const ended = await Promise.all(gone.map(id => this.api.run(id).catch(() => null)));
    ended.forEach(run => run && isFinal(run) && this.ended(run));
  }

  private failed(passing: boolean): void {
    this.change({ known: false });
    if (passing && this.live) {
      this.timer = setTimeout(() => void this.refresh(), RETRY_MS);
    }
  }

  private stopTimer(): void {
    if (this.timer !== null) {
      clearTimeout(this.timer);
      this.timer = null;
    }
  }

  private take(change: Change): void {
    if (change.type === 'resync') {
      void this.refresh();
    } else if (change.type === 'run') {
      this.changed(change.data);
    } else if (change.type === 'removed') {
      const unfinished = new Map(this.snapshot().unfinished);
      unfinished.delete(change.data.run);
      this.change({ unfinished });
    }
  }

  private changed(told: Run): void {
    const unfinished = new Map(this.snapshot().unfinished);
    const before = unfinished.get(told.id);
    const run = before ? newer(before, told) : told;
    this.told.set(run.id, run);
    if (isFinal(run)) {
      unfinished.delete(run.id);
    } else {
      unfinished.set(run.id, run);
    }
    this.change({ unfinished });
    if (before && isFinal(run)) {
      this.ended(run);
    }
  }

  private ended(run: Run): void {
    this.endListeners.forEach(callback => callback(run));
  }
}

export function activityText(unfinished: ReadonlyMap<string, Run>): string {
  const runs = [...unfinished.values()];
  const running = runs.filter(run => run.state === 'running' || run.state === 'starting').length;
  const waiting = runs.length - running;
  if (running === 0 && waiting === 0) {
    return 'No active runs';
  }
  return [running > 0 ? `${running} running` : '', waiting > 0 ? `${waiting} waiting` : ''].filter(Boolean).join(', ');
}

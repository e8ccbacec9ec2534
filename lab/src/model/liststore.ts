/** A page of runs, kept up with the service. */

import { asApiError, type Api, type ApiError } from './api';
import { EVERYTHING, type Change, type Events } from './events';
import type { RunsTarget } from './ids';
import { newer, type Page, type Run } from './records';
import { Store } from './store';

export interface ListData {
  runs: Run[] | null;
  state: string | null;
  /** Tokens of the pages before this one and of this one; null is the first page. */
  trail: (string | null)[];
  next: string | null;
  error: ApiError | null;
  loading: boolean;
}

const RETRY_MS = 5_000;
export const PAGE_SIZE = 15;

export class ListStore extends Store<ListData> {
  private turn = 0;
  private timer: ReturnType<typeof setTimeout> | null = null;

  constructor(
    private readonly target: RunsTarget,
    private readonly api: Api,
    private readonly events: Events
  ) {
    super({ runs: null, state: target.state, trail: [null], next: null, error: null, loading: true });
  }

  filter(state: string | null): void {
    this.change({ state, trail: [null] });
    void this.refresh();
  }

  older(): void {
    const { next, trail } = this.snapshot();
    if (next !== null) {
      this.change({ trail: [...trail, next] });
      void this.refresh();
    }
  }

  newer(): void {
    const { trail } = this.snapshot();
    if (trail.length > 1) {
      this.change({ trail: trail.slice(0, -1) });
      void this.refresh();
    }
  }

  /** Reads the page that is shown; the newest call wins. */
  async refresh(): Promise<void> {
    const turn = ++this.turn;
    this.change({ loading: true });
    this.stopTimer();
    try {
      const page = await this.read();
      if (turn === this.turn) {
        this.change({ runs: this.newest(page.items), next: page.next, error: null, loading: false });
      }
    } catch (problem) {
      if (turn === this.turn) {
        this.failed(asApiError(problem));
      }
    }
  }

  protected start(): (() => void)[] {
    const ends = [
      ...(this.target.ids ?? [EVERYTHING]).map(id => this.events.listen(id, change => this.take(change))),
      this.events.whenLive(() => void this.refresh()),
      () => this.stopTimer()
    ];
    void this.refresh();
    return ends;
  }

  private async read(): Promise<Page<Run>> {
    const { state, trail } = this.snapshot();
    if (this.target.ids === null) {
      return this.api.runs({
        states: state === null ? [] : [state],
        limit: PAGE_SIZE,
        page: trail[trail.length - 1] ?? null
      });
    }
    return this.readNamed(this.target.ids, state, Number(trail[trail.length - 1] ?? 0));
  }

  /** A run may have been told of during the read, and its answer be older. */
  private newest(read: Run[]): Run[] {
    const known = new Map(this.snapshot().runs?.map(run => [run.id, run]));
    return read.map(run => {
      const told = known.get(run.id);
      return told ? newer(told, run) : run;
    });
  }

  /** Named runs are read one by one; one that is gone is left out. */
  private async readNamed(ids: string[], state: string | null, from: number): Promise<Page<Run>> {
    const wanted = ids.slice(from, from + PAGE_SIZE);
    const told = await Promise.all(wanted.map(id => this.api.run(id).catch(gone)));
    const items = told.filter((run): run is Run => run !== null && (state === null || run.state === state));
    return { items, next: from + PAGE_SIZE < ids.length ? String(from + PAGE_SIZE) : null };
  }

  private failed(error: ApiError): void {
    this.change({ error, loading: false });
    if (error.passing && this.live) {
      this.timer = setTimeout(() => void this.refresh(), RETRY_MS);
    }
  }

  private take(change: Change): void {
    if (change.type === 'resync') {
      void this.refresh();
    } else if (change.type === 'run') {
      this.changed(change.data);
    } else if (change.type === 'metrics') {
      this.measured(change.data.run, change.data.points);
    } else if (change.type === 'removed') {
      this.change({ runs: (this.snapshot().runs ?? []).filter(run => run.id !== change.data.run) });
    }
  }

  private changed(told: Run): void {
    const { runs, state, trail } = this.snapshot();
    const known = runs?.find(one => one.id === told.id);
    const run = known ? newer(known, told) : told;
    const fits = state === null || run.state === state;
    if (known) {
      this.change({
        runs: (runs ?? []).map(one => (one.id === run.id ? run : one)).filter(one => one.id !== run.id || fits)
      });
    } else if (fits && this.target.ids === null && trail.length === 1) {
      this.change({ runs: [run, ...(runs ?? [])].sort(newestFirst).slice(0, PAGE_SIZE) });
    }
  }

  private measured(id: string, points: Record<string, [unknown, number | null, number][]>): void {
    const last = Object.fromEntries(
      Object.entries(points).map(([name, some]) => [name, some[some.length - 1]?.[1] ?? null])
    );
    const runs = this.snapshot().runs ?? [];
    this.change({ runs: runs.map(run => (run.id === id ? { ...run, metrics: { ...run.metrics, ...last } } : run)) });
  }

  private stopTimer(): void {
    if (this.timer !== null) {
      clearTimeout(this.timer);
      this.timer = null;
    }
  }
}

function newestFirst(a: Run, b: Run): number {
  return b.created_at.localeCompare(a.created_at);
}

function gone(problem: unknown): null {
  const error = asApiError(problem);
  if (error.status !== 404) {
    throw error;
  }
  return null;
}

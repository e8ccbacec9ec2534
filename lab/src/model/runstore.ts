/** All that a view of one run shows, kept up with the service. */

import { ApiError, asApiError, type Api } from './api';
import type { Change, Events } from './events';
import { isFinal, newer, type Artifact, type Curves, type ModelVersion, type Run } from './records';
import { mergePoints } from './scale';
import { Store } from './store';

export interface RunData {
  run: Run | null;
  curves: Curves | null;
  artifacts: Artifact[] | null;
  models: ModelVersion[];
  error: ApiError | null;
  removed: boolean;
  /** Milliseconds since 1970; when the run was last read or told. */
  heardAt: number | null;
}

const RETRY_MS = 5_000;

export class RunStore extends Store<RunData> {
  private reading = false;
  private again = false;
  /** What was told during a read: the answers may be older. */
  private meanwhile: Change[] = [];
  private timer: ReturnType<typeof setTimeout> | null = null;

  constructor(
    readonly id: string,
    private readonly api: Api,
    private readonly events: Events,
    known: Run | null = null
  ) {
    super({ run: known, curves: null, artifacts: null, models: [], error: null, removed: false, heardAt: null });
  }

  /** Reads everything again. Calls during a read are one more read after it. */
  async refresh(): Promise<void> {
    if (this.reading) {
      this.again = true;
      return;
    }
    this.reading = true;
    try {
      await this.read();
    } catch (problem) {
      this.failed(asApiError(problem));
    } finally {
      this.reading = false;
    }
    if (this.again && this.live) {
      this.again = false;
      await this.refresh();
    }
  }

  async cancel(): Promise<void> {
    this.take({ type: 'run', data: await this.api.cancel(this.id) });
  }

  /** Ends the pause before the next attempt. */
  async tryNow(): Promise<void> {
    this.take({ type: 'run', data: await this.api.move(this.id, 'first') });
  }

  async pin(pinned: boolean): Promise<void> {
    this.take({ type: 'run', data: await this.api.pin(this.id, pinned) });
  }

  async remove(): Promise<void> {
    await this.api.remove(this.id);
    this.change({ removed: true });
  }

  protected start(): (() => void)[] {
    const ends = [
      this.events.listen(this.id, change => this.take(change)),
      this.events.whenLive(() => void this.refresh()),
      () => this.stopTimer()
    ];
    void this.refresh();
    return ends;
  }

  private async read(): Promise<void> {
    this.meanwhile = [];
    const read = await this.api.run(this.id);
    const known = this.snapshot().run;
    this.change({ run: known ? newer(known, read) : read, error: null, removed: false, heardAt: Date.now() });
    const [curves, artifacts, models] = await Promise.all([
      this.api.curves(this.id),
      this.api.artifacts(this.id),
      this.api.modelsOf(this.id)
    ]);
    this.change({ curves, artifacts, models });
    this.meanwhile.forEach(change => this.apply(change));
  }

  private failed(error: ApiError): void {
    this.change({ error });
    this.stopTimer();
    if (error.passing && this.live) {
      this.timer = setTimeout(() => void this.refresh(), RETRY_MS);
    }
  }

  private take(change: Change): void {
    if (this.reading && change.type !== 'resync') {
      this.meanwhile.push(change);
    }
    this.apply(change);
  }

  private apply(change: Change): void {
    const { run, curves, artifacts } = this.snapshot();
    if (change.type === 'resync') {
      void this.refresh();
    } else if (change.type === 'run') {
      if (run === null || newer(run, change.data) === change.data) {
        this.change({ run: change.data, error: null, heardAt: Date.now() });
      }
      if (isFinal(change.data) && !(run && isFinal(run))) {
        void this.refresh();
      }
    } else if (change.type === 'metrics') {
      this.change({ curves: addPoints(curves ?? {}, change.data.points), heardAt: Date.now() });
    } else if (change.type === 'artifact') {
      this.change({ artifacts: addArtifact(artifacts ?? [], change.data.artifact) });
    } else if (change.type === 'removed') {
      this.change({ removed: true });
    }
  }

  private stopTimer(): void {
    if (this.timer !== null) {
      clearTimeout(this.timer);
      this.timer = null;
    }
  }
}

function addPoints(curves: Curves, points: Curves): Curves {
  const merged = Object.entries(points).map(([name, added]) => [name, mergePoints(curves[name] ?? [], added)] as const);
  return { ...curves, ...Object.fromEntries(merged) };
}

function addArtifact(known: Artifact[], added: Artifact): Artifact[] {
  return [...known.filter(artifact => artifact.path !== added.path), added];
}

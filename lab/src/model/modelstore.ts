/** A version of a model as the registry has it. */

import { asApiError, type Api, type ApiError } from './api';
import type { Events } from './events';
import type { ModelTarget } from './ids';
import type { ModelVersion } from './records';
import { Store } from './store';

export interface ModelData {
  model: ModelVersion | null;
  error: ApiError | null;
}

const RETRY_MS = 5_000;

export class ModelStore extends Store<ModelData> {
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly target: ModelTarget,
    private readonly api: Api,
    private readonly events: Events
  ) {
    super({ model: null, error: null });
  }

  async refresh(): Promise<void> {
    try {
      this.change({ model: await this.api.model(this.target.name, this.target.version), error: null });
    } catch (problem) {
      const error = asApiError(problem);
      this.change({ error });
      if (error.passing && this.live) {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => void this.refresh(), RETRY_MS);
      }
    }
  }

  /** Versions never change; aliases do, so it is read again when the service comes back. */
  protected start(): (() => void)[] {
    void this.refresh();
    return [
      this.events.watch(() => {
        if (this.events.connection.state === 'live') {
          void this.refresh();
        }
      }),
      () => clearTimeout(this.timer)
    ];
  }
}

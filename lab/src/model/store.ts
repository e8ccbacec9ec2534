/** A value that views watch: changes are gathered and told once a frame. */

export abstract class Store<T> {
  private readonly callbacks = new Set<() => void>();
  private planned = false;
  private ends: (() => void)[] = [];

  protected constructor(private value: T) {}

  /** For `useSyncExternalStore`: the first watcher starts the store, the last one's end stops it. */
  readonly subscribe = (callback: () => void): (() => void) => {
    this.callbacks.add(callback);
    if (this.callbacks.size === 1) {
      this.ends = this.start();
    }
    return () => {
      this.callbacks.delete(callback);
      if (this.callbacks.size === 0) {
        this.ends.forEach(end => end());
        this.ends = [];
      }
    };
  };

  readonly snapshot = (): T => this.value;

  /** Begins to follow what the store shows; returns what ends it. */
  protected abstract start(): (() => void)[];

  protected get live(): boolean {
    return this.callbacks.size > 0;
  }

  protected change(part: Partial<T>): void {
    this.value = { ...this.value, ...part };
    if (!this.planned) {
      this.planned = true;
      setTimeout(() => {
        this.planned = false;
        this.callbacks.forEach(callback => callback());
      }, 30);
    }
  }
}

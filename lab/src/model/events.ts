/** The page's one WebSocket for live changes: who listens to which run, and how the connection is. */

import type { Artifact, Curves, Run } from './records';

export type Change =
  | { type: 'run'; data: Run }
  | { type: 'log'; data: { run: string; attempt: number; size: number } }
  | { type: 'metrics'; data: { run: string; points: Curves } }
  | { type: 'artifact'; data: { run: string; artifact: Artifact } }
  | { type: 'removed'; data: { run: string } }
  | { type: 'resync'; data: Record<string, never> };

export interface ServiceError {
  code: string;
  message: string;
  hint: string;
}

/**
 * How live the page is: `live`, or `connecting` before the first answer, `reconnecting` when the notebook server is away,
 * `service-down` when the server is there and the run service isn't.
 */
export interface Connection {
  state: 'connecting' | 'live' | 'reconnecting' | 'service-down';
  /** Milliseconds since 1970; when this state began. */
  since: number;
  error: ServiceError | null;
}

export type Listener = (change: Change) => void;

/** The part of a WebSocket that is used; tests give their own. */
export interface SocketLike {
  readyState: number;
  onopen: ((event: Event) => void) | null;
  onmessage: ((event: MessageEvent) => void) | null;
  onclose: ((event: CloseEvent) => void) | null;
  send(text: string): void;
  close(): void;
}

export interface EventsOptions {
  open: () => SocketLike;
  now?: () => number;
  random?: () => number;
}

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 20_000;
/** The server says something every 20 s; after this silence the connection is dead, whatever the browser believes. */
export const SILENCE_MS = 50_000;
/** The socket stays open this long after the last view is gone: a notebook re-renders its outputs often. */
export const LINGER_MS = 5_000;
const OPEN = 1;

export const EVERYTHING = '*';

/** Wait before try n (0, 1, 2 …): doubling, with jitter so that all pages don't come back at once. */
export function backOffMs(tries: number, random: number): number {
  return Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** tries) * (0.75 + random / 2);
}

export class Events {
  private readonly listeners = new Map<string, Set<Listener>>();
  private readonly watchers = new Set<() => void>();
  private socket: SocketLike | null = null;
  private tries = 0;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private silence: ReturnType<typeof setTimeout> | null = null;
  private linger: ReturnType<typeof setTimeout> | null = null;
  private state: Connection;
  private readonly now: () => number;
  private readonly random: () => number;

  constructor(private readonly options: EventsOptions) {
    this.now = options.now ?? Date.now;
    this.random = options.random ?? Math.random;
    this.state = { state: 'connecting', since: this.now(), error: null };
  }

  get connection(): Connection {
    return this.state;
  }

  /** Calls back when `connection` changes; returns its end. */
  watch(callback: () => void): () => void {
    this.watchers.add(callback);
    return () => this.watchers.delete(callback);
  }

  /** Calls back at each change of a connection that lives: what was missed meanwhile is read again. Returns its end. */
  whenLive(callback: () => void): () => void {
    return this.watch(() => {
      if (this.state.state === 'live') {
        callback();
      }
    });
  }

  /** Listens to one run, or to all with `EVERYTHING`; returns its end. */
  listen(subject: string, listener: Listener): () => void {
    const known = this.listeners.get(subject);
    if (known) {
      known.add(listener);
    } else {
      this.listeners.set(subject, new Set([listener]));
      this.send({ subscribe: subject });
    }
    this.ensureOpen();
    return () => this.forget(subject, listener);
  }

  /** Tries again now: the server's connection, and the service's behind it. */
  retry(): void {
    this.send({ retry: true });
    if (this.socket === null) {
      this.stopTimers();
      this.connect();
    }
  }

  dispose(): void {
    this.listeners.clear();
    this.close();
  }

  private forget(subject: string, listener: Listener): void {
    const known = this.listeners.get(subject);
    if (!known?.delete(listener) || known.size > 0) {
      return;
    }
    this.listeners.delete(subject);
    this.send({ unsubscribe: subject });
    if (this.listeners.size === 0 && this.linger === null) {
      this.linger = setTimeout(() => this.close(), LINGER_MS);
    }
  }

  private ensureOpen(): void {
    if (this.linger !== null) {
      clearTimeout(this.linger);
      this.linger = null;
    }
    if (this.socket === null && this.timer === null) {
      this.connect();
    }
  }

  private connect(): void {
    const socket = this.options.open();
    this.socket = socket;
    socket.onopen = () => {
      this.tries = 0;
      this.hear();
      for (const subject of this.listeners.keys()) {
        this.send({ subscribe: subject });
      }
    };
    socket.onmessage = event => {
      this.hear();
      this.take(String(event.data));
    };
    socket.onclose = () => {
      if (this.socket === socket) {
        this.lost();
      }
    };
  }

  private lost(): void {
    this.drop();
    this.become('reconnecting', null);
    this.timer = setTimeout(
      () => {
        this.timer = null;
        this.connect();
      },
      backOffMs(this.tries, this.random())
    );
    this.tries += 1;
  }

  private hear(): void {
    if (this.silence !== null) {
      clearTimeout(this.silence);
    }
    this.silence = setTimeout(() => this.lost(), SILENCE_MS);
  }

  private take(text: string): void {
    const message = JSON.parse(text) as Change | { type: 'service'; data: { up: boolean; error: ServiceError | null } };
    if (message.type === 'service') {
      this.become(message.data.up ? 'live' : 'service-down', message.data.error);
    } else if (message.type === 'resync') {
      this.everyone().forEach(listener => listener(message));
    } else {
      this.hearers(message).forEach(listener => listener(message));
    }
  }

  private hearers(message: Exclude<Change, { type: 'resync' }>): Set<Listener> {
    const id = message.type === 'run' ? message.data.id : message.data?.run;
    return new Set([...(this.listeners.get(id) ?? []), ...(this.listeners.get(EVERYTHING) ?? [])]);
  }

  private everyone(): Set<Listener> {
    return new Set([...this.listeners.values()].flatMap(some => [...some]));
  }

  private become(state: Connection['state'], error: ServiceError | null): void {
    if (this.state.state !== state || this.state.error?.code !== error?.code) {
      this.state = { state, since: this.now(), error };
      this.watchers.forEach(callback => callback());
    }
  }

  private send(message: object): void {
    if (this.socket?.readyState === OPEN) {
      this.socket.send(JSON.stringify(message));
    }
  }

  private close(): void {
    this.drop();
    this.tries = 0;
    this.become('connecting', null);
  }

  private drop(): void {
    this.stopTimers();
    const socket = this.socket;
    this.socket = null;
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
  }

  private stopTimers(): void {
    for (const timer of [this.timer, this.silence, this.linger]) {
      if (timer !== null) {
        clearTimeout(timer);
      }
    }
    this.timer = this.silence = this.linger = null;
  }
}

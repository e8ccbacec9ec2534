/** What the tests stand on: a server that answers from a table, and a socket whose other end the test holds. */

import { ServerConnection } from '@jupyterlab/services';

import { ActivityStore } from '../model/activity';
import { Api } from '../model/api';
import { Events, type SocketLike } from '../model/events';
import type { Artifact, Attempt, Run } from '../model/records';
import type { Host } from '../views/host';

export type Answers = Record<string, unknown>;

/** A failed answer, as the server extension gives it. */
export class Failure {
  constructor(
    readonly status: number,
    readonly code: string,
    readonly message: string,
    readonly detail: Record<string, unknown> = {}
  ) {}
}

const BASE = 'http://localhost/user/ann/';

/** A page over a server whose answers the test sets; `asked` are the requests that came, with their bodies. */
export class Page {
  readonly asked: { method: string; path: string; body: unknown }[] = [];
  readonly sockets: Socket[] = [];
  readonly api: Api;
  readonly events: Events;
  readonly activity: ActivityStore;
  /** Answer with no server at all. */
  away = false;

  constructor(readonly answers: Answers = {}) {
    const settings = ServerConnection.makeSettings({
      baseUrl: BASE,
      fetch: (request: unknown) => this.answer(request as Request)
    } as never);
    this.api = new Api(settings);
    this.events = new Events({
      open: () => {
        const socket = new Socket();
        this.sockets.push(socket);
        return socket;
      },
      random: () => 0.5
    });
    this.activity = new ActivityStore(this.api, this.events);
  }

  get host(): Host {
    return { api: this.api, events: this.events, activity: this.activity };
  }

  /** The newest socket; there is none before the first view asked for changes. */
  get socket(): Socket {
    return this.sockets[this.sockets.length - 1] as Socket;
  }

  /** Opens the socket, and tells that the service answers. */
  connect(): void {
    this.socket.open();
    this.tell('service', { up: true, since: '2026-11-24T10:00:00Z', error: null });
  }

  tell(type: string, data: unknown): void {
    this.socket.receive({ type, data });
  }

  private async answer(request: Request): Promise<Response> {
    if (this.away) {
      throw new TypeError('Failed to fetch');
    }
    const url = new URL(request.url);
    const query = [...url.searchParams].filter(([name, value]) => !(/^\d+$/.test(name) && value === ''));
    const search = query.map(pair => pair.join('=')).join('&');
    const path = url.pathname.slice('/user/ann/atelier/'.length) + (search ? `?${search}` : '');
    const text = await request.text();
    this.asked.push({ method: request.method, path, body: text ? JSON.parse(text) : null });
    const known =
      this.answers[`${request.method} ${path}`] ?? this.answers[path] ?? this.answers[path.split('?')[0] as string];
    const told = typeof known === 'function' ? known() : known;
    if (told instanceof Failure) {
      const error = { code: told.code, message: told.message, hint: '', detail: told.detail };
      return new Response(JSON.stringify({ error }), { status: told.status });
    }
    if (told === undefined) {
      return new Response(JSON.stringify({ error: { code: 'not_found', message: `no answer for ${path}` } }), {
        status: 404
      });
    }
    return new Response(JSON.stringify(told), { status: 200 });
  }
}

export class Socket implements SocketLike {
  readyState = 0;
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: MessageEvent) => void) | null = null;
  onclose: ((event: CloseEvent) => void) | null = null;
  readonly sent: unknown[] = [];

  open(): void {
    this.readyState = 1;
    this.onopen?.({} as Event);
  }

  receive(message: unknown): void {
    this.onmessage?.({ data: JSON.stringify(message) } as MessageEvent);
  }

  /** Ends as when the server goes away. */
  lose(): void {
    this.readyState = 3;
    this.onclose?.({} as CloseEvent);
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  close(): void {
    this.readyState = 3;
  }
}

export function makeRun(part: Partial<Run> = {}): Run {
  return {
    id: 'r-aaaaaaaaaa',
    owner: 'ann',
    name: 'digits',
    spec: {
      work: { kind: 'notebook', target: 'train.ipynb', folder: '.' },
      params: { epochs: 5 },
      retries: 0,
      timeout_s: null
    },
    state: 'running',
    desired: 'finished',
    reason: null,
    message: 'The run is going.',
    hint: '',
    image: 'pytorch',
    machine: 'cpu-small',
    queue_position: null,
    progress: null,
    attempts: [],
    environment: null,
    source: { git_revision: null, git_dirty: false, root: null, files: 1, size_bytes: 10, warnings: [] },
    metrics: {},
    artifacts: 0,
    warnings: [],
    created_at: '2026-11-24T10:00:00.000Z',
    queued_at: '2026-11-24T10:00:00.000Z',
    started_at: '2026-11-24T10:00:01.000Z',
    ended_at: null,
    epoch: 3,
    ...part
  };
}

export function makeAttempt(part: Partial<Attempt> = {}): Attempt {
  return {
    n: 1,
    state: 'running',
    reason: null,
    message: null,
    exit_code: null,
    error: null,
    created_at: '2026-11-24T10:00:00.000Z',
    started_at: '2026-11-24T10:00:01.000Z',
    ended_at: null,
    last_seen_at: null,
    log_size_bytes: 0,
    usage: {},
    ...part
  };
}

export function makeArtifact(path: string, part: Partial<Artifact> = {}): Artifact {
  return {
    path,
    size_bytes: 2048,
    sha256: 'a'.repeat(64),
    kind: 'written',
    attempt: 1,
    created_at: '2026-11-24T10:00:09.000Z',
    ...part
  };
}

/** Answers for everything that a view of the run reads. */
export function answersFor(run: Run, more: Answers = {}): Answers {
  return {
    [`api/v1/runs/${run.id}`]: run,
    [`api/v1/runs/${run.id}/metrics`]: { names: {} },
    [`api/v1/runs/${run.id}/artifacts`]: { items: [], next: null },
    [`api/v1/models?run=${run.id}`]: { items: [], next: null },
    [`api/v1/runs/${run.id}/log`]: { attempt: 1, offset: 0, next: 0, size: 0, text: '', end: false },
    ...more
  };
}

/** Names that come out of a notebook or a message, checked before they become part of an address. */

const RUN_ID = /^r-[a-z2-7]{10}$/;
const MODEL_NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$/;
const STATE = /^(?:created|queued|starting|running|succeeded|failed|cancelled|timed_out|lost)$/;
const LIST_LIMIT = 500;

export function isRunId(told: unknown): told is string {
  return typeof told === 'string' && RUN_ID.test(told);
}

/** A run that a MIME bundle names, or null when what it says is no run id. */
export function readRunTarget(data: unknown): { id: string } | null {
  const id = field(data, 'id');
  return isRunId(id) ? { id } : null;
}

export interface RunsTarget {
  /** null: all runs of the caller. */
  ids: string[] | null;
  state: string | null;
}

export function readRunsTarget(data: unknown): RunsTarget | null {
  const ids = field(data, 'ids') ?? null;
  const state = field(data, 'state') ?? null;
  if (state !== null && !(typeof state === 'string' && STATE.test(state))) {
    return null;
  }
  if (ids === null) {
    return { ids, state };
  }
  return Array.isArray(ids) && ids.length <= LIST_LIMIT && ids.every(isRunId) ? { ids, state } : null;
}

export interface ModelTarget {
  name: string;
  /** null: the newest. */
  version: number | null;
}

export function readModelTarget(data: unknown): ModelTarget | null {
  const name = field(data, 'name');
  const version = field(data, 'version') ?? null;
  if (typeof name !== 'string' || !MODEL_NAME.test(name) || name.includes('..')) {
    return null;
  }
  if (version !== null && !(Number.isSafeInteger(version) && (version as number) > 0)) {
    return null;
  }
  return { name, version: version as number | null };
}

/** The address part of an artifact's path, or null when the path could lead out of its run. */
export function artifactAddress(path: string): string | null {
  const parts = path.split('/');
  if (parts.some(part => part === '' || part === '.' || part === '..' || /[\\\0]/.test(part))) {
    return null;
  }
  return parts.map(encodeURIComponent).join('/');
}

function field(data: unknown, name: string): unknown {
  return typeof data === 'object' && data !== null ? (data as Record<string, unknown>)[name] : undefined;
}

/** What a running cell asks. */
export interface Question {
  id: string;
  prompt: string;
  password: boolean;
}

export function readQuestion(data: unknown): Question | null {
  const told = typeof data === 'object' && data !== null ? (data as Partial<Question>) : {};
  return typeof told.id === 'string' && /^[\w-]+$/.test(told.id)
    ? { id: told.id, prompt: typeof told.prompt === 'string' ? told.prompt : '', password: told.password === true }
    : null;
}

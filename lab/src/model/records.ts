/** What the run service tells, as JSON. */

export type RunState =
  'created' | 'queued' | 'starting' | 'running' | 'succeeded' | 'failed' | 'cancelled' | 'timed_out' | 'lost';

export type AttemptState = RunState | 'preempted';

export interface Progress {
  done: number;
  total: number | null;
  /** What is counted; null is what the code counts. */
  unit: 'cells' | null;
  left_s: number | null;
  at: string;
}

export interface ErrorReport {
  kind: string;
  message: string;
  traceback: string;
  cell: number | null;
  file: string | null;
  line: number | null;
}

export interface Attempt {
  n: number;
  state: AttemptState;
  reason: string | null;
  message: string | null;
  exit_code: number | null;
  error: ErrorReport | null;
  created_at: string;
  started_at: string | null;
  ended_at: string | null;
  last_seen_at: string | null;
  log_size_bytes: number;
  usage: Record<string, number>;
}

export interface RunSpec {
  work: { kind: 'notebook' | 'script' | 'module' | 'function'; target: string; folder: string };
  params: Record<string, unknown>;
  retries: number;
  timeout_s: number | null;
}

export interface Run {
  id: string;
  owner: string;
  name: string;
  spec: RunSpec;
  state: RunState;
  desired: 'finished' | 'cancelled';
  reason: string | null;
  message: string;
  hint: string;
  image: string;
  machine: string;
  /** What the machine has. */
  memory_bytes?: number | null;
  queue_position: number | null;
  /** Among the runs of its owner. */
  priority?: number;
  /** Kept whatever is cleaned up. */
  pinned?: boolean;
  /** When a waiting run may be tried again. */
  not_before?: string | null;
  /** Step of the newest checkpoint, which another attempt goes on from. */
  checkpoint_step?: number | null;
  progress: Progress | null;
  attempts: Attempt[];
  environment: { image: string; python: string; lock_sha256: string } | null;
  source: {
    git_revision: string | null;
    git_dirty: boolean;
    root: string | null;
    files: number;
    size_bytes: number;
    warnings: string[];
  };
  metrics: Record<string, number | null>;
  artifacts: number;
  warnings: string[];
  created_at: string;
  queued_at: string | null;
  started_at: string | null;
  ended_at: string | null;
  epoch: number;
}

/** `[step, value, time]`: step null when none was given, value null when it is not finite, time in seconds since 1970. */
export type Point = [number | null, number | null, number];
export type Curves = Record<string, Point[]>;

export interface Artifact {
  path: string;
  size_bytes: number;
  sha256: string;
  kind: 'saved' | 'written' | 'model' | 'checkpoint' | 'notebook';
  attempt: number;
  created_at: string;
}

export interface LogPart {
  attempt: number;
  offset: number;
  next: number;
  size: number;
  text: string;
  end: boolean;
}

export interface ModelVersion {
  name: string;
  version: number;
  owner: string;
  run: string | null;
  aliases: string[];
  card: Record<string, unknown>;
  files: { path: string; size_bytes: number; sha256: string }[];
  size_bytes: number;
  created_at: string;
}

export interface Page<T> {
  items: T[];
  next: string | null;
}

export const FINAL_STATES: ReadonlySet<RunState> = new Set<RunState>([
  'succeeded',
  'failed',
  'cancelled',
  'timed_out',
  'lost'
]);

/**
 * The newer of two records of a run, the second when they are of the same moment. Signs of life change progress and use of
 * the machine within an epoch, and records come on two ways: what is asked for may be older than what was told meanwhile.
 */
export function newer(one: Run, other: Run): Run {
  const ages = [other.epoch - one.epoch, seenAt(other) - seenAt(one), toldAt(other) - toldAt(one)];
  return (ages.find(age => age !== 0) ?? 0) < 0 ? one : other;
}

function seenAt(run: Run): number {
  return Math.max(0, ...run.attempts.map(one => (one.last_seen_at === null ? 0 : Date.parse(one.last_seen_at))));
}

function toldAt(run: Run): number {
  return run.progress === null ? 0 : Date.parse(run.progress.at) || 0;
}

export function isFinal(run: { state: RunState }): boolean {
  return FINAL_STATES.has(run.state);
}

/** The card of a model package, read tolerantly: what is not as expected is left out, never guessed. */

export interface BatchParity {
  batch: number;
  dims: string;
  maxAbs: number | string | null;
  maxRel: number | string | null;
  labelsEqual: number | null;
  within: boolean | null;
}

export interface Latency {
  source: number;
  exported: number;
  batch: number;
}

export interface FormatReport {
  name: string;
  sizeBytes: number | null;
  files: string[];
  batches: BatchParity[];
  latencies: Latency[];
  tolerance: { abs: number; rel: number } | null;
  equal: boolean | null;
}

export interface Tensor {
  name: string;
  dtype: string;
  shape: (number | string)[];
}

export interface Card {
  framework: string;
  formats: FormatReport[];
  inputs: Tensor[];
  outputs: Tensor[];
  labels: string[];
  metrics: [string, number][];
  revision: string | null;
}

type Fields = Record<string, unknown>;

export function readCard(card: unknown): Card {
  const told = fields(card);
  const signature = fields(told['signature']);
  const lineage = fields(told['lineage']);
  const versions = Object.entries(fields(told['frameworks'])).map(([name, version]) => `${name} ${String(version)}`);
  return {
    framework: versions.join(', ') || text(told['framework']) || '',
    formats: Object.entries(fields(told['formats'])).map(([name, report]) => readFormat(name, fields(report))),
    inputs: list(signature['inputs']).map(readTensor),
    outputs: list(signature['outputs']).map(readTensor),
    labels: list(told['labels']).map(String),
    metrics: Object.entries(fields(told['metrics'])).filter(
      (pair): pair is [string, number] => typeof pair[1] === 'number'
    ),
    revision: text(lineage['git_revision'])
  };
}

function readFormat(name: string, report: Fields): FormatReport {
  const latencies = [readLatency(report['latency_ms']), readLatency(report['latency_large_ms'])];
  const tolerance = fields(report['tolerance']);
  const [abs, rel] = [number(tolerance['abs']), number(tolerance['rel'])];
  return {
    name,
    sizeBytes: number(report['size_bytes']),
    files: list(report['files']).map(String),
    batches: list(report['batches']).map(readBatch),
    latencies: latencies.filter((one): one is Latency => one !== null),
    tolerance: abs === null || rel === null ? null : { abs, rel },
    equal: report['verdict'] === 'equal' ? true : report['verdict'] === 'different' ? false : null
  };
}

function readBatch(told: unknown): BatchParity {
  const row = fields(told);
  const dims = Object.entries(fields(row['dims'])).filter(([name]) => name !== 'batch');
  return {
    batch: number(row['batch']) ?? 0,
    dims: dims.map(([name, size]) => `${name} ${String(size)}`).join(', '),
    maxAbs: difference(row['max_abs']),
    maxRel: difference(row['max_rel']),
    labelsEqual: number(row['labels_equal']),
    within: typeof row['within'] === 'boolean' ? row['within'] : null
  };
}

function readLatency(told: unknown): Latency | null {
  const row = fields(told);
  const [source, exported] = [number(row['source']), number(row['exported'])];
  return source === null || exported === null ? null : { source, exported, batch: number(row['batch']) ?? 1 };
}

function readTensor(told: unknown): Tensor {
  const tensor = fields(told);
  const shape = list(tensor['shape']).map(part => (typeof part === 'number' ? part : String(part)));
  return { name: text(tensor['name']) ?? '', dtype: text(tensor['dtype']) ?? '', shape };
}

function difference(told: unknown): number | string | null {
  return typeof told === 'number' || typeof told === 'string' ? told : null;
}

function fields(told: unknown): Fields {
  return typeof told === 'object' && told !== null && !Array.isArray(told) ? (told as Fields) : {};
}

function list(told: unknown): unknown[] {
  return Array.isArray(told) ? told : [];
}

function number(told: unknown): number | null {
  return typeof told === 'number' && Number.isFinite(told) ? told : null;
}

function text(told: unknown): string | null {
  return typeof told === 'string' && told !== '' ? told : null;
}

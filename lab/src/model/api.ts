/** Requests to the server extension, which answers them itself or asks the run service. */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import { artifactAddress } from './ids';
import type { Artifact, Curves, LogPart, ModelVersion, Page, Run } from './records';

/** What went wrong, in words for the user. `status` 0: no answer at all. */
export class ApiError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly hint: string,
    readonly status: number,
    readonly detail: Record<string, unknown> = {}
  ) {
    super(message);
  }

  /** Whether asking again later may help. */
  get passing(): boolean {
    return this.status === 0 || this.status >= 502;
  }
}

export interface Written {
  path: string;
  size_bytes: number;
}

export interface CopyOrder {
  run: string;
  artifact: string | null;
  beside?: string;
  name?: string;
  replace?: boolean;
}

/** Where a waiting run may be moved to. */
export type Place = 'first' | 'last' | { before: string };

export class Api {
  constructor(private readonly settings: ServerConnection.ISettings) {}

  /** A page of runs, newest first; of any state when `states` is empty. */
  runs(query: { states: string[]; limit: number; page?: string | null }): Promise<Page<Run>> {
    return this.get('api/v1/runs', { state: query.states, limit: String(query.limit), page: query.page });
  }

  run(id: string): Promise<Run> {
    return this.get(`api/v1/runs/${id}`);
  }

  async curves(id: string): Promise<Curves> {
    const told = await this.get<{ names: Record<string, { points: Curves[string] }> }>(`api/v1/runs/${id}/metrics`);
    return Object.fromEntries(Object.entries(told.names).map(([name, curve]) => [name, curve.points]));
  }

  log(id: string, query: { offset: number; limit: number; attempt?: number }): Promise<LogPart> {
    return this.get(`api/v1/runs/${id}/log`, {
      offset: String(query.offset),
      limit: String(query.limit),
      attempt: query.attempt === undefined ? null : String(query.attempt)
    });
  }

  async artifacts(id: string): Promise<Artifact[]> {
    return (await this.get<Page<Artifact>>(`api/v1/runs/${id}/artifacts`)).items;
  }

  cancel(id: string): Promise<Run> {
    return this.send('POST', `api/v1/runs/${id}/cancel`, { now: false });
  }

  /** Gives a waiting run another place among the caller's own. */
  move(id: string, to: Place): Promise<Run> {
    return this.send('POST', `api/v1/runs/${id}/move`, { to });
  }

  /** Keeps a run whatever is cleaned up, or no longer. */
  pin(id: string, pinned: boolean): Promise<Run> {
    return this.send(pinned ? 'PUT' : 'DELETE', `api/v1/runs/${id}/pin`, null);
  }

  remove(id: string): Promise<void> {
    return this.send('DELETE', `api/v1/runs/${id}`, null);
  }

  async model(name: string, version: number | null): Promise<ModelVersion> {
    const path = `api/v1/models/${encodeURIComponent(name)}`;
    if (version !== null) {
      return this.get(`${path}/versions/${version}`);
    }
    const versions = await this.get<Page<ModelVersion>>(path);
    if (versions.items[0] === undefined) {
      throw new ApiError('no_such_model', `There is no model ${name}.`, '', 404);
    }
    return versions.items[0];
  }

  /** The versions of models that a run has made. */
  async modelsOf(run: string): Promise<ModelVersion[]> {
    return (await this.get<Page<ModelVersion>>('api/v1/models', { run })).items;
  }

  /** Submits a file; with `sources`, the texts of all cells of a notebook, when the file has them. */
  submit(path: string, sources: string[] | null): Promise<Run> {
    return this.send('POST', 'submit', sources === null ? { path } : { path, sources });
  }

  /** Answers what a running cell asks. */
  answer(question: string, value: string): Promise<void> {
    return this.send('POST', `questions/${encodeURIComponent(question)}`, { value });
  }

  copyBack(order: CopyOrder): Promise<Written> {
    return this.send('POST', 'copy-back', order);
  }

  /** Address of a download, or null when the artifact's path can't be one. */
  artifactUrl(id: string, path: string): string | null {
    const address = artifactAddress(path);
    return address === null ? null : this.url(`api/v1/runs/${id}/artifacts/${address}`);
  }

  notebookUrl(id: string): string {
    return this.url(`api/v1/runs/${id}/notebook`);
  }

  archiveUrl(name: string, version: number): string {
    return this.url(`api/v1/models/${encodeURIComponent(name)}/versions/${version}/archive`);
  }

  async bytes(url: string): Promise<Blob> {
    return (await this.fetch(url, { method: 'GET' })).blob();
  }

  private url(path: string): string {
    return URLExt.join(this.settings.baseUrl, 'atelier', path);
  }

  private get<T>(path: string, query: Record<string, string | string[] | null | undefined> = {}): Promise<T> {
    const given = Object.entries(query).flatMap(([name, value]) => [value ?? []].flat().map(one => [name, one]));
    const search = new URLSearchParams(given).toString();
    return this.json<T>(this.url(path) + (search ? `?${search}` : ''), { method: 'GET' });
  }

  private send<T>(method: string, path: string, body: unknown): Promise<T> {
    const init: RequestInit = { method };
    if (body !== null) {
      init.body = JSON.stringify(body);
      init.headers = { 'Content-Type': 'application/json' };
    }
    return this.json<T>(this.url(path), init);
  }

  private async json<T>(url: string, init: RequestInit): Promise<T> {
    const response = await this.fetch(url, init);
    return (response.status === 204 ? undefined : await response.json()) as T;
  }

  private async fetch(url: string, init: RequestInit): Promise<Response> {
    let response: Response;
    try {
      response = await ServerConnection.makeRequest(url, init, this.settings);
    } catch (problem) {
      throw new ApiError('no_connection', 'The notebook server does not answer.', String(problem), 0);
    }
    if (!response.ok) {
      throw await readError(response);
    }
    return response;
  }
}

async function readError(response: Response): Promise<ApiError> {
  let told: Partial<{ code: string; message: string; hint: string; detail: Record<string, unknown> }> = {};
  try {
    told = (await response.json()).error ?? {};
  } catch {
    told = {}; // a proxy's own page, say
  }
  const message = told.message || `The server answered with status ${response.status}.`;
  return new ApiError(told.code ?? 'http_error', message, told.hint ?? '', response.status, told.detail ?? {});
}

export function asApiError(problem: unknown): ApiError {
  return problem instanceof ApiError ? problem : new ApiError('unexpected', String(problem), '', -1);
}

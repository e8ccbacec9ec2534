/** The files that a run left: download, or copy back beside the notebook. */

import { useState } from 'react';

import { asApiError, type ApiError } from '../model/api';
import type { Artifact, Run } from '../model/records';
import { bytesText, momentText } from '../model/texts';
import { useHost } from './host';
import { Button, DownloadLink, Empty, Loading } from './parts';

const KINDS: Record<Artifact['kind'], string> = {
  saved: 'Saved by the code',
  written: 'Written in the working folder',
  model: 'Model packages',
  checkpoint: 'Checkpoints',
  notebook: 'Notebooks'
};

export function Files(props: { run: Run; artifacts: Artifact[] | null; live: boolean }): JSX.Element {
  if (props.artifacts === null) {
    return <Loading what="the files" />;
  }
  if (props.artifacts.length === 0) {
    return (
      <Empty title={props.live ? 'No files yet' : 'This run left no files'}>
        Files that the code writes in its working folder are kept here when the run ends.
      </Empty>
    );
  }
  const kinds = (Object.keys(KINDS) as Artifact['kind'][]).filter(kind =>
    props.artifacts?.some(one => one.kind === kind)
  );
  return (
    <div role="group" className="at-files" aria-label="Files">
      {kinds.map(kind => (
        <div key={kind}>
          <h4 className="at-group-title">{KINDS[kind]}</h4>
          <ul className="at-file-list">
            {(props.artifacts ?? [])
              .filter(one => one.kind === kind)
              .sort((a, b) => a.path.localeCompare(b.path))
              .map(one => (
                <FileRow key={one.path} run={props.run} artifact={one} />
              ))}
          </ul>
        </div>
      ))}
    </div>
  );
}

function FileRow(props: { run: Run; artifact: Artifact }): JSX.Element {
  const { api } = useHost();
  const { artifact, run } = props;
  const url = api.artifactUrl(run.id, artifact.path);
  const cut = artifact.path.lastIndexOf('/') + 1;
  return (
    <li className="at-file">
      <span className="at-file-name" title={artifact.path}>
        <span className="at-quiet">{artifact.path.slice(0, cut)}</span>
        {artifact.path.slice(cut)}
      </span>
      <span className="at-file-size at-quiet">{bytesText(artifact.size_bytes)}</span>
      <span className="at-file-time at-quiet">{momentText(artifact.created_at, Date.now())}</span>
      <span className="at-file-actions">
        {url && <DownloadLink href={url} name={artifact.path.slice(cut)} label={`Download ${artifact.path}`} />}
        <CopyBack run={run.id} artifact={artifact.path} />
      </span>
    </li>
  );
}

type CopyState =
  | { step: 'idle' }
  | { step: 'busy' }
  | { step: 'exists'; free: string; path: string | null }
  | { step: 'done'; path: string }
  | { step: 'failed'; error: ApiError };

/** Copies a file of the run (null: its executed notebook) beside the notebook, and never over another one unasked. */
export function CopyBack(props: { run: string; artifact: string | null; whole?: boolean }): JSX.Element {
  const { api, beside, openFile } = useHost();
  const [state, setState] = useState<CopyState>({ step: 'idle' });
  const copy = async (more: { name?: string; replace?: boolean } = {}): Promise<void> => {
    setState({ step: 'busy' });
    try {
      const order = { run: props.run, artifact: props.artifact, ...more, ...(beside ? { beside } : {}) };
      const { path } = await api.copyBack(order);
      if (props.artifact === null && openFile) {
        openFile(path);
        setState({ step: 'idle' });
      } else {
        setState({ step: 'done', path });
      }
    } catch (problem) {
      const error = asApiError(problem);
      const { free, path } = error.detail;
      setState(
        error.code === 'file_exists' && typeof free === 'string'
          ? { step: 'exists', free, path: typeof path === 'string' ? path : null }
          : { step: 'failed', error }
      );
    }
  };
  if (state.step === 'exists') {
    const { path } = state;
    return (
      <span className="at-asking" role="group" aria-label="A file of that name is there already">
        <span>Already there.</span>
        {openFile && path !== null && (
          <Button
            onClick={() => {
              openFile(path);
              setState({ step: 'idle' });
            }}
          >
            Open it
          </Button>
        )}
        <Button onClick={() => void copy({ name: state.free })}>Keep both</Button>
        <Button kind="danger" onClick={() => void copy({ replace: true })}>
          Replace
        </Button>
        <Button kind="bare" onClick={() => setState({ step: 'idle' })}>
          Leave
        </Button>
      </span>
    );
  }
  if (state.step === 'done') {
    return (
      <span className="at-done" role="status" title={state.path}>
        Copied
        {openFile && (
          <Button kind="bare" label={`Open ${state.path}`} onClick={() => openFile(state.path)}>
            Open
          </Button>
        )}
      </span>
    );
  }
  const label =
    props.artifact === null
      ? 'Open a copy of the executed notebook'
      : `Copy ${props.artifact} back beside the notebook`;
  return (
    <>
      {state.step === 'failed' && (
        <span className="at-trouble" role="alert" title={state.error.hint}>
          {state.error.message}
        </span>
      )}
      <Button
        icon={props.artifact === null ? 'notebook' : 'beside'}
        label={label}
        disabled={state.step === 'busy'}
        onClick={() => void copy()}
      >
        {props.whole ? (
          <>
            <span className="at-wide-only">Executed notebook</span>
            <span className="at-narrow-only">Notebook</span>
          </>
        ) : (
          <span className="at-wide-only">Copy back</span>
        )}
      </Button>
    </>
  );
}

/** One run, live: state in words, progress, curves, log, files, what went wrong. */

import { useId, useState, type KeyboardEvent } from 'react';

import { checkpointText, isExplained } from '../model/evidence';
import { isFinal, type Run } from '../model/records';
import { RunStore, type RunData } from '../model/runstore';
import {
  fullMomentText,
  lastedText,
  leftText,
  momentText,
  progressPercent,
  progressText,
  runStateText,
  stateText,
  stoppedText
} from '../model/texts';
import { Curves } from './Curves';
import { Details } from './Details';
import { CopyBack, Files } from './Files';
import { LogPane } from './LogPane';
import { ModelView } from './ModelView';
import { PinButton } from './ActingButton';
import { Warnings, Why } from './Why';
import { useHost, useNow, useStore } from './host';
import { AskingButton, ConnectionNotice, CopyId, ErrorNotice, Loading, Notice, Pinned, StateIcon } from './parts';

export interface RunViewProps {
  id: string;
  known?: Run | null;
  onRemoved?: () => void;
}

export function RunView(props: RunViewProps): JSX.Element {
  const { api, events } = useHost();
  const [store, data] = useStore<RunData, RunStore>(
    props.id,
    () => new RunStore(props.id, api, events, props.known ?? null)
  );
  const { run, error } = data;
  if (data.removed) {
    return <Notice tone="info" title={`The run ${props.id} was removed.`} />;
  }
  return (
    <article
      className="at-run"
      aria-label={run ? `Run ${run.name}` : `Run ${props.id}`}
      data-testid="atelier-run"
      data-run={props.id}
    >
      <ConnectionNotice heardAt={data.heardAt} />
      {error && <RunError id={props.id} data={data} retry={() => void store.refresh()} />}
      {!run && !error && <Loading what={`run ${props.id}`} />}
      {run && (
        <Known run={run} data={data} store={store} {...(props.onRemoved ? { onRemoved: props.onRemoved } : {})} />
      )}
    </article>
  );
}

function RunError(props: { id: string; data: RunData; retry: () => void }): JSX.Element | null {
  const { error } = props.data;
  if (error?.status === 404) {
    return (
      <Notice tone="warn" title={`There is no run ${props.id} for you.`}>
        It was removed, or it belongs to somebody else, or to another service.
      </Notice>
    );
  }
  return error && <ErrorNotice error={error} onRetry={props.retry} />;
}

interface KnownProps {
  run: Run;
  data: RunData;
  store: RunStore;
  onRemoved?: () => void;
}

function Known(props: KnownProps): JSX.Element {
  const { run, data, store } = props;
  const live = !isFinal(run);
  const now = useNow(live);
  const panes: Pane[] = [
    { key: 'live', title: 'Metrics, log', body: <Live run={run} data={data} live={live} /> },
    {
      key: 'files',
      title: `Files${countText(data, run)}`,
      body: <Files run={run} artifacts={data.artifacts} live={live} />
    },
    ...data.models.map(model => ({
      key: `model ${model.name} ${model.version}`,
      title: data.models.length === 1 ? 'Model' : `Model ${model.name}`,
      body: <ModelView target={{ name: model.name, version: model.version }} />
    })),
    { key: 'details', title: 'Details', body: <Details run={run} now={now} /> }
  ];
  return (
    <>
      <Head {...props} now={now} live={live} />
      {isExplained(run) && <Why run={run} now={now} tryNow={() => store.tryNow()} />}
      <Warnings run={run} />
      {live && <ProgressLine run={run} now={now} />}
      <Tabs panes={panes} first={run.started_at === null ? 'details' : 'live'} />
    </>
  );
}

/** What the service says of a run that is well, unless the state's word says it. */
function plainWords(run: Run): string {
  const words = [runStateText(run), stateText(run.state)].map(word => `${word}.`);
  return [words.includes(run.message) ? '' : run.message, run.hint].filter(Boolean).join(' ');
}

function Head(props: KnownProps & { now: number; live: boolean }): JSX.Element {
  const { run, data, store, live, now } = props;
  const words = isExplained(run) ? '' : plainWords(run);
  return (
    <header className="at-head">
      <div className="at-head-row">
        <StateIcon state={run.state} />
        <h3 className="at-title">
          <span className="at-title-state" data-testid="atelier-run-state">
            {runStateText(run)}
          </span>
          <span className="at-title-name" title={run.name}>
            {run.name}
          </span>
        </h3>
        <div className="at-head-actions">
          {data.artifacts?.some(one => one.kind === 'notebook') && <CopyBack run={run.id} artifact={null} whole />}
          <PinButton pinned={run.pinned ?? false} pin={pinned => store.pin(pinned)} />
          {live && run.desired !== 'cancelled' && (
            <AskingButton question="Stop this run?" yes="Cancel run" no="Keep it" act={() => store.cancel()}>
              Cancel
            </AskingButton>
          )}
          {!live && props.onRemoved && (
            <AskingButton
              question="Delete its record, log and files?"
              yes="Delete"
              no="Keep"
              act={() => store.remove().then(props.onRemoved)}
            >
              Delete
            </AskingButton>
          )}
        </div>
      </div>
      <div className="at-meta">
        <CopyId id={run.id} />
        <span>{run.image}</span>
        <span>{run.machine}</span>
        <span title={fullMomentText(run.started_at ?? run.created_at)}>
          {momentText(run.started_at ?? run.created_at, now)}
        </span>
        {run.started_at && run.state !== 'queued' && <span>{lastedText(run, now)}</span>}
        {stoppedText(run) && <span>{stoppedText(run)}</span>}
        {run.attempts.length > 1 && <span>{attemptText(run)}</span>}
        {run.pinned && <Pinned />}
        {live && !isExplained(run) && checkpointText(run) && <span>{checkpointText(run)}</span>}
      </div>
      {words && <p className="at-message">{words}</p>}
    </header>
  );
}

function ProgressLine(props: { run: Run; now: number }): JSX.Element | null {
  const { progress, state, name } = props.run;
  if (state !== 'running' && state !== 'starting') {
    return null;
  }
  const percent = progressPercent(progress);
  const text = progress === null ? 'No progress told yet' : progressText(progress);
  return (
    <div className="at-progress">
      <div
        className={`at-bar${percent === null ? ' at-bar-unknown' : ''}`}
        role="progressbar"
        aria-label={`Progress of ${name}`}
        aria-valuemin={0}
        aria-valuemax={100}
        {...(percent === null ? {} : { 'aria-valuenow': percent })}
        aria-valuetext={`${text}, ${leftText(progress, props.now)}`}
      >
        <i style={percent === null ? {} : { width: `${percent}%` }} />
      </div>
      <div className="at-progress-text">
        <span>
          {percent !== null && <b>{percent} %</b>} {text}
        </span>
        <span>{leftText(progress, props.now)}</span>
      </div>
    </div>
  );
}

function Live(props: { run: Run; data: RunData; live: boolean }): JSX.Element {
  const { run, data, live } = props;
  if (run.started_at === null) {
    return (
      <p className="at-quiet at-pad">
        {live ? 'Metrics and log appear here when the run starts.' : 'The run never started.'}
      </p>
    );
  }
  return (
    <div className="at-live">
      {data.curves === null ? <Loading what="the metrics" /> : <Curves curves={data.curves} live={live} />}
      <LogPane id={run.id} attempts={run.attempts} live={live} />
    </div>
  );
}

interface Pane {
  key: string;
  title: string;
  body: JSX.Element;
}

/** `first` is shown until the user picks a pane. */
function Tabs(props: { panes: Pane[]; first: string }): JSX.Element {
  const [picked, setPicked] = useState<string | undefined>(undefined);
  const base = useId();
  const at = Math.max(
    0,
    props.panes.findIndex(pane => pane.key === (picked ?? props.first))
  );
  const key = (event: KeyboardEvent<HTMLDivElement>): void => {
    const last = props.panes.length - 1;
    const next = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last }[
      event.key
    ];
    if (next !== undefined) {
      event.preventDefault();
      setPicked(props.panes[next]?.key);
      (event.currentTarget.children[next] as HTMLElement).focus();
    }
  };
  return (
    <div className="at-tabs">
      <div role="tablist" aria-label="Parts of the run" className="at-tablist" onKeyDown={key}>
        {props.panes.map((pane, index) => (
          <button
            type="button"
            key={pane.key}
            role="tab"
            id={`${base}${pane.key}`}
            className="at-tab"
            title={pane.title}
            aria-selected={index === at}
            aria-controls={`${base}pane`}
            tabIndex={index === at ? 0 : -1}
            onClick={() => setPicked(pane.key)}
          >
            {pane.title}
          </button>
        ))}
      </div>
      <div role="tabpanel" id={`${base}pane`} className="at-pane" aria-labelledby={`${base}${props.panes[at]?.key}`}>
        {props.panes[at]?.body}
      </div>
    </div>
  );
}

function countText(data: RunData, run: Run): string {
  const count = data.artifacts?.length ?? run.artifacts;
  return count > 0 ? ` ${count}` : '';
}

function attemptText(run: Run): string {
  const last = run.attempts[run.attempts.length - 1];
  const free = run.attempts.filter(one => one.state === 'preempted').length; // those that gave way cost no retry
  return `attempt ${last?.n ?? run.attempts.length} of ${Math.max(run.spec.retries + 1 + free, run.attempts.length)}`;
}

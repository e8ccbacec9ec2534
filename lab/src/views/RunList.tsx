/** The runs of a user: state, name, when, how long, the metric that says most; a click opens one. */

import { Fragment, useState } from 'react';

import { placeText } from '../model/evidence';
import type { RunsTarget } from '../model/ids';
import { ListStore, type ListData } from '../model/liststore';
import { arrange, queueOf } from '../model/queue';
import { isFinal, type Run } from '../model/records';
import {
  fullMomentText,
  headlineMetric,
  lastedText,
  momentText,
  numberText,
  progressPercent,
  runStateText,
  STATE_CHOICES,
  stateText
} from '../model/texts';
import { RowMenu } from './RowMenu';
import { RunView } from './RunView';
import { useActivity, useHost, useNow, useStore } from './host';
import { Button, ConnectionNotice, Empty, ErrorNotice, Loading, Pinned, StateIcon } from './parts';

export interface RunListProps {
  target: RunsTarget;
  /** Opens a run elsewhere; without it a run opens below its row. */
  onOpen?: (run: Run) => void;
}

export function RunList(props: RunListProps): JSX.Element {
  const { api, events } = useHost();
  const [store, data] = useStore<ListData, ListStore>(
    JSON.stringify(props.target),
    () => new ListStore(props.target, api, events)
  );
  const queue = queueOf(useActivity().unfinished.values());
  const [opened, setOpened] = useState<string | null>(null);
  const [words, setWords] = useState('');
  const place = { state: data.state, isFirstPage: data.trail.length === 1, isOfAll: props.target.ids === null };
  const { waiting, others, more } = arrange(data.runs ?? [], queue, place);
  const now = useNow([...waiting, ...others].some(run => !isFinal(run)));
  const hasPages = (data.next !== null || data.trail.length > 1) && !(place.isOfAll && data.state === 'queued');
  const isEmpty = waiting.length + others.length === 0;
  const open = (run: Run): void => {
    if (props.onOpen) {
      props.onOpen(run);
    } else {
      setOpened(opened === run.id ? null : run.id);
    }
  };
  const rowOf = (run: Run): JSX.Element => (
    <Fragment key={run.id}>
      <Row
        run={run}
        now={now}
        opened={opened === run.id}
        inPlace={!props.onOpen}
        open={() => open(run)}
        menu={<RowMenu run={run} queue={queue} say={setWords} />}
      />
      {opened === run.id && (
        <tr className="at-opened">
          <td colSpan={COLUMNS}>
            <RunView id={run.id} known={run} onRemoved={() => setOpened(null)} />
          </td>
        </tr>
      )}
    </Fragment>
  );
  return (
    <div role="group" className="at-list" aria-label="Runs" data-testid="atelier-runs">
      <ListHead store={store} data={data} />
      <ConnectionNotice heardAt={null} />
      {data.error && <ErrorNotice error={data.error} onRetry={() => void store.refresh()} />}
      {data.runs === null && !data.error && <Loading what="the runs" />}
      {data.runs !== null && isEmpty && <NoRuns state={data.state} all={() => store.filter(null)} />}
      {!isEmpty && (
        <table className="at-table at-runs-table">
          <Columns />
          {waiting.length > 0 && (
            <tbody className="at-waiting" aria-label="Waiting, the next one first">
              {waiting.map(rowOf)}
              {more > 0 && <More count={more} all={data.state === null ? () => store.filter('queued') : null} />}
            </tbody>
          )}
          <tbody>{others.map(rowOf)}</tbody>
        </table>
      )}
      <p className="at-unseen" role="status">
        {words}
      </p>
      {hasPages && <Paging store={store} data={data} />}
    </div>
  );
}

const COLUMNS = 6;

function Columns(): JSX.Element {
  return (
    <thead>
      <tr>
        <th scope="col">State</th>
        <th scope="col">Run</th>
        <th scope="col">Started</th>
        <th scope="col" className="at-cell-took">
          Took
        </th>
        <th scope="col" className="at-cell-metric">
          Metric
        </th>
        <th scope="col" className="at-cell-menu">
          <span className="at-unseen">What can be done</span>
        </th>
      </tr>
    </thead>
  );
}

function More(props: { count: number; all: (() => void) | null }): JSX.Element {
  return (
    <tr className="at-more">
      <td colSpan={COLUMNS}>
        {props.all ? (
          <Button kind="bare" onClick={props.all}>
            Show {props.count} more that wait
          </Button>
        ) : (
          <span className="at-quiet">{props.count} more wait.</span>
        )}
      </td>
    </tr>
  );
}

function ListHead(props: { store: ListStore; data: ListData }): JSX.Element {
  return (
    <div className="at-toolbar at-list-head">
      <select
        className="at-select"
        aria-label="Runs in which state"
        value={props.data.state ?? ''}
        onChange={event => props.store.filter(event.target.value || null)}
      >
        <option value="">All runs</option>
        {STATE_CHOICES.map(state => (
          <option key={state} value={state}>
            {stateText(state)}
          </option>
        ))}
      </select>
      <Button kind="bare" icon="reload" label="Read the list again" onClick={() => void props.store.refresh()}>
        {null}
      </Button>
    </div>
  );
}

interface RowProps {
  run: Run;
  now: number;
  opened: boolean;
  inPlace: boolean;
  open: () => void;
  menu: JSX.Element;
}

function Row(props: RowProps): JSX.Element {
  const { run, now } = props;
  const metric = headlineMetric(run.metrics);
  const percent = run.state === 'running' ? progressPercent(run.progress) : null;
  return (
    <tr className={`at-row${props.opened ? ' at-row-opened' : ''}`} onClick={props.open}>
      <td className={`at-cell-state${placeText(run) ? ' at-cell-waits' : ''}`}>
        <span className="at-state" title={run.message}>
          <StateIcon state={run.state} />
          {runStateText(run)}
          {percent !== null && <span className="at-quiet"> {percent} %</span>}
          {placeText(run) && <span className="at-quiet at-place">{` ${placeText(run)}`}</span>}
        </span>
      </td>
      <td className="at-cell-name">
        <span className="at-name">
          <button
            type="button"
            className="at-link"
            aria-expanded={props.inPlace ? props.opened : undefined}
            title={`${run.name} · ${run.id}`}
            onClick={event => {
              event.stopPropagation();
              props.open();
            }}
          >
            {run.name}
          </button>
          {run.pinned && <Pinned />}
          {run.priority ? <span className="at-tag">priority {run.priority}</span> : null}
        </span>
      </td>
      <td className="at-cell-time" title={fullMomentText(run.started_at ?? run.created_at)}>
        {momentText(run.started_at ?? run.created_at, now)}
      </td>
      <td className="at-cell-took">{run.state === 'queued' ? '–' : lastedText(run, now)}</td>
      <td className="at-cell-metric">
        {metric && (
          <>
            <span className="at-quiet">{metric[0]}</span> {numberText(metric[1])}
          </>
        )}
      </td>
      <td className="at-cell-menu">{props.menu}</td>
    </tr>
  );
}

function NoRuns(props: { state: string | null; all: () => void }): JSX.Element {
  if (props.state !== null) {
    return (
      <div className="at-empty">
        <p className="at-empty-title">No run is “{stateText(props.state as Run['state']).toLowerCase()}”</p>
        <Button onClick={props.all}>Show all runs</Button>
      </div>
    );
  }
  return (
    <Empty title="No runs yet">
      Open a notebook and press “Run in background”, or type <code>atelier submit train.ipynb</code> in a terminal.
    </Empty>
  );
}

function Paging(props: { store: ListStore; data: ListData }): JSX.Element {
  const { store, data } = props;
  return (
    <nav className="at-paging" aria-label="Pages">
      <Button kind="bare" icon="back" disabled={data.trail.length <= 1} onClick={() => store.newer()}>
        Newer
      </Button>
      <span className="at-quiet">Page {data.trail.length}</span>
      <Button kind="bare" icon="next" disabled={data.next === null} onClick={() => store.older()}>
        Older
      </Button>
    </nav>
  );
}

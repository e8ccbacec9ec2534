/** What a run was asked to do and what became of each try: parameters, timing, attempts, where the code came from. */

import type { ReactNode } from 'react';

import { hasAttempts } from '../model/evidence';
import type { Run } from '../model/records';
import { bytesText, durationText, fullMomentText, lasted, lastedText, momentText } from '../model/texts';
import { Attempts } from './Why';

export function Details(props: { run: Run; now: number }): JSX.Element {
  const { run, now } = props;
  const params = Object.entries(run.spec.params);
  return (
    <div role="group" className="at-details" aria-label="Details">
      <Group title="Parameters">
        {params.length === 0 && <p className="at-quiet">None given: the values in the code.</p>}
        <Pairs
          pairs={params.map(([name, value]) => [
            <code key={name}>{name}</code>,
            <code key="value">{JSON.stringify(value)}</code>
          ])}
        />
      </Group>
      <Group title="Time">
        <Pairs pairs={times(run, now)} />
      </Group>
      <Group title="Where">
        <Pairs pairs={places(run)} />
      </Group>
      {run.attempts.length > 0 && !hasAttempts(run) && <Attempts attempts={run.attempts} now={now} />}
    </div>
  );
}

function Group(props: { title: string; children: ReactNode }): JSX.Element {
  return (
    <div className="at-group">
      <h4 className="at-group-title">{props.title}</h4>
      {props.children}
    </div>
  );
}

type Pair = [ReactNode, ReactNode];

export function Pairs(props: { pairs: Pair[] }): JSX.Element {
  return (
    <dl className="at-pairs">
      {props.pairs.map(([name, value], index) => (
        <div key={index}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function times(run: Run, now: number): Pair[] {
  const pairs: Pair[] = [['Submitted', moment(run.created_at, now)]];
  if (run.queued_at && run.started_at) {
    const waited = (Date.parse(run.started_at) - Date.parse(run.queued_at)) / 1000;
    pairs.push(['Waited', durationText(Math.max(0, waited))]);
  }
  if (run.started_at) {
    pairs.push(['Started', moment(run.started_at, now)]);
  }
  if (run.ended_at) {
    pairs.push(['Ended', moment(run.ended_at, now)]);
  }
  if (lasted(run, now) !== null) {
    pairs.push([run.ended_at ? 'Took' : 'Going for', lastedText(run, now)]);
  }
  if (run.spec.timeout_s !== null) {
    pairs.push(['Time limit', durationText(run.spec.timeout_s)]);
  }
  return pairs;
}

function places(run: Run): Pair[] {
  const { work } = run.spec;
  const pairs: Pair[] = [
    ['Code', <code key="code">{work.target}</code>],
    ['Image', run.environment?.python ? `${run.image} · Python ${run.environment.python}` : run.image],
    ['Machine', run.machine],
    ['Bundle', `${run.source.files} ${run.source.files === 1 ? 'file' : 'files'}, ${bytesText(run.source.size_bytes)}`]
  ];
  if (run.source.git_revision) {
    const dirty = run.source.git_dirty ? ' with changes' : '';
    pairs.push([
      'Git',
      <span key="git">
        <code>{run.source.git_revision.slice(0, 10)}</code>
        {dirty}
      </span>
    ]);
  }
  const usage = run.attempts[run.attempts.length - 1]?.usage ?? {};
  if (usage['memory_bytes']) {
    pairs.push(['Memory', bytesText(usage['memory_bytes'])]);
  }
  if (usage['cpu_percent'] !== undefined) {
    pairs.push(['CPU', `${Math.round(usage['cpu_percent'])} %`]);
  }
  return pairs;
}

function moment(iso: string, now: number): ReactNode {
  return <span title={fullMomentText(iso)}>{momentText(iso, now)}</span>;
}

/** One card for a run that waits or ended badly: what happened, one next action, and the evidence below. */

import type { ReactNode } from 'react';

import { facts, hasAttempts, warningsOf } from '../model/evidence';
import { isPausing } from '../model/queue';
import type { Attempt, ErrorReport, Run } from '../model/records';
import { fullMomentText, lastedText, runStateText, secondText } from '../model/texts';
import { ActingButton } from './ActingButton';
import { Icon, StateWord } from './parts';

const TONES: Partial<Record<Run['state'], string>> = { failed: 'bad', lost: 'warn', timed_out: 'warn' };

export function Why(props: { run: Run; now: number; tryNow: () => Promise<void> }): JSX.Element {
  const { run, now } = props;
  const known = facts(run, now);
  const error = run.state === 'failed' ? (run.attempts[run.attempts.length - 1]?.error ?? null) : null;
  return (
    <div role="group" className={`at-why at-why-${TONES[run.state] ?? 'quiet'}`} aria-label="What happened">
      <div className="at-message">
        <p className="at-why-what">{run.message || runStateText(run)}</p>
        {run.hint && (
          <p className="at-why-next">
            <Icon shape="go" />
            {run.hint}
          </p>
        )}
      </div>
      {known.length > 0 && (
        <dl className="at-facts" aria-label="Evidence">
          {known.map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
      )}
      {isPausing(run, now) && (
        <div className="at-why-do">
          <ActingButton icon="reload" hint="Without the rest of the pause" act={props.tryNow}>
            Try now
          </ActingButton>
        </div>
      )}
      {hasAttempts(run) && <Attempts attempts={run.attempts} now={now} />}
      {error && <Traceback error={error} />}
    </div>
  );
}

function Traceback(props: { error: ErrorReport }): JSX.Element {
  return (
    <details className="at-fold">
      <summary>Traceback</summary>
      <pre className="at-trace" tabIndex={0} aria-label="Traceback">
        {props.error.traceback}
      </pre>
    </details>
  );
}

const SHOWN_WARNINGS = 2;

/** What the record warns of: a few at once, many folded. */
export function Warnings(props: { run: Run }): JSX.Element | null {
  const warnings = warningsOf(props.run);
  if (warnings.length === 0) {
    return null;
  }
  const list = (
    <ul className="at-warnings" aria-label="Warnings">
      {warnings.map(warning => (
        <li key={warning}>
          <Icon shape="warn" />
          <span>{warning}</span>
        </li>
      ))}
    </ul>
  );
  return warnings.length <= SHOWN_WARNINGS ? (
    list
  ) : (
    <details className="at-fold at-warnings-fold">
      <summary>{warnings.length} warnings</summary>
      {list}
    </details>
  );
}

export function Attempts(props: { attempts: Attempt[]; now: number }): JSX.Element {
  return (
    <div className="at-group at-group-wide">
      <h4 className="at-group-title">Attempts</h4>
      <div className="at-scroll" tabIndex={0} role="group" aria-label="Attempts">
        <table className="at-table at-attempts">
          <thead>
            <tr>
              <th scope="col">#</th>
              <th scope="col">State</th>
              <th scope="col">Started</th>
              <th scope="col">Took</th>
              <th scope="col">Why it ended</th>
            </tr>
          </thead>
          <tbody>
            {[...props.attempts].reverse().map(one => (
              <tr key={one.n}>
                <td>{one.n}</td>
                <td>
                  <StateWord state={one.state} />
                </td>
                <td title={fullMomentText(one.started_at)}>
                  {one.started_at ? secondText(one.started_at, props.now) : '–'}
                </td>
                <td>{lastedText(one, props.now)}</td>
                <WhyEnded attempt={one} />
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </div>
  );
}

function WhyEnded(props: { attempt: Attempt }): JSX.Element {
  const { message, error, reason } = props.attempt;
  const words: ReactNode = message ?? error?.message ?? reason?.replace(/_/g, ' ');
  return words ? <td>{words}</td> : <td className="at-nothing">–</td>;
}

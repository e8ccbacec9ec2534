/** The end of a run's log: only the lines in sight are in the page, and the view follows the end until it is scrolled. */

import { useEffect, useLayoutEffect, useRef, useState } from 'react';

import type { Line, Span } from '../model/logfold';
import { LogStore, type LogData } from '../model/logstore';
import type { Attempt } from '../model/records';
import { bytesText, gapText, stateText } from '../model/texts';
import { useHost, useStore } from './host';
import { Button, ErrorNotice } from './parts';

/** Height of a line in pixels; the style sheet has the same. */
const LINE_PX = 18;
const BEYOND = 20;

export function LogPane(props: { id: string; attempts: Attempt[]; live: boolean }): JSX.Element {
  const { api, events } = useHost();
  const [attempt, setAttempt] = useState<number | null>(null);
  const [store, log] = useStore<LogData, LogStore>(
    `${props.id} ${attempt ?? ''}`,
    () => new LogStore(props.id, api, events, attempt)
  );
  const [following, setFollowing] = useState(true);
  return (
    <div role="group" className="at-log" aria-label="Log">
      <div className="at-toolbar">
        <span>
          Log <span className="at-quiet">{sizeText(log)}</span>
        </span>
        <div className="at-switches">
          {log.from > 0 && (
            <Button kind="bare" onClick={() => store.earlier()}>
              Show earlier
            </Button>
          )}
          {props.attempts.length > 1 && <AttemptPicker attempts={props.attempts} picked={attempt} pick={setAttempt} />}
          {props.live && (
            <Button kind="bare" pressed={following} onClick={() => setFollowing(!following)}>
              Follow
            </Button>
          )}
        </div>
      </div>
      {log.error && <ErrorNotice error={log.error} onRetry={() => store.earlier()} />}
      <Lines lines={log.lines} following={following} setFollowing={setFollowing} empty={emptyText(log, props.live)} />
    </div>
  );
}

function AttemptPicker(props: {
  attempts: Attempt[];
  picked: number | null;
  pick: (n: number | null) => void;
}): JSX.Element {
  return (
    <select
      className="at-select"
      aria-label="Attempt whose log is shown"
      value={props.picked ?? ''}
      onChange={event => props.pick(event.target.value === '' ? null : Number(event.target.value))}
    >
      <option value="">Newest attempt</option>
      {props.attempts.map(one => (
        <option key={one.n} value={one.n}>
          Attempt {one.n}: {stateText(one.state).toLowerCase()}
        </option>
      ))}
    </select>
  );
}

interface LinesProps {
  lines: readonly Line[];
  following: boolean;
  setFollowing: (following: boolean) => void;
  empty: string;
}

function Lines(props: LinesProps): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(200);
  const lines = trimmed(props.lines);
  useLayoutEffect(() => {
    const node = box.current;
    if (node && props.following) {
      node.scrollTop = node.scrollHeight;
    }
  }, [props.lines, props.following, height]);
  useEffect(() => {
    const node = box.current;
    if (!node) {
      return;
    }
    const observer = new ResizeObserver(() => setHeight(node.clientHeight));
    observer.observe(node);
    return () => observer.disconnect();
  }, []);
  const scrolled = (): void => {
    const node = box.current;
    if (node) {
      setTop(node.scrollTop);
      const atEnd = node.scrollHeight - node.scrollTop - node.clientHeight < 2 * LINE_PX;
      if (atEnd !== props.following) {
        props.setFollowing(atEnd);
      }
    }
  };
  const first = Math.max(0, Math.floor(top / LINE_PX) - BEYOND);
  const last = Math.min(lines.length, Math.ceil((top + height) / LINE_PX) + BEYOND);
  return (
    <div
      ref={box}
      className="at-lines"
      tabIndex={0}
      role="log"
      aria-live="off"
      aria-label="Text of the log"
      onScroll={scrolled}
    >
      {lines.length === 0 ? (
        <p className="at-quiet at-log-empty">{props.empty}</p>
      ) : (
        <div className="at-lines-all" style={{ height: lines.length * LINE_PX }}>
          <div style={{ transform: `translateY(${first * LINE_PX}px)` }}>
            {lines.slice(first, last).map((line, index) => (
              <LineView key={first + index} line={line} />
            ))}
          </div>
        </div>
      )}
    </div>
  );
}

function LineView(props: { line: Line }): JSX.Element {
  const gap = gapText(props.line);
  if (gap !== null) {
    return (
      <div className="at-line-text at-log-gap" role="separator" aria-label={gap} title={gap}>
        <span>{gap}</span>
      </div>
    );
  }
  return (
    <div className="at-line-text">
      {props.line.length === 0 ? '\u200b' : props.line.map((span, index) => <SpanView key={index} span={span} />)}
    </div>
  );
}

function SpanView(props: { span: Span }): JSX.Element {
  const { style, text } = props.span;
  const classes = [
    style.colour === null ? '' : `at-ansi-${style.colour}`,
    style.background === null ? '' : `at-ansi-bg-${style.background}`,
    style.bold ? 'at-ansi-bold' : '',
    style.faint ? 'at-ansi-faint' : '',
    style.italic ? 'at-ansi-italic' : '',
    style.underline ? 'at-ansi-underline' : ''
  ].filter(Boolean);
  return classes.length === 0 ? <>{text}</> : <span className={classes.join(' ')}>{text}</span>;
}

/** The empty line after the last newline is no line of the log. */
function trimmed(lines: readonly Line[]): readonly Line[] {
  let end = lines.length;
  while (end > 0 && lines[end - 1]?.length === 0) {
    end -= 1;
  }
  return lines.slice(0, end);
}

function sizeText(log: LogData): string {
  if (!log.loaded || log.size === 0) {
    return '';
  }
  return log.from === 0 ? bytesText(log.size) : `The last ${bytesText(log.size - log.from)} of ${bytesText(log.size)}`;
}

function emptyText(log: LogData, live: boolean): string {
  if (!log.loaded) {
    return 'Reading the log…';
  }
  return live ? 'Nothing printed yet.' : 'Nothing was printed.';
}

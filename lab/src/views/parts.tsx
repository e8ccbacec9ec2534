/** Small parts that all views are made of. */

import { useEffect, useState, type ReactNode } from 'react';

import { asApiError, type ApiError } from '../model/api';
import type { AttemptState } from '../model/records';
import { momentText, stateText } from '../model/texts';
import { useConnection, useHost } from './host';

/** No embedded service has been started yet, or it went to sleep: nothing is wrong. */
export const NOT_RUNNING = 'service_not_running';

const SHAPES: Record<string, ReactNode> = {
  circle: <circle cx="8" cy="8" r="5.5" />,
  clock: (
    <>
      <circle cx="8" cy="8" r="6" />
      <path d="M8 4.5V8l2.4 1.6" />
    </>
  ),
  arc: <path d="M8 2a6 6 0 1 1-6 6" />,
  check: (
    <>
      <circle cx="8" cy="8" r="6" />
      <path d="m5.2 8.2 2 2 3.6-4.2" />
    </>
  ),
  cross: (
    <>
      <circle cx="8" cy="8" r="6" />
      <path d="m5.8 5.8 4.4 4.4m0-4.4-4.4 4.4" />
    </>
  ),
  stop: (
    <>
      <circle cx="8" cy="8" r="6" />
      <path d="M5.5 8h5" />
    </>
  ),
  warn: (
    <>
      <path d="M8 2.2 14.2 13H1.8z" />
      <path d="M8 6.5v3m0 1.7v.1" />
    </>
  ),
  copy: (
    <>
      <rect x="5.5" y="5.5" width="8" height="8" rx="1.2" />
      <path d="M10.5 3.2V2.5H3.7c-.7 0-1.2.5-1.2 1.2v6.8h.7" />
    </>
  ),
  download: <path d="M8 2.5v7.3m-3-3 3 3 3-3M3 13h10" />,
  beside: (
    <>
      <path d="M2 12.5v-9h4l1.4 1.8H14v7.2z" />
      <path d="M8 7v3.6m-1.7-1.7L8 10.6l1.7-1.7" />
    </>
  ),
  outside: <path d="M9 3.5H3v9.5h9.5V7M7.5 8.5 13 3m-3.5-.5H13V6" />,
  notebook: (
    <>
      <rect x="3.5" y="2.5" width="9" height="11" rx="1.2" />
      <path d="M6 2.5v11M8.2 5.8h2.2M8.2 8.2h2.2" />
    </>
  ),
  back: <path d="m9.5 3.5-4.5 4.5 4.5 4.5" />,
  next: <path d="m6.5 3.5 4.5 4.5-4.5 4.5" />,
  down: <path d="m3.5 6 4.5 4.5L12.5 6" />,
  go: <path d="M2.5 8h10m-3.6-3.8L12.7 8l-3.8 3.8" />,
  pin: <path d="M5.5 2.5h5l-.6 4.6 2.1 2.4H4l2.1-2.4zM8 9.5v4.3" />,
  more: <path d="M3.5 8h.1m4.4 0h.1m4.4 0h.1" />,
  up: <path d="M8 13V3.5M4.2 7.2 8 3.4l3.8 3.8" />,
  sink: <path d="M8 3v9.5M4.2 8.8 8 12.6l3.8-3.8" />,
  first: <path d="M8 14V6M4.2 9.6 8 5.8l3.8 3.8M3.5 2.5h9" />,
  last: <path d="M8 2v8M4.2 6.4 8 10.2l3.8-3.8M3.5 13.5h9" />,
  reload: <path d="M13 8a5 5 0 1 1-1.6-3.7M13 2.5v2.8h-2.8" />
};

const STATE_SHAPES: Record<AttemptState, [string, string]> = {
  created: ['circle', 'quiet'],
  queued: ['clock', 'quiet'],
  starting: ['arc', 'busy'],
  running: ['arc', 'busy'],
  succeeded: ['check', 'good'],
  failed: ['cross', 'bad'],
  cancelled: ['stop', 'quiet'],
  timed_out: ['clock', 'warn'],
  preempted: ['warn', 'warn'],
  lost: ['warn', 'warn']
};

export function Icon(props: { shape: string }): JSX.Element {
  return (
    <svg className="at-icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      {SHAPES[props.shape]}
    </svg>
  );
}

export function StateIcon(props: { state: AttemptState }): JSX.Element {
  const [shape, tone] = STATE_SHAPES[props.state] ?? ['circle', 'quiet'];
  return (
    <span className={`at-state-icon at-tone-${tone}`}>
      <Icon shape={shape} />
    </span>
  );
}

export function Pinned(): JSX.Element {
  return (
    <span className="at-pinned" title="Neither deleted nor cleaned up">
      <Icon shape="pin" />
      pinned
    </span>
  );
}

export function StateWord(props: { state: AttemptState; text?: string }): JSX.Element {
  return (
    <span className="at-state">
      <StateIcon state={props.state} />
      {props.text ?? stateText(props.state)}
    </span>
  );
}

export interface ButtonProps {
  children: ReactNode;
  icon?: string;
  kind?: 'plain' | 'main' | 'danger' | 'bare';
  /** Its name, where it shows none. */
  label?: string;
  /** What it does, where its name says too little. */
  hint?: string;
  disabled?: boolean;
  pressed?: boolean;
  expanded?: boolean;
  /** What it opens. */
  popup?: 'menu';
  onClick: () => void;
}

export function Button(props: ButtonProps): JSX.Element {
  return (
    <button
      type="button"
      className={`at-button at-button-${props.kind ?? 'plain'}`}
      aria-label={props.label}
      title={props.label ?? props.hint}
      aria-pressed={props.pressed}
      aria-expanded={props.expanded}
      aria-haspopup={props.popup}
      disabled={props.disabled}
      onClick={props.onClick}
    >
      {props.icon && <Icon shape={props.icon} />}
      {props.children}
    </button>
  );
}

/** A link that saves a file; the server sends it as an attachment, so the page stays. */
export function DownloadLink(props: { href: string; name: string; label?: string; children?: ReactNode }): JSX.Element {
  return (
    <a
      className="at-button at-button-plain"
      href={props.href}
      download={props.name}
      aria-label={props.label}
      title={props.label}
    >
      <Icon shape="download" />
      {props.children}
    </a>
  );
}

export function CopyId(props: { id: string }): JSX.Element {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    const timer = copied ? setTimeout(() => setCopied(false), 1500) : undefined;
    return () => clearTimeout(timer);
  }, [copied]);
  const copy = (): void => {
    void navigator.clipboard?.writeText(props.id).then(() => setCopied(true));
  };
  return (
    <button type="button" className="at-id" onClick={copy} aria-label={`Copy the id ${props.id}`} title="Copy the id">
      <code>{props.id}</code>
      <Icon shape={copied ? 'check' : 'copy'} />
    </button>
  );
}

export type Tone = 'info' | 'warn' | 'bad' | 'good';

export function Notice(props: {
  tone: Tone;
  title: ReactNode;
  children?: ReactNode;
  actions?: ReactNode;
}): JSX.Element {
  return (
    <div className={`at-notice at-notice-${props.tone}`} role={props.tone === 'bad' ? 'alert' : 'status'}>
      <div className="at-notice-text">
        <strong>{props.title}</strong>
        {props.children && <span> {props.children}</span>}
      </div>
      {props.actions && <div className="at-notice-actions">{props.actions}</div>}
    </div>
  );
}

/** An error of a request; nothing while the connection's own notice says why requests fail. */
export function ErrorNotice(props: { error: ApiError; onRetry?: () => void }): JSX.Element | null {
  const { error, onRetry } = props;
  const { state } = useConnection();
  if (error.passing && (state === 'service-down' || state === 'reconnecting')) {
    return null;
  }
  const actions = onRetry && (
    <Button icon="reload" onClick={onRetry}>
      Try again
    </Button>
  );
  return (
    <Notice tone={error.passing ? 'warn' : 'bad'} title={error.message} actions={actions}>
      {error.hint}
    </Notice>
  );
}

/** Says when what is shown may be old, and since when; nothing while all is live. A blink of an eye is no trouble. */
export function ConnectionNotice(props: { heardAt: number | null }): JSX.Element | null {
  const { events } = useHost();
  const connection = useConnection();
  const [late, setLate] = useState(false);
  useEffect(() => {
    setLate(false);
    const timer = setTimeout(() => setLate(true), 1200);
    return () => clearTimeout(timer);
  }, [connection.state]);
  if (connection.state === 'live' || connection.state === 'connecting' || !late) {
    return null;
  }
  const down = connection.state === 'service-down';
  const title = down ? (connection.error?.message ?? 'The run service does not answer.') : 'Reconnecting…';
  const shown =
    props.heardAt === null
      ? ''
      : `Shown is the state of ${momentText(new Date(props.heardAt).toISOString(), Date.now())}.`;
  const retry = (
    <Button icon="reload" onClick={() => events.retry()}>
      Try now
    </Button>
  );
  return (
    <Notice tone={connection.error?.code === NOT_RUNNING ? 'info' : 'warn'} title={title} actions={retry}>
      {down ? `${connection.error?.hint ?? ''} ${shown}` : `The notebook server does not answer. ${shown}`}
    </Notice>
  );
}

/** A button that asks back before it acts, in place, and says what went wrong. */
export function AskingButton(props: {
  children: ReactNode;
  icon?: string;
  question: string;
  yes: string;
  no: string;
  act: () => Promise<void>;
}): JSX.Element {
  const [asking, setAsking] = useState(false);
  const { busy, error, act } = useAct(async () => {
    await props.act();
    setAsking(false);
  });
  if (!asking) {
    return (
      <Button {...(props.icon ? { icon: props.icon } : {})} onClick={() => setAsking(true)}>
        {props.children}
      </Button>
    );
  }
  return (
    <span
      className="at-asking"
      role="group"
      aria-label={props.question}
      onKeyDown={event => event.key === 'Escape' && setAsking(false)}
    >
      {error ? (
        <span className="at-trouble" role="alert">
          {errorText(error)}
        </span>
      ) : (
        <span>{props.question}</span>
      )}
      <Button kind="danger" disabled={busy} onClick={() => void act()}>
        {props.yes}
      </Button>
      <FocusedButton onClick={() => setAsking(false)}>{props.no}</FocusedButton>
    </span>
  );
}

/** An action that a button begins: whether it goes on, and what went wrong the last time. */
export function useAct(action: () => Promise<void>): {
  busy: boolean;
  error: ApiError | null;
  act: () => Promise<void>;
} {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  const act = async (): Promise<void> => {
    setBusy(true);
    setError(null);
    try {
      await action();
    } catch (problem) {
      setError(asApiError(problem));
    } finally {
      setBusy(false);
    }
  };
  return { busy, error, act };
}

/** What went wrong, and what to do about it. */
export function errorText(error: ApiError): string {
  return [error.message, error.hint].filter(Boolean).join(' ');
}

function FocusedButton(props: { children: ReactNode; onClick: () => void }): JSX.Element {
  return (
    <button type="button" className="at-button at-button-plain" ref={node => node?.focus()} onClick={props.onClick}>
      {props.children}
    </button>
  );
}

export function Empty(props: { title: string; children?: ReactNode }): JSX.Element {
  return (
    <div className="at-empty">
      <p className="at-empty-title">{props.title}</p>
      {props.children && <p>{props.children}</p>}
    </div>
  );
}

export function Loading(props: { what: string }): JSX.Element {
  return (
    <div className="at-loading" role="status">
      <span className="at-state-icon at-tone-busy">
        <Icon shape="arc" />
      </span>
      Reading {props.what}…
    </div>
  );
}

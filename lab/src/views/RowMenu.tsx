/** What can be done with a run of a list: its place in the queue, its end, its pin. A small menu, by mouse or keys. */

import { useEffect, useLayoutEffect, useRef, useState, type KeyboardEvent, type ReactNode } from 'react';

import { asApiError, type ApiError } from '../model/api';
import { placeText } from '../model/evidence';
import { isPausing, movesOf, type Order } from '../model/queue';
import { isFinal, type Run } from '../model/records';
import { useHost } from './host';
import { Button, errorText, Icon } from './parts';
import { PIN_HINT } from './ActingButton';

export interface RowMenuProps {
  run: Run;
  /** The caller's waiting runs, the next one first. */
  queue: readonly Run[];
  /** Says what became of an order, to those who can't see it. */
  say: (words: string) => void;
}

type Shown = 'menu' | 'asking' | null;

export function RowMenu(props: RowMenuProps): JSX.Element {
  const { run, queue, say } = props;
  const { api } = useHost();
  const [shown, setShown] = useState<Shown>(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  const box = useRef<HTMLSpanElement>(null);
  const leave = (): void => {
    setShown(null);
    setError(null);
  };
  const close = (): void => {
    leave();
    box.current?.querySelector('button')?.focus();
  };
  const act = async (order: () => Promise<Run>, words: (changed: Run) => string): Promise<void> => {
    setBusy(true);
    setError(null);
    try {
      say(`${run.name}: ${words(await order())}`);
      close();
    } catch (problem) {
      setError(asApiError(problem));
    } finally {
      setBusy(false);
    }
  };
  const items = itemsOf(run, queue, {
    move: order => void act(() => api.move(order.run, order.to), movedWords),
    pin: pinned =>
      void act(
        () => api.pin(run.id, pinned),
        () => (pinned ? 'pinned' : 'no longer pinned')
      ),
    ask: () => setShown('asking')
  });
  return (
    <span className="at-row-menu" ref={box} onClick={event => event.stopPropagation()}>
      <Button
        kind="bare"
        icon="more"
        label={`What can be done with ${run.name}`}
        expanded={shown !== null}
        popup="menu"
        onClick={() => (shown === null ? setShown('menu') : close())}
      >
        {null}
      </Button>
      {shown !== null && (
        <Floating close={close} leave={leave}>
          {error && (
            <p className="at-trouble" role="alert">
              {errorText(error)}
            </p>
          )}
          {shown === 'menu' ? (
            <Items items={items} busy={busy} name={run.name} />
          ) : (
            <Asking
              name={run.name}
              busy={busy}
              cancel={() =>
                void act(
                  () => api.cancel(run.id),
                  () => 'asked to stop'
                )
              }
              keep={close}
            />
          )}
        </Floating>
      )}
    </span>
  );
}

function movedWords(changed: Run): string {
  return placeText(changed) ? `${placeText(changed)} in the queue` : 'moved';
}

interface Item {
  icon: string;
  text: string;
  hint?: string;
  /** null: not now. */
  act: (() => void) | null;
}

interface Acts {
  move: (order: Order) => void;
  pin: (pinned: boolean) => void;
  ask: () => void;
}

function itemsOf(run: Run, queue: readonly Run[], acts: Acts): Item[] {
  const now = Date.now();
  const moves = movesOf(queue, run.id, now);
  const moved = (icon: string, text: string, order: Order | null): Item => ({
    icon,
    text,
    act: order && (() => acts.move(order))
  });
  const inQueue = [
    moved('up', 'Move up', moves.up),
    moved('sink', 'Move down', moves.down),
    moved('first', isPausing(run, now) ? 'Try now' : 'First', moves.first),
    moved('last', 'Last', moves.last)
  ];
  const pin: Item = run.pinned
    ? { icon: 'pin', text: 'Unpin', act: () => acts.pin(false) }
    : { icon: 'pin', text: 'Pin', hint: PIN_HINT, act: () => acts.pin(true) };
  const isStopping = run.desired === 'cancelled';
  return [
    ...(run.state === 'queued' && !isStopping ? inQueue : []),
    pin,
    ...(isFinal(run) || isStopping ? [] : [{ icon: 'stop', text: 'Cancel…', act: acts.ask }])
  ];
}

const STEPS: Record<string, (at: number, count: number) => number> = {
  ArrowDown: (at, count) => (at + 1) % count,
  ArrowUp: (at, count) => (at - 1 + count) % count,
  Home: () => 0,
  End: (_at, count) => count - 1
};

function Items(props: { items: Item[]; busy: boolean; name: string }): JSX.Element {
  const menu = useRef<HTMLDivElement>(null);
  useEffect(() => menu.current?.querySelector<HTMLElement>('[aria-disabled=false]')?.focus(), []);
  const key = (event: KeyboardEvent): void => {
    const step = STEPS[event.key];
    if (step) {
      const all = [...(menu.current?.querySelectorAll<HTMLElement>('[role=menuitem]') ?? [])];
      all[step(all.indexOf(document.activeElement as HTMLElement), all.length)]?.focus();
      event.preventDefault();
    }
  };
  return (
    <div role="menu" aria-label={props.name} ref={menu} onKeyDown={key}>
      {props.items.map(item => (
        <button
          type="button"
          role="menuitem"
          key={item.text}
          className="at-menu-item"
          tabIndex={-1}
          title={item.hint}
          aria-disabled={item.act === null || props.busy}
          onClick={() => !props.busy && item.act?.()}
        >
          <Icon shape={item.icon} />
          {item.text}
        </button>
      ))}
    </div>
  );
}

function Asking(props: { name: string; busy: boolean; cancel: () => void; keep: () => void }): JSX.Element {
  const keep = useRef<HTMLSpanElement>(null);
  useEffect(() => keep.current?.querySelector('button')?.focus(), []);
  return (
    <div role="group" className="at-menu-asking" aria-label={`Stop “${props.name}”?`}>
      <p>Stop “{props.name}”?</p>
      <span className="at-asking">
        <Button kind="danger" disabled={props.busy} onClick={props.cancel}>
          Cancel run
        </Button>
        <span ref={keep}>
          <Button onClick={props.keep}>Keep it</Button>
        </span>
      </span>
    </div>
  );
}

/** Stands over the page beside what comes before it; Escape, a click elsewhere and a scroll of the list close it. */
function Floating(props: { close: () => void; leave: () => void; children: ReactNode }): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const { close, leave } = props;
  useLayoutEffect(() => {
    const node = box.current;
    const around = node?.parentElement;
    if (!node || !around) {
      return;
    }
    placeBeside(node, around);
    const away = (event: Event): void => {
      const target = event.target as Node;
      if (event.type === 'scroll' ? target.contains(around) : !around.contains(target)) {
        leave();
      }
    };
    const kinds = ['pointerdown', 'scroll', 'focusin'];
    kinds.forEach(kind => document.addEventListener(kind, away, true));
    return () => kinds.forEach(kind => document.removeEventListener(kind, away, true));
  }, []);
  return (
    <div ref={box} className="at-menu" onKeyDown={event => event.key === 'Escape' && close()}>
      {props.children}
    </div>
  );
}

/** In the page's top layer, where no panel or cell cuts it off. */
function placeBeside(node: HTMLElement, around: HTMLElement): void {
  node.setAttribute('popover', 'manual');
  node.showPopover?.();
  const [own, other] = [node.getBoundingClientRect(), around.getBoundingClientRect()];
  const isBelow = other.bottom + own.height < window.innerHeight;
  node.style.top = `${isBelow ? other.bottom : Math.max(0, other.top - own.height)}px`;
  node.style.left = `${Math.max(4, other.right - own.width)}px`;
}

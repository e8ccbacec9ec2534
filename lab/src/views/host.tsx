/** What the views get from the page that holds them; they import nothing of JupyterLab themselves. */

import { createContext, useContext, useEffect, useRef, useState, useSyncExternalStore } from 'react';

import type { ActivityData, ActivityStore } from '../model/activity';
import type { Api } from '../model/api';
import type { Connection, Events } from '../model/events';
import type { Store } from '../model/store';

export interface Host {
  api: Api;
  events: Events;
  /** The caller's unfinished runs. */
  activity: ActivityStore;
  /** Path of the notebook that shows the view, when there is one. */
  beside?: string | undefined;
  /** Opens a file of the server's folder. */
  openFile?: ((path: string) => void) | undefined;
}

export const HostContext = createContext<Host | null>(null);

export function useHost(): Host {
  const host = useContext(HostContext);
  if (host === null) {
    throw new Error('a view of Atelier needs a HostContext');
  }
  return host;
}

/** A store that lives as long as the view and the key. */
export function useStore<T, S extends Store<T>>(key: string, make: () => S): [S, T] {
  const kept = useRef<{ key: string; store: S } | null>(null);
  if (kept.current?.key !== key) {
    kept.current = { key, store: make() };
  }
  const { store } = kept.current;
  return [store, useSyncExternalStore(store.subscribe, store.snapshot)];
}

export function useConnection(): Connection {
  const { events } = useHost();
  return useSyncExternalStore(
    callback => events.watch(callback),
    () => events.connection
  );
}

export function useActivity(): ActivityData {
  const { activity } = useHost();
  return useSyncExternalStore(activity.subscribe, activity.snapshot);
}

/** The present, anew each second while `moving`. */
export function useNow(moving: boolean): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    setNow(Date.now());
    const timer = moving ? setInterval(() => setNow(Date.now()), 1000) : undefined;
    return () => clearInterval(timer);
  }, [moving]);
  return now;
}

/** The width of an element in pixels; 0 before it is laid out. */
export function useWidth(): [React.RefObject<HTMLDivElement>, number] {
  const element = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const node = element.current;
    if (node === null) {
      return;
    }
    const observer = new ResizeObserver(() => setWidth(node.clientWidth));
    observer.observe(node);
    setWidth(node.clientWidth);
    return () => observer.disconnect();
  }, []);
  return [element, width];
}

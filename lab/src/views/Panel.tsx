/** The side panel: the list of runs, or one run with the way back. */

import { useEffect, useRef } from 'react';

import type { RunsTarget } from '../model/ids';
import type { Run } from '../model/records';
import { Button } from './parts';
import { RunList } from './RunList';
import { RunView } from './RunView';

const ALL: RunsTarget = { ids: null, state: null };

export interface PanelProps {
  shown: string | null;
  show: (id: string | null) => void;
  openInTab: (run: Run) => void;
}

export function Panel(props: PanelProps): JSX.Element {
  const { shown, show } = props;
  const opened = useRef<Run | null>(null);
  const scroller = useRef<HTMLDivElement>(null);
  const head = useRef<HTMLDivElement>(null);
  const picked = useRef(false);
  useEffect(() => {
    scroller.current?.scrollTo({ top: 0 });
    if (picked.current) {
      // what had the focus is gone: keys would begin at the top of the page again
      picked.current = false;
      head.current?.querySelector<HTMLElement>('button, h2')?.focus();
    }
  }, [shown]);
  const go = (id: string | null): void => {
    picked.current = true;
    show(id);
  };
  const open = (run: Run): void => {
    opened.current = run;
    go(run.id);
  };
  const known = opened.current?.id === shown ? opened.current : null;
  return (
    <div className="at-panel-body" ref={scroller}>
      <div className="at-panel-head" ref={head}>
        {shown === null ? (
          <h2 tabIndex={-1}>Atelier runs</h2>
        ) : (
          <>
            <Button kind="bare" icon="back" onClick={() => go(null)}>
              All runs
            </Button>
            <Button
              kind="bare"
              icon="outside"
              onClick={() => props.openInTab(known ?? ({ id: shown, name: shown } as Run))}
            >
              Open in a tab
            </Button>
          </>
        )}
      </div>
      {shown === null ? (
        <RunList target={ALL} onOpen={open} />
      ) : (
        <RunView key={shown} id={shown} known={known} onRemoved={() => go(null)} />
      )}
    </div>
  );
}

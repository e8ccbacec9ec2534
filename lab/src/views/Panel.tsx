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
  useEffect(() => {
    scroller.current?.scrollTo({ top: 0 });
  }, [shown]);
  const open = (run: Run): void => {
    opened.current = run;
    show(run.id);
  };
  const known = opened.current?.id === shown ? opened.current : null;
  return (
    <div className="at-panel-body" ref={scroller}>
      <div className="at-panel-head">
        {shown === null ? (
          <h2>Atelier runs</h2>
        ) : (
          <>
            <Button kind="bare" icon="back" onClick={() => show(null)}>
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
        <RunView key={shown} id={shown} known={known} onRemoved={() => show(null)} />
      )}
    </div>
  );
}

/** Notes about runs in JupyterLab's notification area. */

import { Notification } from '@jupyterlab/apputils';

import type { Events } from './model/events';
import { isFinal, type Run } from './model/records';
import { lastedText, leftText, progressPart, progressText, runStateText } from './model/texts';

/** Runs that have a note of their own, from their submission on. */
const followed = new Map<string, string>();

const SHOWN_MS = 8000;
const LONGEST_TEXT = 140; // Lab cuts longer ones

type Kind = 'success' | 'error' | 'warning' | 'info';

const KINDS: Partial<Record<Run['state'], Kind>> = {
  succeeded: 'success',
  failed: 'error',
  lost: 'error',
  timed_out: 'warning',
  cancelled: 'info'
};

/** A note that follows a run which the user has just submitted, until it ends. */
export function follow(run: Run, noteId: string, events: Events, show: () => void): void {
  followed.set(run.id, noteId);
  const actions = [{ label: 'Show', callback: show }];
  const tell = (now: Run): void => {
    const progress = progressPart(now.progress);
    Notification.update({
      id: noteId,
      message: cut(progressMessage(now)),
      type: 'in-progress',
      autoClose: false,
      actions,
      ...(progress === null ? {} : { progress })
    });
  };
  tell(run);
  const end = events.listen(run.id, change => {
    if (change.type === 'run') {
      if (isFinal(change.data)) {
        end();
      } else {
        tell(change.data);
      }
    }
  });
}

/** Says how a run ended: in its own note if it has one that is still open, else in a new one. */
export function tellEnd(run: Run, show: () => void): void {
  const type = KINDS[run.state] ?? 'info';
  const note = {
    message: cut(endMessage(run)),
    type,
    autoClose: type === 'error' ? (false as const) : SHOWN_MS,
    actions: [{ label: 'Show', callback: show }]
  };
  const known = followed.get(run.id);
  followed.delete(run.id);
  const updated = known !== undefined && Notification.update({ id: known, ...note, progress: 1 });
  if (!updated) {
    Notification.emit(note.message, type, { autoClose: note.autoClose, actions: note.actions });
  }
}

function progressMessage(run: Run): string {
  const parts = [`${run.name}: ${runStateText(run).toLowerCase()}`];
  if (run.state === 'running' && run.progress !== null) {
    parts.push(progressText(run.progress), leftText(run.progress, Date.now()));
  }
  return parts.join(', ');
}

function endMessage(run: Run): string {
  const took = run.started_at === null ? '' : ` after ${lastedText(run, Date.now())}`;
  const words = run.state === 'succeeded' ? '' : ` ${run.message}`;
  return `${run.name}: ${runStateText(run).toLowerCase()}${took}.${words}`;
}

function cut(text: string): string {
  return text.length > LONGEST_TEXT ? `${text.slice(0, LONGEST_TEXT - 1)}…` : text;
}

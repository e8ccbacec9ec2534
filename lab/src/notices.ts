/** Notes about runs in JupyterLab's notification area: each is on the page for a while, and stays in its list. */

import { Notification } from '@jupyterlab/apputils';

import type { Events } from './model/events';
import { isFinal, type Run } from './model/records';
import { Room } from './model/room';
import { lastedText, leftText, progressPart, progressText, runStateText } from './model/texts';

/** Runs that have a note of their own, from their submission on. */
const followed = new Map<string, string>();
const room = new Room();

const LIST_ONLY = 0; // Lab's word for a note that is put into the list, and not on the page
const LONGEST_TEXT = 140; // Lab cuts longer ones

type Kind = 'success' | 'error' | 'warning' | 'info';

const KINDS: Partial<Record<Run['state'], Kind>> = {
  succeeded: 'success',
  failed: 'error',
  lost: 'error',
  timed_out: 'warning',
  cancelled: 'info'
};

/** A note that answers the user at once: what it takes the place of goes. */
export function begin(message: string): string {
  const id = Notification.emit(message, 'in-progress', { autoClose: false });
  const oldest = room.take(id, Date.now());
  if (oldest !== null) {
    Notification.dismiss(oldest);
  }
  return id;
}

/** The begun work failed. */
export function fail(noteId: string, message: string): void {
  Notification.update({ id: noteId, message, type: 'error', autoClose: room.renew(noteId, Date.now()) });
}

/** A note that follows a run which the user has just submitted, until it ends. */
export function follow(run: Run, noteId: string, events: Events, show: () => void): void {
  followed.set(run.id, noteId);
  const actions = [{ label: 'Show', callback: show }];
  const tell = (now: Run, autoClose: number): void => {
    const progress = progressPart(now.progress);
    Notification.update({
      id: noteId,
      message: cut(progressMessage(now)),
      type: 'info',
      autoClose,
      actions,
      ...(progress === null ? {} : { progress })
    });
  };
  tell(run, room.renew(noteId, Date.now()));
  let { state } = run;
  const end = events.listen(run.id, change => {
    if (change.type === 'run') {
      const shownMs = room.left(noteId, Date.now());
      if (isFinal(change.data)) {
        end();
      } else if (shownMs !== null || change.data.state !== state) {
        tell(change.data, shownMs ?? LIST_ONLY); // each change in the list lights the bell: not for every step
      }
      state = change.data.state;
    }
  });
}

/** Says how a run ended: in its own note if it has one that is still in the list, else in a new one. */
export function tellEnd(run: Run, show: () => void): void {
  const now = Date.now();
  const type = KINDS[run.state] ?? 'info';
  const known = followed.get(run.id);
  followed.delete(run.id);
  const note = { message: cut(endMessage(run)), type, actions: [{ label: 'Show', callback: show }] };
  if (known !== undefined) {
    const autoClose = room.has(known, now) || room.isFree(now) ? room.renew(known, now) : LIST_ONLY;
    if (Notification.update({ id: known, ...note, autoClose, progress: 1 })) {
      return;
    }
    room.leave(known);
  }
  const isFree = room.isFree(now);
  const autoClose = isFree ? room.shownMs : LIST_ONLY;
  const id = Notification.emit(note.message, type, { autoClose, actions: note.actions });
  if (isFree) {
    room.take(id, now);
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

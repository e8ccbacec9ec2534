/** What the plugins of this extension give to each other, and to others. */

import { Token } from '@lumino/coreutils';

import type { ActivityStore } from './model/activity';
import type { Api } from './model/api';
import type { Events } from './model/events';
import type { Host } from './views/host';

export interface IAtelier {
  api: Api;
  events: Events;
  activity: ActivityStore;
  /** What a view needs; `beside` is the path of the notebook that shows it. */
  host(beside?: string): Host;
}

export const IAtelier = new Token<IAtelier>(
  '@jupyterhub-atelier/lab:IAtelier',
  'The runs and models of the signed-in user: requests, live changes, views.'
);

export const CommandIDs = {
  runInBackground: 'atelier:run-in-background',
  showRuns: 'atelier:show-runs',
  showRun: 'atelier:show-run',
  openRun: 'atelier:open-run'
} as const;

export const CATEGORY = 'Atelier';

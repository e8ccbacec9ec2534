/** Atelier in JupyterLab: live views of runs and models, and running a notebook in the background. */

import type { JupyterFrontEndPlugin } from '@jupyterlab/application';

import { clientPlugin } from './client';
import { kernelsPlugin } from './kernels';
import { panelPlugin } from './panel';
import { resultsPlugin } from './results';
import { submitPlugin } from './submit';
import { themesPlugin } from './themes';
import { trustPlugin } from './trust';
import { viewsPlugin } from './views';

export { IAtelier } from './tokens';

// eslint-disable-next-line @typescript-eslint/no-explicit-any
const plugins: JupyterFrontEndPlugin<any>[] = [
  clientPlugin,
  viewsPlugin,
  panelPlugin,
  submitPlugin,
  themesPlugin,
  trustPlugin,
  resultsPlugin,
  kernelsPlugin
];

export default plugins;

/** The plugin that draws runs, models and the questions of running cells in the outputs of notebooks. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';

import { IAtelier } from './tokens';
import { askingFactory, rendererFactory } from './widgets';

export const viewsPlugin: JupyterFrontEndPlugin<void> = {
  id: '@jupyterhub-atelier/lab:views',
  description: 'Live views of runs and models in the outputs of notebooks.',
  autoStart: true,
  requires: [IAtelier],
  optional: [IRenderMimeRegistry],
  activate: (_app: JupyterFrontEnd, atelier: IAtelier, rendermime: IRenderMimeRegistry | null): void => {
    rendermime?.addFactory(rendererFactory(atelier));
    rendermime?.addFactory(askingFactory(atelier));
  }
};

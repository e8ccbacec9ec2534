/** The plugin that trusts what a cell shows once the user has run it, also where the server executes the cells. */

import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { type Notebook, NotebookActions } from '@jupyterlab/notebook';

type CellModel = Notebook['widgets'][number]['model'];

/**
 * JupyterLab's own executor does this when it begins. Without it a form in a notebook from elsewhere, an example say, shows
 * its text only: https://github.com/jupyter-ai-contrib/jupyter-server-documents/issues/307
 */
export const trustPlugin: JupyterFrontEndPlugin<void> = {
  id: '@jupyterhub-atelier/lab:trust',
  description: 'Trusts what a cell shows once the user has run it.',
  autoStart: true,
  activate: (): void => {
    NotebookActions.executionScheduled.connect((_sender, { cell }) => trust(cell.model));
  }
};

/** What the cell showed before goes first: it may be somebody else's, and must not become trusted with the cell. */
function trust(model: CellModel): void {
  if (model.type === 'code' && !model.trusted) {
    (model as CellModel & { outputs: { clear: () => void } }).outputs.clear();
    model.trusted = true;
  }
}

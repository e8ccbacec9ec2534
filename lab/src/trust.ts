/** The plugin that trusts a cell which the user runs, where the server executes it and JupyterLab's own executor is not asked. */

import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import type { Cell, ICodeCellModel } from '@jupyterlab/cells';
import { type Notebook, NotebookActions } from '@jupyterlab/notebook';

/**
 * Without this, forms in a notebook from elsewhere, an example say, show their text only:
 * https://github.com/jupyter-ai-contrib/jupyter-server-documents/issues/307
 */
export const trustPlugin: JupyterFrontEndPlugin<void> = {
  id: '@jupyterhub-atelier/lab:trust',
  description: 'Trusts what a cell shows once the user has run it.',
  autoStart: true,
  activate: (): void => {
    NotebookActions.executionScheduled.connect(trust);
  }
};

/** What was there before goes first: it is somebody else's, and must not become trusted with the cell. */
function trust(_sender: unknown, run: { notebook: Notebook; cell: Cell }): void {
  const { model } = run.cell;
  if (model.type === 'code' && !model.trusted) {
    (model as ICodeCellModel).outputs.clear();
    model.trusted = true;
  }
}

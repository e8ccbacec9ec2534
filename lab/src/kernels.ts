/** The plugin that tells the forms of a notebook when the kernel behind them has gone: widgets hear of a restart only. */

import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';

const GONE = 'atelier:kernel-gone';

export const kernelsPlugin: JupyterFrontEndPlugin<void> = {
  id: '@jupyterhub-atelier/lab:kernels',
  description: 'Tells forms in a notebook when their kernel is shut down or another one takes its place.',
  autoStart: true,
  optional: [INotebookTracker],
  activate: (_app, tracker: INotebookTracker | null): void => {
    tracker?.widgetAdded.connect((_tracker, panel) => {
      panel.sessionContext.kernelChanged.connect((_context, { oldValue }) => {
        if (oldValue !== null) {
          tell(panel);
        }
      });
    });
  }
};

function tell(panel: NotebookPanel): void {
  panel.node.querySelectorAll('.af-root').forEach(form => form.dispatchEvent(new CustomEvent(GONE)));
}

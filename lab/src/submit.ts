/** The plugin that runs the notebook at hand in the background: command, toolbar button, menu entry. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';

import { runIcon } from './icon';
import { asApiError } from './model/api';
import { begin, fail, follow } from './notices';
import { CATEGORY, CommandIDs, IAtelier } from './tokens';

export const submitPlugin: JupyterFrontEndPlugin<void> = {
  id: '@jupyterhub-atelier/lab:plugin',
  description: 'Runs the notebook at hand in the background.',
  autoStart: true,
  requires: [IAtelier],
  optional: [INotebookTracker, ICommandPalette],
  activate: (
    app: JupyterFrontEnd,
    atelier: IAtelier,
    tracker: INotebookTracker | null,
    palette: ICommandPalette | null
  ): void => {
    const busy = new Set<NotebookPanel>();
    app.commands.addCommand(CommandIDs.runInBackground, {
      label: 'Run in Background',
      caption: 'Save this notebook and run it in the background, from its first cell to its last',
      icon: runIcon,
      describedBy: { args: { type: 'object', properties: {} } },
      isEnabled: () => tracker?.currentWidget != null,
      execute: async () => {
        const panel = tracker?.currentWidget;
        if (panel && !busy.has(panel)) {
          busy.add(panel);
          await submit(app, atelier, panel).finally(() => busy.delete(panel));
        }
      }
    });
    palette?.addItem({ command: CommandIDs.runInBackground, category: CATEGORY });
    tracker?.currentChanged.connect(() => app.commands.notifyCommandChanged(CommandIDs.runInBackground));
  }
};

/**
 * Brings the notebook to the disk; what the server must still wait for is returned.
 *
 * One that is open for collaboration is written by the server some time after each change, whatever the page does: Lab's
 * own save then finds the file changed and asks whether to overwrite it, and "not dirty" is told of an older state. So
 * the server gets the sources of the cells, and waits until the file has them.
 */
async function save(panel: NotebookPanel): Promise<string[] | null> {
  const { model } = panel.context;
  if (model.collaborative) {
    return Array.from(model.cells, cell => cell.sharedModel.getSource());
  }
  await panel.context.save();
  return null;
}

async function submit(app: JupyterFrontEnd, atelier: IAtelier, panel: NotebookPanel): Promise<void> {
  const path = app.serviceManager.contents.localPath(panel.context.path);
  const name = path.slice(path.lastIndexOf('/') + 1);
  const note = begin(`Submitting ${name}…`);
  try {
    const sources = await save(panel);
    const run = await atelier.api.submit(path, sources);
    const show = (): void => void app.commands.execute(CommandIDs.showRun, { id: run.id });
    follow(run, note, atelier.events, show);
  } catch (problem) {
    const error = asApiError(problem);
    fail(note, `${name} was not submitted: ${error.message} ${error.hint}`.trim().slice(0, 400));
  }
}

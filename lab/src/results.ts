/** The plugin that puts the result of a form below it, as an output of its cell: it is saved, and outlives the kernel. */

import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { INotebookTracker } from '@jupyterlab/notebook';

/** What a form asks with; it cancels the event when somebody has put the result into the page. */
const SHOW = 'atelier:show';
const MARK = 'atelier-result';

interface Shown {
  data: Record<string, unknown>;
  metadata: Record<string, unknown>;
}

/** What is used of the outputs of a code cell. */
interface Outputs {
  length: number;
  get(index: number): Shown;
  set(index: number, output: object): void;
  add(output: object): number;
}

export const resultsPlugin: JupyterFrontEndPlugin<void> = {
  id: '@jupyterhub-atelier/lab:results',
  description: 'Shows what a form has led to, a run or a model, below the form.',
  autoStart: true,
  optional: [INotebookTracker],
  activate: (_app, tracker: INotebookTracker | null): void => {
    document.addEventListener(SHOW, event => {
      const outputs = tracker && outputsOf(tracker, event.target as Node);
      if (outputs) {
        put(outputs, (event as CustomEvent<{ bundle: object }>).detail.bundle);
        event.preventDefault();
      }
    });
  }
};

function outputsOf(tracker: INotebookTracker, form: Node): Outputs | null {
  const panel = tracker.find(one => one.node.contains(form));
  const cell = panel?.content.widgets.find(one => one.node.contains(form));
  return cell?.model.type === 'code' ? (cell.model as typeof cell.model & { outputs: Outputs }).outputs : null;
}

/** In place of an older result, or of the empty output that the kernel has made for one. */
function put(outputs: Outputs, bundle: object): void {
  const output = { output_type: 'display_data', data: bundle, metadata: { [MARK]: true } };
  for (let index = outputs.length - 1; index > 0; index--) {
    if (isResult(outputs.get(index))) {
      outputs.set(index, output);
      return;
    }
  }
  outputs.add(output);
}

function isResult(shown: Shown): boolean {
  const isPlace = Object.keys(shown.data).join() === 'text/plain' && shown.data['text/plain'] === '';
  return isPlace || shown.metadata[MARK] === true;
}

/** The plugin that says when the kernel behind a form or another widget is not there: widgets hear of a restart only. */

import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';

import { needsKernelText, type Shown } from './model/outputs';

const GONE = 'atelier:kernel-gone';
/** What ipywidgets writes in place of a widget whose kernel is another one, and while there is none at all. */
const UNKNOWN = 'Error displaying widget: model not found';
const WAITING = 'Loading widget...';

export const kernelsPlugin: JupyterFrontEndPlugin<void> = {
  id: '@jupyterhub-atelier/lab:kernels',
  description: 'Tells forms in a notebook when their kernel is shut down or another one takes its place.',
  autoStart: true,
  optional: [INotebookTracker],
  activate: (_app, tracker: INotebookTracker | null): void => {
    tracker?.widgetAdded.connect((_tracker, panel) => {
      const { sessionContext } = panel;
      sessionContext.kernelChanged.connect((_context, { oldValue, newValue }) => {
        if (oldValue !== null) {
          tell(panel);
        }
        if (newValue === null) {
          sayAll(panel);
        }
      });
      void sessionContext.ready.then(() => sessionContext.hasNoKernel && sayAll(panel));
      follow(panel);
    });
  }
};

function tell(panel: NotebookPanel): void {
  panel.node.querySelectorAll('.af-root').forEach(form => form.dispatchEvent(new CustomEvent(GONE)));
}

/** ipywidgets finds out late, and has no way to ask it: its words appear in the output, and are put better there. */
function follow(panel: NotebookPanel): void {
  const observer = new MutationObserver(records => {
    for (const { target } of records) {
      if (target instanceof HTMLElement && isWordOnly(target)) {
        const isAway = target.textContent === WAITING && panel.sessionContext.hasNoKernel;
        if (isAway || target.textContent === UNKNOWN) {
          say(panel, target);
        }
      }
    }
  });
  observer.observe(panel.content.node, { childList: true, subtree: true });
  panel.disposed.connect(() => observer.disconnect());
}

function sayAll(panel: NotebookPanel): void {
  if (!panel.isDisposed) {
    const all = panel.node.querySelectorAll<HTMLElement>('.jp-OutputArea-output');
    all.forEach(node => node.textContent === WAITING && say(panel, node));
  }
}

function isWordOnly(node: HTMLElement): boolean {
  return node.childNodes.length === 1 && node.classList.contains('jp-OutputArea-output');
}

function say(panel: NotebookPanel, node: HTMLElement): void {
  const [root, notice] = [document.createElement('div'), document.createElement('div')];
  root.className = 'at-root';
  notice.className = 'at-notice at-notice-warn';
  notice.textContent = needsKernelText(shownBy(panel, node));
  root.append(notice);
  node.replaceChildren(root);
}

function shownBy(panel: NotebookPanel, node: HTMLElement): Shown | null {
  const cell = panel.content.widgets.find(one => one.node.contains(node));
  if (cell?.model.type !== 'code') {
    return null;
  }
  const index = [...cell.node.querySelectorAll('.jp-OutputArea-output')].indexOf(node);
  const { outputs } = cell.model as typeof cell.model & { outputs: { get(index: number): Shown | undefined } };
  return outputs.get(index) ?? null;
}

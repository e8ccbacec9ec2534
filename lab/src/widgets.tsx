/** The views as Lumino widgets: in a cell's output, in a tab, in the side panel. */

import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { ReactWidget } from '@jupyterlab/ui-components';
import type { ReactNode } from 'react';

import { readModelTarget, readQuestion, readRunsTarget, readRunTarget } from './model/ids';
import type { Run } from './model/records';
import { runIcon } from './icon';
import type { IAtelier } from './tokens';
import { HostContext, type Host } from './views/host';
import { ModelView } from './views/ModelView';
import { Panel } from './views/Panel';
import { Notice } from './views/parts';
import { QuestionView } from './views/QuestionView';
import { RunList } from './views/RunList';
import { RunView } from './views/RunView';

export const RUN_TYPE = 'application/vnd.atelier.run+json';
export const RUNS_TYPE = 'application/vnd.atelier.runs+json';
export const MODEL_TYPE = 'application/vnd.atelier.model+json';

const VIEWS: Record<string, (data: unknown) => ReactNode> = {
  [RUN_TYPE]: data => {
    const target = readRunTarget(data);
    return target && <RunView id={target.id} />;
  },
  [RUNS_TYPE]: data => {
    const target = readRunsTarget(data);
    return target && <RunList target={target} />;
  },
  [MODEL_TYPE]: data => {
    const target = readModelTarget(data);
    return target && <ModelView target={target} />;
  }
};

/** What a MIME bundle names, drawn from the service's present state. */
class OutputView extends ReactWidget implements IRenderMime.IRenderer {
  private data: unknown = null;

  constructor(
    private readonly mimeType: string,
    private readonly host: Host
  ) {
    super();
    this.addClass('at-root');
    this.addClass('at-card');
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    this.data = model.data[this.mimeType];
    this.update();
    await this.renderPromise;
  }

  protected render(): JSX.Element {
    const view = VIEWS[this.mimeType]?.(this.data);
    return (
      <HostContext.Provider value={this.host}>
        {view ?? <Notice tone="warn" title="This output names nothing that Atelier can show." />}
      </HostContext.Provider>
    );
  }
}

export function rendererFactory(atelier: IAtelier): IRenderMime.IRendererFactory {
  return {
    safe: true, // ids only, drawn with textContent: an untrusted notebook can show no more than its reader may see
    mimeTypes: Object.keys(VIEWS),
    defaultRank: 0,
    createRenderer: options => new OutputView(options.mimeType, atelier.host(notebookOf(options)))
  };
}

export const INPUT_TYPE = 'application/vnd.atelier.input+json';

/** What a running cell asks: a field in its outputs. */
class AskingView extends ReactWidget implements IRenderMime.IRenderer {
  private data: unknown = null;

  constructor(private readonly host: Host) {
    super();
    this.addClass('at-root');
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    this.data = model.data[INPUT_TYPE];
    this.update();
    await this.renderPromise;
  }

  protected render(): JSX.Element {
    const question = readQuestion(this.data);
    return (
      <HostContext.Provider value={this.host}>
        {question ? <QuestionView key={question.id} question={question} /> : <></>}
      </HostContext.Provider>
    );
  }
}

export function askingFactory(atelier: IAtelier): IRenderMime.IRendererFactory {
  return {
    safe: false, // a field that somebody else's notebook words is not shown before the user has run the cell
    mimeTypes: [INPUT_TYPE],
    defaultRank: 0,
    createRenderer: options => new AskingView(atelier.host(notebookOf(options)))
  };
}

/** The path of the document whose output is drawn; the resolver of Lab's documents knows it. */
function notebookOf(options: IRenderMime.IRendererOptions): string | undefined {
  const path = (options.resolver as { path?: unknown } | null)?.path;
  return typeof path === 'string' && path !== '' ? path : undefined;
}

/** The runs in the left area, and one of them when it is picked. */
export class RunsPanel extends ReactWidget {
  private shown: string | null = null;

  constructor(
    private readonly host: Host,
    private readonly openInTab: (run: Run) => void
  ) {
    super();
    this.id = 'atelier-runs';
    this.title.icon = runIcon;
    this.title.caption = 'Atelier runs';
    this.addClass('at-root');
    this.addClass('at-panel');
  }

  show(): void {
    super.show();
    this.update();
  }

  showRun(id: string | null): void {
    this.shown = id;
    this.update();
  }

  protected render(): JSX.Element {
    return (
      <HostContext.Provider value={this.host}>
        <Panel shown={this.shown} show={id => this.showRun(id)} openInTab={this.openInTab} />
      </HostContext.Provider>
    );
  }
}

/** One run as the content of a tab. */
export class RunTab extends ReactWidget {
  constructor(
    readonly runId: string,
    private readonly host: Host,
    private readonly removed: () => void
  ) {
    super();
    this.addClass('at-root');
    this.addClass('at-tab-content');
  }

  protected render(): JSX.Element {
    return (
      <HostContext.Provider value={this.host}>
        <RunView id={this.runId} onRemoved={this.removed} />
      </HostContext.Provider>
    );
  }
}

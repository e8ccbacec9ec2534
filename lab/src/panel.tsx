/** The plugin of the side panel, of runs in tabs, of the status bar's item and of the notes when a run ends. */

import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, MainAreaWidget, WidgetTracker } from '@jupyterlab/apputils';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ReactWidget } from '@jupyterlab/ui-components';

import { runIcon } from './icon';
import { isRunId } from './model/ids';
import type { Run } from './model/records';
import { tellEnd } from './notices';
import { CATEGORY, CommandIDs, IAtelier } from './tokens';
import { HostContext, type Host } from './views/host';
import { StatusItem } from './views/StatusItem';
import { RunsPanel, RunTab } from './widgets';

const ID_ARGUMENT = {
  type: 'object',
  properties: {
    id: { type: 'string', description: 'Id of the run' },
    name: { type: 'string', description: 'Its name' },
    activate: { type: 'boolean', description: 'Whether to bring it to the front', default: true }
  },
  required: ['id']
} as const;

export const panelPlugin: JupyterFrontEndPlugin<void> = {
  id: '@jupyterhub-atelier/lab:panel',
  description: 'The runs of the signed-in user beside the work.',
  autoStart: true,
  requires: [IAtelier],
  optional: [ICommandPalette, ILayoutRestorer, IStatusBar],
  activate: (
    app: JupyterFrontEnd,
    atelier: IAtelier,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    statusBar: IStatusBar | null
  ): void => {
    const panel = new RunsPanel(
      atelier.host(),
      run => void app.commands.execute(CommandIDs.openRun, { id: run.id, name: run.name })
    );
    app.shell.add(panel, 'left', { rank: 700 });
    restorer?.add(panel, panel.id);
    const tabs = new WidgetTracker<MainAreaWidget<RunTab>>({ namespace: 'atelier-run-tabs' });
    addCommands(app, atelier, panel, tabs);
    void restorer?.restore(tabs, {
      command: CommandIDs.openRun,
      args: tab => ({ id: tab.content.runId, name: tab.title.label, activate: false }),
      name: tab => tab.content.runId
    });
    palette?.addItem({ command: CommandIDs.showRuns, category: CATEGORY });
    statusBar?.registerStatusItem('@jupyterhub-atelier/lab:runs', {
      item: statusItem(app, atelier),
      align: 'left',
      rank: 90
    });
    atelier.activity.subscribe(() => undefined);
    atelier.activity.onEnd(run => tellEnd(run, () => void app.commands.execute(CommandIDs.showRun, { id: run.id })));
  }
};

type Tabs = WidgetTracker<MainAreaWidget<RunTab>>;

function addCommands(app: JupyterFrontEnd, atelier: IAtelier, panel: RunsPanel, tabs: Tabs): void {
  app.commands.addCommand(CommandIDs.showRuns, {
    label: 'Show Atelier Runs',
    caption: 'Show your background runs',
    icon: runIcon,
    describedBy: { args: { type: 'object', properties: {} } },
    execute: () => {
      panel.showRun(null);
      app.shell.activateById(panel.id);
    }
  });
  app.commands.addCommand(CommandIDs.showRun, {
    label: 'Show Run',
    describedBy: { args: ID_ARGUMENT },
    execute: args => {
      if (isRunId(args['id'])) {
        panel.showRun(args['id']);
        app.shell.activateById(panel.id);
      }
    }
  });
  app.commands.addCommand(CommandIDs.openRun, {
    label: 'Open Run in a Tab',
    describedBy: { args: ID_ARGUMENT },
    execute: args => {
      if (isRunId(args['id'])) {
        const name = typeof args['name'] === 'string' ? args['name'] : args['id'];
        const tab =
          tabs.find(one => one.content.runId === args['id']) ?? openTab(app, tabs, atelier.host(), args['id'], name);
        if (args['activate'] !== false) {
          app.shell.activateById(tab.id);
        }
        return tab;
      }
      return undefined;
    }
  });
}

function openTab(app: JupyterFrontEnd, tabs: Tabs, host: Host, id: Run['id'], name: string): MainAreaWidget<RunTab> {
  const tab: MainAreaWidget<RunTab> = new MainAreaWidget({ content: new RunTab(id, host, () => tab.dispose()) });
  tab.id = `atelier-${id}`;
  tab.title.label = name;
  tab.title.caption = `Run ${id}`;
  tab.title.icon = runIcon;
  tab.title.closable = true;
  app.shell.add(tab, 'main', { activate: false });
  void tabs.add(tab);
  return tab;
}

function statusItem(app: JupyterFrontEnd, atelier: IAtelier): ReactWidget {
  const item = ReactWidget.create(
    <HostContext.Provider value={atelier.host()}>
      <StatusItem onClick={() => void app.commands.execute(CommandIDs.showRuns)} />
    </HostContext.Provider>
  );
  item.addClass('at-status');
  return item;
}

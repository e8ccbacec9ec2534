/** The plugin that talks to the server: one set of requests and one WebSocket for the whole page. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { URLExt } from '@jupyterlab/coreutils';
import type { ServerConnection } from '@jupyterlab/services';

import { ActivityStore } from './model/activity';
import { Api } from './model/api';
import { Events } from './model/events';
import { IAtelier } from './tokens';

export const clientPlugin: JupyterFrontEndPlugin<IAtelier> = {
  id: '@jupyterhub-atelier/lab:client',
  description: 'Requests to the run service and its live changes.',
  autoStart: true,
  provides: IAtelier,
  activate: (app: JupyterFrontEnd): IAtelier => {
    const { serverSettings, contents } = app.serviceManager;
    const api = new Api(serverSettings);
    const events = new Events({ open: () => openSocket(serverSettings) });
    const openFile = (path: string): void => {
      void app.commands.execute('docmanager:open', { path });
    };
    const activity = new ActivityStore(api, events);
    return {
      api,
      events,
      activity,
      host: beside => ({
        api,
        events,
        activity,
        openFile,
        beside: beside === undefined ? undefined : contents.localPath(beside)
      })
    };
  }
};

function openSocket(settings: ServerConnection.ISettings): WebSocket {
  const url = URLExt.join(settings.wsUrl, 'atelier', 'events');
  const query = settings.appendToken && settings.token ? `?token=${encodeURIComponent(settings.token)}` : '';
  return new settings.WebSocket(url + query);
}

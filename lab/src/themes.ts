/** The plugin that has a theme picked while Lab follows the system: Lab itself then only ceases to follow it. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IThemeManager, ThemeManager } from '@jupyterlab/apputils';

const CHANGE_THEME = 'apputils:change-theme';
const SPLASH = 'jupyterlab-splash';
const LOOKS = 100;
const LOOK_MS = 50;

export const themesPlugin: JupyterFrontEndPlugin<void> = {
  id: '@jupyterhub-atelier/lab:themes',
  description: 'Takes the theme that was picked also when the system’s had been followed until then.',
  autoStart: true,
  optional: [IThemeManager],
  activate: (app: JupyterFrontEnd, themes: IThemeManager | null): void => {
    app.commands.commandExecuted.connect((_, { id, args, result }) => {
      const picked = args['theme'];
      // told before the command's work is done: this is whether the system has been followed until now
      if (
        id === CHANGE_THEME &&
        typeof picked === 'string' &&
        themes instanceof ThemeManager &&
        isToBeTaken(picked, themes)
      ) {
        void result.then(splashGone).then(() => themes.setTheme(picked));
      }
    });
  }
};

function isToBeTaken(picked: string, themes: ThemeManager): boolean {
  return picked !== themes.theme && themes.isToggledAdaptiveTheme();
}

/** Lab shows a splash screen for each theme that it loads, and fails when the second comes before the first has gone. */
async function splashGone(): Promise<void> {
  for (let look = 0; look < LOOKS && document.getElementById(SPLASH) !== null; look++) {
    await new Promise(resolve => setTimeout(resolve, LOOK_MS));
  }
}

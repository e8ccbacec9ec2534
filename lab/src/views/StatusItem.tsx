/** The status bar's item: how many runs are going, or that the service can't be asked. */

import { activityText } from '../model/activity';
import { useActivity, useConnection } from './host';
import { Icon, NOT_RUNNING } from './parts';

export function StatusItem(props: { onClick: () => void }): JSX.Element {
  const data = useActivity();
  const connection = useConnection();
  const asleep = connection.error?.code === NOT_RUNNING;
  const away = connection.state === 'reconnecting' || (connection.state === 'service-down' && !asleep);
  const running = data.unfinished.size > 0;
  const text = away ? 'Runs: not reachable' : activityText(data.unfinished);
  const title = away ? (connection.error?.message ?? 'The notebook server does not answer.') : 'Show Atelier runs';
  return (
    <button
      type="button"
      className="at-status-button"
      title={title}
      onClick={props.onClick}
      data-testid="atelier-status"
    >
      <Icon shape={away ? 'warn' : running ? 'arc' : 'circle'} />
      {text}
    </button>
  );
}

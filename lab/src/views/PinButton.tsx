/** The button that keeps a run whatever is cleaned up, or no longer. */

import { useState } from 'react';

import { asApiError, type ApiError } from '../model/api';
import { Button, errorText } from './parts';

export const PIN_HINT = 'Keep it: a pinned run is neither deleted nor cleaned up';

export function PinButton(props: { pinned: boolean; pin: (pinned: boolean) => Promise<void> }): JSX.Element {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  const toggle = async (): Promise<void> => {
    setBusy(true);
    setError(null);
    try {
      await props.pin(!props.pinned);
    } catch (problem) {
      setError(asApiError(problem));
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      {error && (
        <span className="at-trouble" role="alert">
          {errorText(error)}
        </span>
      )}
      <Button
        icon="pin"
        disabled={busy}
        hint={props.pinned ? 'Let it be deleted and cleaned up again' : PIN_HINT}
        onClick={() => void toggle()}
      >
        {props.pinned ? 'Unpin' : 'Pin'}
      </Button>
    </>
  );
}

/** Buttons that act at once, and say what went wrong: the one that pins a run among them. */

import { type ReactNode } from 'react';

import { Button, errorText, useAct } from './parts';

export function ActingButton(props: {
  icon: string;
  hint?: string;
  act: () => Promise<void>;
  children: ReactNode;
}): JSX.Element {
  const { busy, error, act } = useAct(props.act);
  return (
    <>
      {error && (
        <span className="at-trouble" role="alert">
          {errorText(error)}
        </span>
      )}
      <Button
        icon={props.icon}
        disabled={busy}
        {...(props.hint ? { hint: props.hint } : {})}
        onClick={() => void act()}
      >
        {props.children}
      </Button>
    </>
  );
}

export const PIN_HINT = 'Keep it: a pinned run is neither deleted nor cleaned up';

export function PinButton(props: { pinned: boolean; pin: (pinned: boolean) => Promise<void> }): JSX.Element {
  return (
    <ActingButton
      icon="pin"
      hint={props.pinned ? 'Let it be deleted and cleaned up again' : PIN_HINT}
      act={() => props.pin(!props.pinned)}
    >
      {props.pinned ? 'Unpin' : 'Pin'}
    </ActingButton>
  );
}

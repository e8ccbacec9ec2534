/** What a running cell asks, with a field for the answer. */

import { useEffect, useId, useRef, useState, type KeyboardEvent } from 'react';

import { asApiError, type ApiError } from '../model/api';
import type { Question } from '../model/ids';
import { useHost } from './host';
import { Button, Notice } from './parts';

/** The server takes the field away when it has the answer. */
export function QuestionView(props: { question: Question }): JSX.Element {
  const { id, prompt, password } = props.question;
  const { api } = useHost();
  const field = useRef<HTMLInputElement>(null);
  const label = useId();
  const [isSent, setSent] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  useEffect(() => {
    const notebook = field.current?.closest('.jp-Notebook');
    if (notebook?.contains(document.activeElement)) {
      field.current?.focus(); // as Lab does: who has just run the cell types on
    }
  }, []);
  const send = (): void => {
    field.current?.closest<HTMLElement>('.jp-Cell')?.focus(); // the field goes, and keys are the notebook's again
    setSent(true);
    setError(null);
    api.answer(id, field.current?.value ?? '').catch((problem: unknown) => {
      setError(asApiError(problem));
      setSent(false);
    });
  };
  const key = (event: KeyboardEvent): void => {
    if (event.key === 'Enter' && !event.nativeEvent.isComposing) {
      event.preventDefault();
      event.stopPropagation();
      send();
    }
  };
  return (
    <div className="at-question" data-lm-suppress-shortcuts="true" role="group" aria-label="Question of this cell">
      <label htmlFor={label} className="at-prompt">
        {prompt || 'Input:'}
      </label>
      <input
        ref={field}
        id={label}
        className="at-answer"
        type={password ? 'password' : 'text'}
        autoComplete="off"
        spellCheck={false}
        disabled={isSent}
        onKeyDown={key}
      />
      <Button disabled={isSent} onClick={send}>
        Enter
      </Button>
      {error && (
        <Notice tone="warn" title={error.message}>
          {error.hint}
        </Notice>
      )}
    </div>
  );
}

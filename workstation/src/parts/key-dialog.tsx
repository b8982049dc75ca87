/** Asks for an API key where the server wants one, and says why. */
import { useRef } from 'preact/hooks';
import { answerKey, keyQuestion } from '../state/session.ts';
import { words } from '../words/words.ts';
import { Dialog } from './dialog.tsx';

export function KeyDialog() {
  const question = keyQuestion.value;
  const text = words.value.key;
  const input = useRef<HTMLInputElement>(null);
  return (
    <Dialog
      title={question?.refused ? text.refused : text.title}
      open={question !== null}
      onClose={() => keyQuestion.value && answerKey(null)}
    >
      <form
        onSubmit={(event) => {
          event.preventDefault();
          const key = input.current?.value.trim();
          if (key) answerKey(key);
        }}
      >
        {question?.refused && <p>{question.detail}</p>}
        <p class="muted">{text.about}</p>
        <label>
          <span>{text.label}</span>
          <input ref={input} type="password" autocomplete="off" placeholder="emx_…" required />
        </label>
        <p class="muted small">{text.firstKey}</p>
        <div class="buttons end">
          <button type="button" onClick={() => answerKey(null)}>
            {words.value.cancel}
          </button>
          <button type="submit" class="primary">
            {text.use}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

/** What several files are, before they are sent together. */
import { useState } from 'preact/hooks';
import type { Priority, SubmissionOptions } from '../state/uploads.ts';
import { words } from '../words/words.ts';
import { Dialog } from './dialog.tsx';

interface Props {
  files: readonly File[];
  onClose: () => void;
  onSubmit: (options: SubmissionOptions) => void;
}

export function SubmitDialog({ files, onClose, onSubmit }: Props) {
  const text = words.value.submit;
  const [priority, setPriority] = useState<Priority>('routine');
  return (
    <Dialog title={text.title(files.length)} open={files.length > 0} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          const form = new FormData(event.currentTarget);
          const given = (name: string) => String(form.get(name) ?? '').trim();
          const [study, patient, indication] = [given('study'), given('patient'), given('indication')];
          onSubmit({
            priority,
            ...(study && { study }),
            ...(patient && { patient }),
            ...(indication && { indication }),
          });
        }}
      >
        <p class="muted">{text.about}</p>
        <div class="fields">
          <label>
            <span>{words.value.worklist.priority}</span>
            <select value={priority} onChange={(event) => setPriority(event.currentTarget.value as Priority)}>
              {Object.entries(words.value.priorities).map(([kind, name]) => (
                <option key={kind} value={kind}>
                  {name}
                </option>
              ))}
            </select>
          </label>
          <label>
            <span>{text.study}</span>
            <input name="study" maxLength={255} autocomplete="off" />
          </label>
          <label>
            <span>{text.patient}</span>
            <input name="patient" maxLength={255} autocomplete="off" />
          </label>
          <label>
            <span>{text.indication}</span>
            <input name="indication" maxLength={500} autocomplete="off" />
          </label>
        </div>
        <div class="buttons end">
          <button type="button" onClick={onClose}>
            {words.value.cancel}
          </button>
          <button type="submit" class="primary">
            {text.send(files.length)}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

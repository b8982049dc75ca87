/** How far the files that were dropped together are, and how long it may still take. */
import { X } from 'lucide-preact';
import { span } from '../parts/text.ts';
import { dismiss, type FileSet, fileSets } from '../state/uploads.ts';
import { isOpen, jobs } from '../state/worklist.ts';
import { words } from '../words/words.ts';

export function SendingSets() {
  return (
    <>
      {fileSets.value.map((set) => (
        <SendingSet key={set.id} set={set} />
      ))}
    </>
  );
}

function SendingSet({ set }: { set: FileSet }) {
  const text = words.value.submit;
  const sent = set.files.filter((one) => one.state === 'sent');
  const refused = set.files.filter((one) => one.state === 'refused');
  const read = sent.filter((one) => {
    const job = one.job === null ? undefined : jobs.value.get(one.job);
    return job && !isOpen(job);
  });
  const isSending = sent.length + refused.length < set.files.length;
  const seconds = (Date.now() - set.began) / 1000;
  const left = read.length ? ((set.files.length - read.length - refused.length) * seconds) / read.length : null;
  if (set.files.length === 1 && !refused.length) return null;
  return (
    <div class="sending" role="status">
      <p>
        {text.sending(sent.length, set.files.length)} · {text.read(read.length, set.files.length)}
        {left !== null && left > 1 && <> · {text.left(span(left))}</>}
        <button
          type="button"
          class="icon"
          aria-label={isSending ? text.stop : words.value.close}
          title={isSending ? text.stop : words.value.close}
          onClick={() => dismiss(set.id)}
        >
          <X size={14} aria-hidden="true" />
        </button>
      </p>
      <progress
        max={set.files.length}
        value={(sent.length + read.length) / 2}
        aria-label={text.sending(sent.length, set.files.length)}
      />
      {refused.length > 0 && (
        <details open={set.files.length === 1}>
          <summary class="error">{text.refused(refused.length)}</summary>
          <ul class="small">
            {refused.map((one, at) => (
              <li key={at}>
                {one.file.name}: {one.why}
              </li>
            ))}
          </ul>
        </details>
      )}
    </div>
  );
}

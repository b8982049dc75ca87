/** Asks before anything is erased, and says what goes. */
import { useState } from 'preact/hooks';
import { Dialog } from '../parts/dialog.tsx';
import { eraseJobs } from '../state/actions.ts';
import { words } from '../words/words.ts';

export function EraseDialog({ ids, onClose }: { ids: readonly string[]; onClose: (problems: string[]) => void }) {
  const text = words.value.erase;
  const [busy, setBusy] = useState(false);
  return (
    <Dialog title={text.title(ids.length)} open={ids.length > 0} onClose={() => onClose([])}>
      <p>{text.about}</p>
      <div class="buttons end">
        <button type="button" onClick={() => onClose([])}>
          {words.value.cancel}
        </button>
        <button
          type="button"
          class="danger"
          disabled={busy}
          onClick={async () => {
            setBusy(true);
            const problems = await eraseJobs(ids);
            setBusy(false);
            onClose(problems);
          }}
        >
          {busy ? text.busy : text.confirm}
        </button>
      </div>
    </Dialog>
  );
}

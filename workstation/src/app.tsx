/** The whole page: header, the reading room or the operations page, and the dialogs above them. */
import { useSignal } from '@preact/signals';
import { lazy, Suspense } from 'preact/compat';
import { useCallback, useEffect } from 'preact/hooks';
import { fetchFrom } from './api/client.ts';
import { register } from './commands/commands.ts';
import { HelpDialog } from './commands/help-dialog.tsx';
import { Palette } from './commands/palette.tsx';
import { Header } from './parts/header.tsx';
import { KeyDialog } from './parts/key-dialog.tsx';
import { SubmitDialog } from './parts/submit-dialog.tsx';
import { ReadingRoom } from './reading-room.tsx';
import { open, openOperations, route } from './route.ts';
import { analyse } from './state/actions.ts';
import { chosenFile } from './state/chosen-file.ts';
import { watchServer } from './state/server.ts';
import { watch } from './state/worklist.ts';
import { words } from './words/words.ts';
import { filesOf } from './worklist/dropping.ts';

const Operations = lazy(() => import('./operations/operations.tsx'));

export function App() {
  const dropping = useSignal(false);
  const toSubmit = useSignal<readonly File[]>([]);

  /** One file is looked at before it is sent; several are sent together, after a question. */
  const takeFiles = useCallback((files: File[]) => {
    if (files.length === 1 && files[0]) {
      chosenFile.value = files[0];
      open(null);
    } else if (files.length > 1) {
      toSubmit.value = files;
    }
  }, []);
  const takeDemo = useCallback(async () => {
    const image = await (await fetchFrom('demo.png')).blob();
    takeFiles([new File([image], 'demo.png', { type: 'image/png' })]);
  }, []);

  useEffect(() => {
    watch();
    watchServer();
    return register([
      { id: 'operations', name: () => words.value.commands.operations, key: 'v', run: openOperations },
      { id: 'reading', name: () => words.value.commands.reading, key: 'V', run: () => open(null) },
    ]);
  }, []);
  useEffect(() => {
    const over = (event: DragEvent) => {
      if (!event.dataTransfer?.types.includes('Files')) return;
      event.preventDefault();
      dropping.value = event.type !== 'dragleave' || event.relatedTarget !== null;
    };
    const drop = async (event: DragEvent) => {
      event.preventDefault();
      dropping.value = false;
      if (event.dataTransfer) takeFiles(await filesOf(event.dataTransfer));
    };
    const paste = (event: ClipboardEvent) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length) takeFiles(files);
    };
    addEventListener('dragover', over);
    addEventListener('dragleave', over);
    addEventListener('drop', drop);
    addEventListener('paste', paste);
    return () => {
      removeEventListener('dragover', over);
      removeEventListener('dragleave', over);
      removeEventListener('drop', drop);
      removeEventListener('paste', paste);
    };
  }, []);

  return (
    <>
      <Header />
      {route.value.page === 'operations' ? (
        <Suspense fallback={<main class="operations" />}>
          <Operations />
        </Suspense>
      ) : (
        <ReadingRoom onFiles={takeFiles} onDemo={takeDemo} />
      )}
      {dropping.value && (
        <div class="drop-target" aria-hidden="true">
          <p>{words.value.worklist.drop}</p>
          <p class="muted">{words.value.worklist.dropAbout}</p>
        </div>
      )}
      <SubmitDialog
        files={toSubmit.value}
        onClose={() => {
          toSubmit.value = [];
        }}
        onSubmit={(options) => {
          const files = toSubmit.value;
          toSubmit.value = [];
          analyse(files, options);
        }}
      />
      <KeyDialog />
      <Palette />
      <HelpDialog />
    </>
  );
}

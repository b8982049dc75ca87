/** All commands by name: type, choose, done. */
import { useSignal } from '@preact/signals';
import { useId } from 'preact/hooks';
import { Dialog } from '../parts/dialog.tsx';
import { words } from '../words/words.ts';
import { type Command, commands, keyName, paletteOpen } from './commands.ts';

export function Palette() {
  return (
    <Dialog
      title={words.value.commands.palette}
      open={paletteOpen.value}
      onClose={() => {
        paletteOpen.value = false;
      }}
      class="palette"
    >
      <Choices />
    </Dialog>
  );
}

function Choices() {
  const text = words.value.commands;
  const typed = useSignal('');
  const at = useSignal(0);
  const list = useId();
  const wanted = typed.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = commands.value.filter(
    (one) => (one.enabled?.() ?? true) && wanted.every((word) => one.name().toLowerCase().includes(word)),
  );
  const place = Math.min(at.value, Math.max(found.length - 1, 0));
  const run = (command: Command | undefined) => {
    if (!command) return;
    paletteOpen.value = false;
    command.run();
  };
  return (
    <>
      <input
        type="text"
        role="combobox"
        aria-expanded="true"
        aria-controls={list}
        aria-activedescendant={found[place] && `${list}-${found[place].id}`}
        aria-label={text.search}
        placeholder={text.search}
        value={typed.value}
        onInput={(event) => {
          typed.value = event.currentTarget.value;
          at.value = 0;
        }}
        onKeyDown={(event) => {
          const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
          if (by) {
            event.preventDefault();
            at.value = (place + by + found.length) % Math.max(found.length, 1);
          }
          if (event.key === 'Enter') run(found[place]);
        }}
      />
      <div id={list} role="listbox" aria-label={text.palette} class="choices">
        {found.map((one, index) => (
          <div
            key={one.id}
            id={`${list}-${one.id}`}
            role="option"
            tabIndex={-1}
            aria-selected={index === place}
            onClick={() => run(one)}
            onKeyDown={() => {}}
          >
            <span>{one.name()}</span> <kbd>{keyName(one.key)}</kbd>
          </div>
        ))}
      </div>
      {!found.length && <p class="muted">{text.nothing}</p>}
    </>
  );
}

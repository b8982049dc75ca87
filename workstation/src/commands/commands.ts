/** Every action of the workstation: its name, its key, and what it does. */
import { computed, type Signal, signal } from '@preact/signals';
import { flushSync } from 'preact/compat';
import { words } from '../words/words.ts';

export interface Command {
  id: string;
  /** Its name in the reader's language. */
  name: () => string;
  /** The key as `KeyboardEvent.key` has it, with `Mod+` or `Shift+` before it. */
  key: string;
  run: () => void;
  /** Whether it can be run now; always by default. */
  enabled?: () => boolean;
}

const registered = signal<readonly Command[]>([]);

export const commands = computed(() => registered.value);

/** Adds commands. Returns what takes them away again. */
export function register(added: readonly Command[]): () => void {
  registered.value = [...registered.value, ...added];
  return () => {
    registered.value = registered.value.filter((one) => !added.includes(one));
  };
}

export const paletteOpen = signal(false);
export const helpOpen = signal(false);

/** Opens a dialog at once: what is typed next belongs to it. */
const show = (dialog: Signal<boolean>) => () => flushSync(() => (dialog.value = true));

register([
  { id: 'palette', name: () => words.value.commands.palette, key: 'Mod+k', run: show(paletteOpen) },
  { id: 'help', name: () => words.value.commands.help, key: '?', run: show(helpOpen) },
]);

const isMac = /mac|iphone|ipad/i.test(navigator.userAgent);

/** Returns a key as it is printed on keyboards. */
export function keyName(key: string): string {
  const names: Record<string, string> = {
    ...{ ArrowDown: '↓', ArrowUp: '↑', ArrowLeft: '←', ArrowRight: '→', Enter: '↵', Escape: 'Esc' },
    ...{ ' ': 'Space', Delete: 'Del', Mod: isMac ? '⌘' : 'Ctrl', Shift: '⇧' },
  };
  return key
    .split(/(?<=.)\+/)
    .map(
      (part) =>
        names[part] ??
        (/^[A-Z]$/.test(part) ? `${names.Shift} ${part}` : part.length === 1 ? part.toUpperCase() : part),
    )
    .join(' ');
}

/** Returns what of an event a command's key is compared with. */
function keyOf(event: KeyboardEvent): string {
  const mod = event.ctrlKey || event.metaKey ? 'Mod+' : '';
  const shift = event.shiftKey && event.key.length > 1 ? 'Shift+' : '';
  return mod + shift + event.key;
}

const TYPING =
  'input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]';

addEventListener('keydown', (event) => {
  if (event.altKey || event.isComposing || document.querySelector('dialog[open]')) return;
  if (paletteOpen.value || helpOpen.value) return;
  const target = event.target as Element;
  const key = keyOf(event);
  if (target.matches?.(TYPING) && !key.startsWith('Mod+')) return;
  // A focused button or link keeps the keys that work it.
  if ((key === 'Enter' || key === ' ') && target.closest?.('button, a, [role=row], [role=button]')) return;
  if (key.startsWith('Arrow') && target.matches?.('input, [role=slider], [role=tab]')) return;
  const command = registered.value.find((one) => one.key === key && (one.enabled?.() ?? true));
  if (!command) return;
  event.preventDefault();
  command.run();
});

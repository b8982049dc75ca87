/** What a reader chose for this browser. */
import { effect, type Signal, signal } from '@preact/signals';

/** Returns a signal whose value outlives the page; the default where the stored value is none of `values`. */
function kept<T extends string>(name: string, values: readonly T[], initial: T): Signal<T> {
  const stored = localStorage.getItem(name) as T | null;
  const value = signal(stored && values.includes(stored) ? stored : initial);
  effect(() => localStorage.setItem(name, value.value));
  return value;
}

export type Theme = 'system' | 'dark' | 'light';
export type Language = 'en' | 'es';

export const theme = kept<Theme>('theme', ['system', 'dark', 'light'], 'system');
export const language = kept<Language>(
  'language',
  ['en', 'es'],
  navigator.language.startsWith('es') ? 'es' : 'en',
);
/** The reader's initials, as feedback names them. */
export const reviewer = signal(localStorage.getItem('reviewer') ?? '');
effect(() => localStorage.setItem('reviewer', reviewer.value));

const bright = matchMedia('(prefers-color-scheme: light)');
const systemIsBright = signal(bright.matches);
bright.addEventListener('change', () => {
  systemIsBright.value = bright.matches;
});

effect(() => {
  const chosen = theme.value === 'system' ? (systemIsBright.value ? 'light' : 'dark') : theme.value;
  document.documentElement.dataset.theme = chosen;
});
effect(() => {
  document.documentElement.lang = language.value;
});

/** The API key of this tab, and the question for one. */
import { signal } from '@preact/signals';

const STORED_AS = 'key';

/** The key that requests are sent with; null without one. It is kept until the tab is closed. */
export const apiKey = signal<string | null>(sessionStorage.getItem(STORED_AS));

/** The open question for a key: why the server asks, and where the answer goes. */
export const keyQuestion = signal<{ refused: boolean; detail: string } | null>(null);

let answer: ((key: string | null) => void) | null = null;
let asked: Promise<string | null> | null = null;

/**
 * Asks the reader for a key; several requests at once ask once. Returns null if the reader has none.
 *
 * @param refused whether a key was sent and refused.
 * @param detail the server's sentence.
 */
export function askForKey(refused: boolean, detail: string): Promise<string | null> {
  asked ??= new Promise<string | null>((resolve) => {
    keyQuestion.value = { refused, detail };
    answer = resolve;
  }).finally(() => {
    asked = null;
  });
  return asked;
}

/** Takes the reader's answer to `askForKey`. */
export function answerKey(key: string | null): void {
  apiKey.value = key;
  if (key) sessionStorage.setItem(STORED_AS, key);
  else sessionStorage.removeItem(STORED_AS);
  keyQuestion.value = null;
  answer?.(key);
  answer = null;
}

/** Forgets the key of this tab. */
export function forgetKey(): void {
  apiKey.value = null;
  sessionStorage.removeItem(STORED_AS);
}

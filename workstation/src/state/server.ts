/** What the server says of itself: whether anyone reads, and how long the queues are. */
import { computed, signal } from '@preact/signals';
import { addressOf } from '../api/client.ts';

const POLL_MS = 10_000;

export type Part = 'redis' | 'store' | 'worker' | 'courier';

/** Whether each part that a report needs is available; null before the first answer. */
export const checks = signal<Record<Part, boolean> | null>(null);

/** Whether no worker is alive, though the server answers. */
export const isUnread = computed(() => checks.value?.worker === false);

/** Asks now and then, while the page is visible. */
export async function watchServer(): Promise<void> {
  for (;;) {
    if (!document.hidden) {
      try {
        const answer: { checks: Record<Part, boolean> } = await (await fetch(addressOf('readyz'))).json();
        checks.value = answer.checks;
      } catch {
        checks.value = null; // the worklist says that the server can't be reached
      }
    }
    await new Promise((resume) => setTimeout(resume, POLL_MS));
  }
}

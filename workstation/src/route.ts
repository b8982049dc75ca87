/** What is open, as the address says: a link opens one job, the back key returns. */
import { computed, signal } from '@preact/signals';

export type Route = { page: 'reading'; job: string | null; beside: string | null } | { page: 'operations' };

const hash = signal(location.hash);
addEventListener('hashchange', () => {
  hash.value = location.hash;
});

const ID = '[0-9a-f-]{36}';
const READING = new RegExp(`^#/jobs/(${ID})(?:/beside/(${ID}))?$`);

export const route = computed<Route>(() => {
  if (hash.value === '#/operations') return { page: 'operations' };
  const found = READING.exec(hash.value);
  return { page: 'reading', job: found?.[1] ?? null, beside: found?.[2] ?? null };
});

/** Returns the address of a job, to be put into a link. */
export const linkTo = (job: string | null, beside: string | null = null): string =>
  job === null ? '#/' : `#/jobs/${job}${beside ? `/beside/${beside}` : ''}`;

/** Opens a job. */
export function open(job: string | null, beside: string | null = null): void {
  location.hash = linkTo(job, beside);
}

export function openOperations(): void {
  location.hash = '#/operations';
}

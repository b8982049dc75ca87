/** What of the worklist is shown, and which rows are selected. */
import { computed, signal } from '@preact/signals';
import { words } from '../words/words.ts';
import { fileNames } from './uploads.ts';
import { type Job, newestFirst } from './worklist.ts';

export type Sort = 'newest' | 'oldest' | 'priority' | 'findings';

export const searchText = signal('');
export const stateFilter = signal<Job['state'] | 'all'>('all');
export const sort = signal<Sort>('newest');
export const selected = signal<ReadonlySet<string>>(new Set());

const RANK = { stat: 0, routine: 1, backlog: 2 };

/** Everything of a job that a search looks at, in lower case. */
function textOf(job: Job): string {
  const findings = job.summary?.findings.map(
    ({ label, laterality }) => `${laterality ?? ''} ${label} ${laterality ?? ''}`,
  );
  const day = job.submitted_at.slice(0, 10);
  const reviewed = job.feedback ? `${words.value.worklist.reviewed} reviewed ${job.feedback.reviewer}` : '';
  return [
    job.id,
    reviewed,
    job.study,
    job.patient,
    job.name,
    fileNames.value.get(job.id),
    job.state,
    day,
    ...(findings ?? []),
  ]
    .join(' ')
    .toLowerCase();
}

/** The rows that match, in the chosen order. */
export const shownJobs = computed<readonly Job[]>(() => {
  const wanted = searchText.value.toLowerCase().split(/\s+/).filter(Boolean);
  const state = stateFilter.value;
  const found = newestFirst.value.filter((job) => {
    if (state !== 'all' && job.state !== state) return false;
    if (!wanted.length) return true;
    const text = textOf(job);
    return wanted.every((word) => text.includes(word));
  });
  const findings = (job: Job) => job.summary?.findings.length ?? -1;
  switch (sort.value) {
    case 'oldest':
      return found.reverse();
    case 'priority':
      return found.sort((a, b) => RANK[a.priority] - RANK[b.priority]);
    case 'findings':
      return found.sort((a, b) => findings(b) - findings(a));
    default:
      return found;
  }
});

/** Returns the job that comes so many rows after another in the shown list; null beyond its ends. */
export function neighbour(id: string | null, by: number): Job | null {
  const rows = shownJobs.value;
  const at = rows.findIndex((job) => job.id === id);
  return at < 0 ? (rows[0] ?? null) : (rows[at + by] ?? null);
}

export function toggleSelected(id: string): void {
  const next = new Set(selected.value);
  if (!next.delete(id)) next.add(id);
  selected.value = next;
}

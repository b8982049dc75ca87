/** The jobs of this server, the newest first, kept up to date. */
import { computed, signal } from '@preact/signals';
import { api, data, type Schemas } from '../api/client.ts';
import { Problem } from '../api/problem.ts';

export type Summary = Schemas['JobSummary'];
export type Job = Schemas['Job'] & { summary?: Summary | null };
type JobList = Schemas['JobList'];

const PAGE = 200;
const MOST_ROWS = 20_000;
const POLL_MS = 2_000;
const REFRESHED_AT_ONCE = 20;
/** Open jobs beyond the newest page that are looked at each time. */

export const jobs = signal<ReadonlyMap<string, Job>>(new Map());
/** Whether the list has been read once, to its end. */
export const listed = signal(false);
/** Why the list can't be read now; null while it can. */
export const listProblem = signal<Problem | null>(null);
/** Ids whose erasure this page asked for and that isn't confirmed yet. */
export const erasing = signal<ReadonlySet<string>>(new Set());

export const isOpen = (job: Job): boolean => job.state === 'queued' || job.state === 'running';

export const newestFirst = computed(() =>
  [...jobs.value.values()].sort(
    (a, b) => b.submitted_at.localeCompare(a.submitted_at) || b.id.localeCompare(a.id),
  ),
);

/** Puts jobs into the list, or their newer states in place of what it has. */
export function put(found: readonly Job[]): void {
  const next = new Map(jobs.value);
  let isChanged = false;
  for (const job of found) {
    const known = next.get(job.id);
    // An answer that was under way may be older than what an event said.
    if (known && !isOpen(known) && isOpen(job)) continue;
    const summary = summaryOf(job) ?? job.summary ?? known?.summary ?? null;
    const feedback = job.feedback ?? known?.feedback ?? null;
    const isSame =
      known !== undefined &&
      known.state === job.state &&
      known.ahead === job.ahead &&
      known.finished_at === job.finished_at &&
      known.feedback?.version === feedback?.version &&
      Boolean(known.summary) === Boolean(summary);
    if (isSame) continue;
    next.set(job.id, { ...job, summary, feedback, report: null });
    isChanged = true;
  }
  if (isChanged) jobs.value = next;
}

/** Takes jobs out of the list. */
export function drop(ids: readonly string[]): void {
  const next = new Map(jobs.value);
  for (const id of ids) next.delete(id);
  jobs.value = next;
}

function summaryOf(job: Job): Summary | null {
  const report = job.report;
  if (!report) return null;
  const { width, height } = report.image;
  return {
    findings: report.locations.map(({ label, code, laterality, colour, box_normalised, probability }) => ({
      label,
      code,
      laterality: laterality ?? null,
      colour,
      box_normalised,
      probability: probability ?? null,
    })),
    abstained: report.abstained ?? false,
    warnings: report.warnings?.length ?? 0,
    width,
    height,
    demo: report.model.demo,
  };
}

async function page(cursor: string | null): Promise<JobList> {
  const query = { limit: PAGE, include: ['summary' as const], ...(cursor ? { cursor } : {}) };
  return data<JobList>(api.GET('/v1/jobs', { params: { query } }));
}

/** Reads the whole list, a page at a time. */
async function readAll(): Promise<void> {
  let cursor: string | null = null;
  do {
    const found: JobList = await page(cursor);
    put(found.items);
    cursor = found.next_cursor ?? null;
  } while (cursor && jobs.value.size < MOST_ROWS);
  listed.value = true;
}

/** Reads what is new, and how open jobs that are further down stand. */
async function refresh(): Promise<void> {
  let cursor: string | null = null;
  const seen = new Set<string>();
  do {
    const known = jobs.value;
    const found: JobList = await page(cursor);
    for (const job of found.items) seen.add(job.id);
    put(found.items);
    cursor = found.items.some((job) => !known.has(job.id)) ? (found.next_cursor ?? null) : null;
  } while (cursor);
  const further = newestFirst.value.filter((job) => isOpen(job) && !seen.has(job.id));
  // The oldest are read first: those are the ones that change.
  await Promise.all(further.slice(-REFRESHED_AT_ONCE).map((job) => refreshOne(job.id)));
}

/** Reads one job; one that is gone leaves the list. */
export async function refreshOne(id: string): Promise<Job | null> {
  try {
    const job = await data<Job>(api.GET('/v1/jobs/{id}', { params: { path: { id } } }));
    put([job]);
    return job;
  } catch (error) {
    if (error instanceof Problem && error.status === 404) {
      drop([id]);
      return null;
    }
    throw error;
  }
}

let started = false;

/** Keeps the list up to date while the page is open and visible. */
export async function watch(): Promise<void> {
  if (started) return;
  started = true;
  for (;;) {
    let wait = POLL_MS;
    if (!document.hidden) {
      try {
        await (listed.value ? refresh() : readAll());
        listProblem.value = null;
      } catch (error) {
        const problem = error instanceof Problem ? error : new Problem(0, 'unknown', String(error));
        listProblem.value = problem;
        wait = Math.max(wait, (problem.retryAfter ?? 0) * 1000);
      }
    }
    await new Promise((resume) => setTimeout(resume, wait));
  }
}

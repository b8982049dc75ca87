/** The job that is open in the reading room: its report, as it is written, and what is chosen of it. */
import { computed, effect, signal } from '@preact/signals';
import { api, data, type Schemas } from '../api/client.ts';
import { followJob } from '../api/events.ts';
import { Problem } from '../api/problem.ts';
import { route } from '../route.ts';
import { isOpen, type Job, put } from './worklist.ts';

export type Location = Schemas['Location'];

export interface Reading {
  id: string;
  job: Job | null;
  /** The report's text so far. */
  text: string;
  /** Why the job can't be shown. */
  problem: Problem | null;
  /** Whether the stream of its events broke off and is tried again. */
  cutOff: boolean;
  /** When this page asked for the report; null where it came some other way. */
  asked: number | null;
  /** When the report was there, for what this page asked for. */
  answered: number | null;
}

export const reading = signal<Reading | null>(null);

/** Boxes that the reader took off, by index of the location. */
export const hiddenBoxes = signal<ReadonlySet<number>>(new Set());
/** Findings below this probability are not drawn. */
export const threshold = signal(0);
export const boxOpacity = signal(1);
export const boxesShown = signal(true);
/** Index of the location that is pointed at, and of the one that is chosen. */
export const hovered = signal<number | null>(null);
export const chosen = signal<number | null>(null);

export const locations = computed<readonly Location[]>(() => reading.value?.job?.report?.locations ?? []);

/** Returns whether a finding is to be drawn by its probability. */
export const isProbable = (location: Location): boolean => (location.probability ?? 1) >= threshold.value;

const askedFor = new Map<string, number>();

/** Notes that this page asked for a job's report, so that it can say how long it took. */
export function noteAsked(job: string, at: number): void {
  askedFor.set(job, at);
}

let following: AbortController | null = null;

effect(() => {
  const now = route.value;
  const id = now.page === 'reading' ? now.job : null;
  if (id === (reading.peek()?.id ?? null)) return;
  following?.abort();
  following = null;
  hiddenBoxes.value = new Set();
  hovered.value = null;
  chosen.value = null;
  if (!id) {
    reading.value = null;
    return;
  }
  const asked = askedFor.get(id) ?? null;
  reading.value = { id, job: null, text: '', problem: null, cutOff: false, asked, answered: null };
  follow(id);
});

function update(id: string, change: Partial<Reading>): void {
  const now = reading.peek();
  if (now?.id === id) reading.value = { ...now, ...change };
}

/** Shows a job as it is, and follows it to its end. */
async function follow(id: string): Promise<void> {
  const stop = new AbortController();
  following = stop;
  try {
    let job = await data<Job>(api.GET('/v1/jobs/{id}', { params: { path: { id } } }));
    put([job]);
    update(id, { job });
    if (!isOpen(job)) return;
    const onState = (state: Job['state']) => {
      job = { ...job, state };
      put([job]);
      update(id, { job });
    };
    const onConnection = (isOn: boolean) => update(id, { cutOff: !isOn });
    job = await followJob(id, { onState, onText: (text) => update(id, { text }) }, stop.signal, onConnection);
    put([job]);
    update(id, { job, text: '', cutOff: false, answered: Date.now() });
  } catch (error) {
    if (stop.signal.aborted) return;
    update(id, { problem: error instanceof Problem ? error : new Problem(0, 'unknown', String(error)) });
  }
}

/** Reads the open job anew, after something was changed about it. */
export async function reloadReading(): Promise<void> {
  const id = reading.peek()?.id;
  if (!id) return;
  const job = await data<Job>(api.GET('/v1/jobs/{id}', { params: { path: { id } } }));
  put([job]);
  update(id, { job });
}

/** Cancels the open job. */
export async function cancelReading(): Promise<void> {
  const id = reading.peek()?.id;
  if (!id) return;
  try {
    await data(api.POST('/v1/jobs/{id}/cancel', { params: { path: { id } } }));
  } catch (error) {
    if (!(error instanceof Problem && error.status === 409)) throw error; // it had ended
  }
  await reloadReading();
}

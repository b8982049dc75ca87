/** Files on their way to the server: one or hundreds, a few at a time, whatever the connection does. */
import { effect, signal } from '@preact/signals';
import { fetchFrom } from '../api/client.ts';
import { Problem } from '../api/problem.ts';
import { isOpen, type Job, jobs, put } from './worklist.ts';

export type Priority = 'stat' | 'routine' | 'backlog';

export interface SubmissionOptions {
  priority: Priority;
  study?: string;
  patient?: string;
  indication?: string;
}

/** One file of a set. Its name stays in this browser: names of files often hold those of patients. */
export interface SentFile {
  file: File;
  state: 'waiting' | 'sending' | 'sent' | 'refused';
  job: string | null;
  why: string | null;
}

/** What was dropped together. */
export interface FileSet {
  id: string;
  files: readonly SentFile[];
  /** Milliseconds since 1970. */
  began: number;
}

const AT_ONCE = 3;
const LONGEST_WAIT_MS = 20_000;
const NAMES = 'file-names';
const MOST_NAMES = 5_000;

/** Sets whose files are not all with the server yet, or were refused. */
export const fileSets = signal<readonly FileSet[]>([]);

/** Names of the files that this browser sent, by the id of the job. */
export const fileNames = signal<ReadonlyMap<string, string>>(storedNames());

function storedNames(): Map<string, string> {
  try {
    return new Map(JSON.parse(localStorage.getItem(NAMES) ?? '[]'));
  } catch {
    return new Map();
  }
}

function keepName(job: string, name: string): void {
  const entries = [...fileNames.value, [job, name] as const].slice(-MOST_NAMES);
  fileNames.value = new Map(entries);
  localStorage.setItem(NAMES, JSON.stringify(entries));
}

/**
 * Sends files, and keeps at it through lost connections and full servers. Returns the jobs, in the order of the
 * files; null for one that was refused or cancelled.
 */
export async function send(files: readonly File[], options: SubmissionOptions): Promise<(Job | null)[]> {
  const set: FileSet = {
    id: crypto.randomUUID(),
    files: files.map((file) => ({ file, state: 'waiting', job: null, why: null })),
    began: Date.now(),
  };
  fileSets.value = [...fileSets.value, set];
  const results: (Job | null)[] = files.map(() => null);
  let next = 0;
  const sender = async () => {
    for (let at = next++; at < files.length; at = next++) {
      results[at] = await sendOne(set.id, at, files[at] as File, options);
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, files.length) }, sender));
  return results;
}

/** Takes sets off the screen that are sent and read. */
effect(() => {
  const isDone = ({ job, state }: SentFile) => {
    const found = job === null ? undefined : jobs.value.get(job);
    return state === 'sent' && found !== undefined && !isOpen(found);
  };
  const left = fileSets.value.filter((set) => !set.files.every(isDone));
  if (left.length < fileSets.value.length) fileSets.value = left;
});

// A page that is left sends nothing more: the browser asks first.
addEventListener('beforeunload', (event) => {
  const isLeft = ({ state }: SentFile) => state === 'waiting' || state === 'sending';
  if (fileSets.value.some((set) => set.files.some(isLeft))) event.preventDefault();
});

/** Takes a set off the screen, and sends nothing more of it. What the server has stays. */
export function dismiss(id: string): void {
  fileSets.value = fileSets.value.filter((one) => one.id !== id);
}

const isDismissed = (id: string): boolean => !fileSets.value.some((one) => one.id === id);

function update(id: string, at: number, change: Partial<SentFile>): void {
  fileSets.value = fileSets.value.map((set) =>
    set.id === id
      ? { ...set, files: set.files.map((one, index) => (index === at ? { ...one, ...change } : one)) }
      : set,
  );
}

async function sendOne(set: string, at: number, file: File, options: SubmissionOptions): Promise<Job | null> {
  const query = new URLSearchParams({ priority: options.priority });
  for (const name of ['study', 'patient', 'indication'] as const) {
    const value = options[name];
    if (value) query.set(name, value);
  }
  const idempotency = crypto.randomUUID();
  for (let wait = 1000; !isDismissed(set); wait = Math.min(wait * 2, LONGEST_WAIT_MS)) {
    update(set, at, { state: 'sending' });
    try {
      const response = await fetchFrom(`v1/jobs?${query}`, {
        method: 'POST',
        body: file,
        headers: { 'Content-Type': 'application/octet-stream', 'Idempotency-Key': idempotency },
      });
      const job: Job = await response.json();
      keepName(job.id, file.name);
      put([job]);
      update(set, at, { state: 'sent', job: job.id, why: null });
      return job;
    } catch (error) {
      const problem = error instanceof Problem ? error : new Problem(0, 'unreadable', String(error));
      update(set, at, { state: problem.passing ? 'waiting' : 'refused', why: problem.message });
      if (!problem.passing) return null;
      await new Promise((resume) => setTimeout(resume, (problem.retryAfter ?? 0) * 1000 || wait));
    }
  }
  return null;
}

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
  files: SentFile[];
  began: number;
  cancelled: boolean;
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

const changed = () => {
  fileSets.value = [...fileSets.value];
};

/**
 * Sends files, and keeps at it through lost connections and full servers. Returns the jobs, in the order of the
 * files; null for one that was refused or cancelled.
 */
export async function send(files: readonly File[], options: SubmissionOptions): Promise<(Job | null)[]> {
  const set: FileSet = {
    id: crypto.randomUUID(),
    files: files.map((file) => ({ file, state: 'waiting', job: null, why: null })),
    began: Date.now(),
    cancelled: false,
  };
  fileSets.value = [...fileSets.value, set];
  const results: (Job | null)[] = set.files.map(() => null);
  let next = 0;
  const sender = async () => {
    for (let at = next++; at < set.files.length; at = next++) {
      results[at] = await sendOne(set, set.files[at] as SentFile, options);
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, files.length) }, sender));
  if (set.cancelled) dismiss(set);
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

/** Takes a set off the screen. */
export function dismiss(set: FileSet): void {
  fileSets.value = fileSets.value.filter((one) => one !== set);
}

/** Sends nothing more of a set. What the server has stays. */
export function stopSending(set: FileSet): void {
  set.cancelled = true;
  changed();
}

async function sendOne(set: FileSet, one: SentFile, options: SubmissionOptions): Promise<Job | null> {
  const query = new URLSearchParams({ priority: options.priority });
  for (const name of ['study', 'patient', 'indication'] as const) {
    const value = options[name];
    if (value) query.set(name, value);
  }
  const idempotency = crypto.randomUUID();
  for (let wait = 1000; !set.cancelled; wait = Math.min(wait * 2, LONGEST_WAIT_MS)) {
    one.state = 'sending';
    changed();
    try {
      const response = await fetchFrom(`v1/jobs?${query}`, {
        method: 'POST',
        body: one.file,
        headers: { 'Content-Type': 'application/octet-stream', 'Idempotency-Key': idempotency },
      });
      const job: Job = await response.json();
      Object.assign(one, { state: 'sent', job: job.id, why: null });
      keepName(job.id, one.file.name);
      put([job]);
      changed();
      return job;
    } catch (error) {
      const problem = error instanceof Problem ? error : new Problem(0, 'unreadable', String(error));
      one.why = problem.message;
      one.state = problem.passing ? 'waiting' : 'refused';
      changed();
      if (!problem.passing) return null;
      await new Promise((resume) => setTimeout(resume, (problem.retryAfter ?? 0) * 1000 || wait));
    }
  }
  one.state = 'refused';
  return null;
}

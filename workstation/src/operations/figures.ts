/** What the worklist's jobs say of the service: how many are read, how fast, and what fails. */
import type { Job } from '../state/worklist.ts';

export interface Minute {
  /** Seconds since 1970, of its start. */
  at: number;
  read: number;
  failed: number;
  /** Seconds from submission to report; null where none was read. */
  median: number | null;
  p95: number | null;
}

/** Returns a share of sorted values' place: 0.5 for the median. Null of none. */
export function quantile(sorted: readonly number[], share: number): number | null {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? null;
}

const secondsOf = (job: Job): number => (Date.parse(job.finished_at ?? '') - Date.parse(job.submitted_at)) / 1000;

/** Returns the last minutes, oldest first. */
export function minutesOf(jobs: Iterable<Job>, count: number, now: number = Date.now()): Minute[] {
  const last = Math.floor(now / 60_000);
  const taken = Array.from({ length: count }, () => ({ read: [] as number[], failed: 0 }));
  for (const job of jobs) {
    if (!job.finished_at) continue;
    const minute = taken[Math.floor(Date.parse(job.finished_at) / 60_000) - last + count - 1];
    if (!minute) continue;
    if (job.state === 'succeeded') minute.read.push(secondsOf(job));
    else if (job.state === 'failed') minute.failed++;
  }
  return taken.map(({ read, failed }, index) => {
    read.sort((a, b) => a - b);
    return {
      at: (last - count + 1 + index) * 60,
      read: read.length,
      failed,
      median: quantile(read, 0.5),
      p95: quantile(read, 0.95),
    };
  });
}

export interface Latency {
  priority: Job['priority'];
  count: number;
  median: number;
  p95: number;
  p99: number;
}

/** Returns how long reports took, by priority. */
export function latencies(jobs: Iterable<Job>): Latency[] {
  const taken: Record<Job['priority'], number[]> = { stat: [], routine: [], backlog: [] };
  for (const job of jobs)
    if (job.state === 'succeeded' && job.finished_at) taken[job.priority].push(secondsOf(job));
  return (['stat', 'routine', 'backlog'] as const).flatMap((priority) => {
    const sorted = taken[priority].sort((a, b) => a - b);
    const [median, p95, p99] = [0.5, 0.95, 0.99].map((share) => quantile(sorted, share));
    return median != null && p95 != null && p99 != null
      ? [{ priority, count: sorted.length, median, p95, p99 }]
      : [];
  });
}

export interface FailureKind {
  code: string;
  message: string;
  count: number;
  /** The newest job that failed so. */
  job: string;
}

/** Returns why jobs failed, the most frequent reason first. */
export function failuresOf(newestFirst: Iterable<Job>): FailureKind[] {
  const kinds = new Map<string, FailureKind>();
  for (const { id, failure } of newestFirst) {
    if (!failure) continue;
    const known = kinds.get(failure.code);
    if (known) known.count++;
    else kinds.set(failure.code, { code: failure.code, message: failure.message, count: 1, job: id });
  }
  return [...kinds.values()].sort((a, b) => b.count - a.count);
}

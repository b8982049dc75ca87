/** What is done with jobs of the worklist, one or many. */
import { api, data, fetchFrom } from '../api/client.ts';
import { Problem } from '../api/problem.ts';
import { open, route } from '../route.ts';
import { forgetPicture } from '../viewer/pictures.ts';
import { noteAsked } from './reading.ts';
import { selected } from './selection.ts';
import { fileNames, type Priority, send } from './uploads.ts';
import { drop, erasing, isOpen, type Job, jobs, put, refreshOne } from './worklist.ts';

const AT_ONCE = 4;

/** Does something for each job, a few at a time. Returns what went wrong, a sentence each. */
async function forEach(ids: readonly string[], work: (id: string) => Promise<void>): Promise<string[]> {
  const problems: string[] = [];
  const left = [...ids];
  const worker = async () => {
    for (let id = left.shift(); id; id = left.shift()) {
      try {
        await work(id);
      } catch (error) {
        problems.push(error instanceof Problem ? error.message : String(error));
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return problems;
}

/** Sends files and opens the first. */
export async function analyse(files: readonly File[], options: Parameters<typeof send>[1]): Promise<void> {
  const began = Date.now();
  const sent = await send(files, options);
  for (const job of sent) if (job) noteAsked(job.id, began);
  const first = sent.find((job) => job !== null);
  if (first && files.length === 1) open(first.id);
}

/** Cancels the open ones among these jobs. */
export const cancelJobs = (ids: readonly string[]): Promise<string[]> =>
  forEach(
    ids.filter((id) => {
      const job = jobs.value.get(id);
      return job !== undefined && isOpen(job);
    }),
    async (id) => {
      put([await data<Job>(api.POST('/v1/jobs/{id}/cancel', { params: { path: { id } } }))]);
    },
  );

/** Submits the stored images of these jobs once more. */
export const readAgain = (ids: readonly string[], priority: Priority = 'routine'): Promise<string[]> =>
  forEach(ids, async (id) => {
    const old = jobs.value.get(id);
    const image = await (await fetchFrom(`v1/jobs/${id}/input`)).blob();
    const name = fileNames.value.get(id) ?? 'image';
    const began = Date.now();
    const [job] = await send([new File([image], name)], {
      priority,
      ...(old?.study ? { study: old.study } : {}),
      ...(old?.patient ? { patient: old.patient } : {}),
    });
    if (job) noteAsked(job.id, began);
    if (job && ids.length === 1) open(job.id);
  });

/** Erases jobs for good. They are marked until the server confirms. */
export async function eraseJobs(ids: readonly string[]): Promise<string[]> {
  erasing.value = new Set([...erasing.value, ...ids]);
  const problems = await forEach(ids, async (id) => {
    await data(api.DELETE('/v1/jobs/{id}', { params: { path: { id } } }));
    const now = route.value;
    if (now.page === 'reading' && now.job === id) open(null);
    forgetPicture(id);
    drop([id]);
  });
  const done = new Set(ids);
  erasing.value = new Set([...erasing.value].filter((id) => !done.has(id)));
  selected.value = new Set([...selected.value].filter((id) => jobs.value.has(id)));
  if (problems.length) await Promise.all(ids.filter((id) => jobs.value.has(id)).map((id) => refreshOne(id)));
  return problems;
}

/** The reader's own reading of the open report: a draft until it is saved, then a version beside the report. */
import { computed, effect, signal } from '@preact/signals';
import { fetchFrom } from '../api/client.ts';
import { Problem } from '../api/problem.ts';
import type { PixelBox } from '../viewer/viewport.ts';
import { reviewer } from './preferences.ts';
import { type Location, locations, reading } from './reading.ts';
import { refreshOne } from './worklist.ts';

export type LocationVerdict = 'agreed' | 'corrected' | 'rejected' | 'added';
export type Verdict = 'agree' | 'disagree';

/** A finding as the reader sees it. */
export interface DraftLocation {
  key: string;
  /** Index in the report; null for one that the reader added. */
  of: number | null;
  verdict: LocationVerdict | null;
  label: string;
  laterality: 'left' | 'right' | null;
  box: PixelBox;
}

export interface Draft {
  job: string;
  verdict: Verdict | null;
  comment: string;
  locations: DraftLocation[];
}

/** One saved version. */
export interface Feedback {
  job: string;
  version: number;
  reviewed_at: string;
  reviewer: string;
  verdict: Verdict;
  comment: string | null;
  locations: (Omit<DraftLocation, 'key' | 'verdict'> & { verdict: LocationVerdict; colour: string })[];
}

export const draft = signal<Draft | null>(null);
/** Whether boxes can be moved and drawn. */
export const editing = signal(false);
/** Saved versions of the open job, oldest first. */
export const versions = signal<readonly Feedback[]>([]);
export const saveProblem = signal<Problem | null>(null);
export const savedVersion = signal<number | null>(null);
export const isSaving = signal(false);

export const newest = computed(() => versions.value.at(-1) ?? null);

let drawn = 0;
let loadedFor: string | null = null;

effect(() => {
  const job = reading.value?.job;
  if (!job?.report) {
    if (!job || job.id !== loadedFor) clear();
    return;
  }
  if (loadedFor === job.id) return;
  clear();
  loadedFor = job.id;
  draft.value = draftOf(job.id, job.report.locations);
  if (job.feedback) load(job.id);
});

function clear(): void {
  loadedFor = null;
  draft.value = null;
  editing.value = false;
  versions.value = [];
  saveProblem.value = null;
  savedVersion.value = null;
}

function draftOf(job: string, reported: readonly Location[]): Draft {
  return {
    job,
    verdict: null,
    comment: '',
    locations: reported.map(({ label, laterality, box }, of) => ({
      ...{ key: String(of), of, verdict: null, label, laterality: laterality ?? null },
      box,
    })),
  };
}

async function load(job: string): Promise<void> {
  try {
    const found: { items: Feedback[] } = await (await fetchFrom(`v1/jobs/${job}/feedback`)).json();
    if (reading.peek()?.id !== job) return;
    versions.value = found.items;
    const last = found.items.at(-1);
    if (last) draft.value = afterVersion(job, last);
  } catch (error) {
    if (!(error instanceof Problem)) throw error; // without it, a reader begins anew, and saving tells of others
  }
}

/** Returns a draft that begins where a version ended. */
function afterVersion(job: string, version: Feedback): Draft {
  const mentioned = new Map(version.locations.map((one) => [one.of, one]));
  const own = draftOf(job, locations.peek());
  return {
    job,
    verdict: version.verdict,
    comment: version.comment ?? '',
    locations: [
      ...own.locations.map((one) => {
        const said = mentioned.get(one.of);
        return said
          ? { ...one, verdict: said.verdict, label: said.label, laterality: said.laterality, box: said.box }
          : one;
      }),
      ...version.locations
        .filter((one) => one.of === null)
        .map(({ label, laterality, box }) => ({ ...added(box), label, laterality })),
    ],
  };
}

const added = (box: PixelBox): DraftLocation => ({
  ...{
    key: `new-${drawn++}`,
    of: null,
    verdict: 'added' as const,
    label: 'lung opacity',
    laterality: sideOf(box),
  },
  box,
});

/** Returns the patient's side of a box on a frontal view, whose left half shows the right side. */
export function sideOf({ xmin, xmax }: PixelBox): 'left' | 'right' {
  const width = reading.peek()?.job?.report?.image.width ?? 0;
  return (xmin + xmax) / 2 < width / 2 ? 'right' : 'left';
}

function change(to: Partial<Draft>): void {
  if (draft.value) draft.value = { ...draft.value, ...to };
  savedVersion.value = null;
}

function changeLocation(key: string, to: Partial<DraftLocation>): void {
  if (draft.value) {
    change({ locations: draft.value.locations.map((one) => (one.key === key ? { ...one, ...to } : one)) });
  }
}

export function setVerdict(verdict: Verdict): void {
  if (!draft.value) return;
  const agreed = draft.value.locations.map((one) =>
    verdict === 'agree' && one.verdict === null ? { ...one, verdict: 'agreed' as const } : one,
  );
  change({ verdict, locations: agreed });
}

export const setComment = (comment: string): void => change({ comment });

/** Agrees with a finding, or rejects it; the same again takes it back, as the report has it. */
export function judge(key: string, verdict: 'agreed' | 'rejected'): void {
  const one = draft.value?.locations.find((each) => each.key === key);
  if (!one) return;
  if (one.of === null) {
    if (verdict === 'rejected') change({ locations: draft.value?.locations.filter((each) => each !== one) ?? [] });
    return;
  }
  const reported = locations.peek()[one.of];
  if (!reported) return;
  const { label, laterality, box } = reported;
  const next = one.verdict === verdict ? null : verdict;
  changeLocation(key, { verdict: next, label, laterality: laterality ?? null, box });
  if (next === 'rejected' && draft.value?.verdict === null) change({ verdict: 'disagree' });
}

/** Gives a finding another name, side or box. */
export function correct(key: string, to: Partial<Pick<DraftLocation, 'label' | 'laterality' | 'box'>>): void {
  const one = draft.value?.locations.find((each) => each.key === key);
  if (!one) return;
  changeLocation(key, { ...to, verdict: one.of === null ? 'added' : 'corrected' });
  if (draft.value?.verdict === null) change({ verdict: 'disagree' });
}

/** Adds a box that the reader drew. Returns its key. */
export function add(box: PixelBox): string {
  const one = added(box);
  change({ locations: [...(draft.value?.locations ?? []), one], verdict: draft.value?.verdict ?? 'disagree' });
  return one.key;
}

/** Saves the draft as a new version. */
export async function save(): Promise<void> {
  const now = draft.value;
  if (!now || !reviewer.value) return;
  isSaving.value = true;
  saveProblem.value = null;
  try {
    const response = await fetchFrom(`v1/jobs/${now.job}/feedback`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({
        reviewer: reviewer.value,
        verdict: now.verdict ?? 'agree',
        comment: now.comment || null,
        after: versions.value.length,
        locations: now.locations.filter((one) => one.verdict !== null).map(({ key, ...one }) => one),
      }),
    });
    const saved: Feedback = await response.json();
    versions.value = [...versions.value, saved];
    savedVersion.value = saved.version;
    refreshOne(now.job);
    editing.value = false;
  } catch (error) {
    saveProblem.value = error instanceof Problem ? error : new Problem(0, 'unknown', String(error));
    if (saveProblem.value.kind === 'feedback-conflict') {
      const found: { items: Feedback[] } = await (await fetchFrom(`v1/jobs/${now.job}/feedback`)).json();
      versions.value = found.items; // the draft stays: the reader decides
    }
  } finally {
    isSaving.value = false;
  }
}

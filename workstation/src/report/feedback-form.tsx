/** Agree, disagree, correct: the reader's own reading, kept beside the report. */
import { Pencil, ThumbsDown, ThumbsUp, Trash2 } from 'lucide-preact';
import vocabulary from '../api/vocabulary.json';
import { ErrorLine } from '../parts/error-line.tsx';
import { moment, titleOf } from '../parts/text.ts';
import {
  correct,
  type DraftLocation,
  draft,
  editing,
  isSaving,
  judge,
  save,
  savedVersion,
  saveProblem,
  setComment,
  setVerdict,
  sideOf,
  versions,
} from '../state/feedback.ts';
import { reviewer } from '../state/preferences.ts';
import type { Job } from '../state/worklist.ts';
import { choosePrimaryTool } from '../viewer/toolbar.tsx';
import { words } from '../words/words.ts';

const SIDED = new Map(vocabulary.map(({ label, sided }) => [label, sided]));

export function FeedbackForm({ job }: { job: Job }) {
  const text = words.value.feedback;
  const now = draft.value;
  if (!now || now.job !== job.id) return null;
  const toggleEditing = () => {
    editing.value = !editing.value;
    choosePrimaryTool(editing.value ? 'box' : 'window');
  };
  return (
    <form
      class="feedback"
      aria-label={text.title}
      onSubmit={(event) => {
        event.preventDefault();
        save();
      }}
    >
      <h2>{text.title}</h2>
      <div class="buttons" role="group" aria-label={text.title}>
        <button type="button" aria-pressed={now.verdict === 'agree'} onClick={() => setVerdict('agree')}>
          <ThumbsUp size={15} aria-hidden="true" /> {text.agree}
        </button>
        <button type="button" aria-pressed={now.verdict === 'disagree'} onClick={() => setVerdict('disagree')}>
          <ThumbsDown size={15} aria-hidden="true" /> {text.disagree}
        </button>
        <button type="button" aria-pressed={editing.value} onClick={toggleEditing}>
          <Pencil size={15} aria-hidden="true" /> {text.edit}
        </button>
      </div>
      {editing.value && (
        <>
          <p class="muted small">{text.editing}</p>
          <ul class="corrections">
            {now.locations.map((one) => (
              <Correction key={one.key} one={one} />
            ))}
          </ul>
        </>
      )}
      <label>
        <span>{text.comment}</span>
        <textarea
          rows={2}
          maxLength={2000}
          value={now.comment}
          onInput={(event) => setComment(event.currentTarget.value)}
        />
      </label>
      <div class="row">
        <label>
          <span>{text.reviewer}</span>
          <input
            type="text"
            size={8}
            maxLength={8}
            pattern="[A-Za-z0-9]{1,8}"
            required
            autocomplete="off"
            value={reviewer.value}
            onInput={(event) => {
              reviewer.value = event.currentTarget.value.trim();
            }}
          />
        </label>
        <button type="submit" class="primary" disabled={isSaving.value || now.verdict === null}>
          {text.submit}
        </button>
      </div>
      {savedVersion.value !== null && <p role="status">{text.saved(savedVersion.value)}</p>}
      {saveProblem.value && (
        <ErrorLine>
          {saveProblem.value.kind === 'feedback-conflict' ? text.conflict : saveProblem.value.message}
        </ErrorLine>
      )}
      {versions.value.length > 0 && (
        <details>
          <summary>{text.history}</summary>
          <ol class="small">
            {versions.value.map((one) => (
              <li key={one.version}>
                {text.by(one.reviewer, moment(one.reviewed_at))}:{' '}
                {one.verdict === 'agree' ? text.agree : text.disagree}
                {one.comment && <blockquote>{one.comment}</blockquote>}
              </li>
            ))}
          </ol>
        </details>
      )}
    </form>
  );
}

/** One finding with another name, another side, or none. */
function Correction({ one }: { one: DraftLocation }) {
  const text = words.value.feedback;
  const side = words.value.report.side;
  return (
    <li class={one.verdict ?? ''}>
      <select
        aria-label={text.label}
        value={one.label}
        onChange={({ currentTarget: { value } }) =>
          correct(one.key, {
            label: value,
            laterality: SIDED.get(value) ? (one.laterality ?? sideOf(one.box)) : null,
          })
        }
      >
        {vocabulary.map(({ label }) => (
          <option key={label} value={label}>
            {label}
          </option>
        ))}
      </select>
      {SIDED.get(one.label) && (
        <select
          aria-label={text.side}
          value={one.laterality ?? ''}
          onChange={({ currentTarget: { value } }) => correct(one.key, { laterality: value as 'left' | 'right' })}
        >
          <option value="left">{side.left}</option>
          <option value="right">{side.right}</option>
        </select>
      )}
      <button
        type="button"
        class="icon reject"
        aria-pressed={one.verdict === 'rejected'}
        aria-label={text.rejectOf(titleOf(one))}
        title={text.rejectOf(titleOf(one))}
        onClick={() => judge(one.key, 'rejected')}
      >
        <Trash2 size={15} aria-hidden="true" />
      </button>
    </li>
  );
}

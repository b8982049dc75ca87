/** One row of the worklist: how it stands, what was found, and where. */
import {
  CircleCheck,
  CircleDashed,
  CircleSlash,
  CircleX,
  Hourglass,
  type LucideIcon,
  ScanEye,
  ThumbsDown,
  ThumbsUp,
} from 'lucide-preact';
import { memo } from 'preact/compat';
import { age, titleOf } from '../parts/text.ts';
import { open } from '../route.ts';
import { selected, toggleSelected } from '../state/selection.ts';
import { fileNames } from '../state/uploads.ts';
import { erasing, type Job, type Summary } from '../state/worklist.ts';
import { words } from '../words/words.ts';

export const ROW_HEIGHT = 64;
/** CSS pixels. */

const ICONS: Record<Job['state'], LucideIcon> = {
  queued: CircleDashed,
  running: ScanEye,
  succeeded: CircleCheck,
  failed: CircleX,
  cancelled: CircleSlash,
  expired: Hourglass,
};

interface Props {
  job: Job;
  index: number;
  top: number;
  isOpen: boolean;
}

export const JobRow = memo(({ job, index, top, isOpen }: Props) => {
  const text = words.value.worklist;
  const Icon = ICONS[job.state];
  const isErased = erasing.value.has(job.id);
  const state = isErased ? words.value.erase.busy : words.value.states[job.state];
  const name = fileNames.value.get(job.id) ?? job.name ?? job.study ?? job.id.slice(0, 8);
  return (
    <div
      class={`job ${job.state} ${isOpen ? 'open' : ''} ${isErased ? 'erased' : ''}`}
      role="row"
      aria-rowindex={index + 1}
      aria-selected={isOpen}
      style={{ transform: `translateY(${top}px)` }}
      data-job={job.id}
      onClick={() => open(job.id)}
      onKeyDown={() => {}}
    >
      <span role="gridcell">
        <input
          type="checkbox"
          aria-label={name}
          checked={selected.value.has(job.id)}
          onClick={(event) => event.stopPropagation()}
          onChange={() => toggleSelected(job.id)}
        />
      </span>
      <span role="gridcell">
        <Thumbnail summary={job.summary ?? null} />
      </span>
      <span role="gridcell" class="what">
        <a class="job-name" href={`#/jobs/${job.id}`} title={name} onClick={(event) => event.stopPropagation()}>
          {name}
        </a>
        <span class="glance" title={glanceOf(job)}>
          {glanceOf(job)}
        </span>
        <span class="muted small">
          {[job.patient, job.name === name ? job.study : null].filter(Boolean).join(' · ')}
        </span>
      </span>
      <span role="gridcell" class="how">
        <span class="state" title={job.failure?.message ?? state}>
          <Icon size={15} aria-hidden="true" /> <span>{state}</span>
        </span>
        <time class="muted small" dateTime={job.submitted_at}>
          {age(job.submitted_at)}
        </time>
        {job.feedback && (
          <span class={`reviewed ${job.feedback.verdict}`} title={`${text.reviewed}: ${job.feedback.reviewer}`}>
            {job.feedback.verdict === 'agree' ? (
              <ThumbsUp size={12} aria-hidden="true" />
            ) : (
              <ThumbsDown size={12} aria-hidden="true" />
            )}
            {job.feedback.reviewer}
          </span>
        )}
        {!job.feedback && job.priority !== 'routine' && (
          <span class={`priority ${job.priority}`}>{words.value.priorities[job.priority]}</span>
        )}
      </span>
    </div>
  );

  function glanceOf({ summary, failure, state: now }: Job): string {
    if (failure) return failure.message;
    if (!summary) return now === 'queued' && job.ahead ? words.value.report.ahead(job.ahead) : '';
    if (summary.abstained) return text.declined;
    return summary.findings.length ? [...new Set(summary.findings.map(titleOf))].join('; ') : text.noFindings;
  }
});

/** Where findings are on the image, as small as a stamp. */
function Thumbnail({ summary }: { summary: Summary | null }) {
  const ratio = summary ? summary.width / summary.height : 1;
  const [width, height] = ratio >= 1 ? [40, 40 / ratio] : [40 * ratio, 40];
  return (
    <svg class="thumbnail" viewBox="0 0 44 44" width="44" height="44" aria-hidden="true">
      <rect class="frame" x={22 - width / 2} y={22 - height / 2} width={width} height={height} rx="2" />
      {summary?.findings.map(({ colour, box_normalised: box, label }, at) => (
        <rect
          key={`${label}-${at}`}
          x={22 - width / 2 + box.xmin * width}
          y={22 - height / 2 + box.ymin * height}
          width={Math.max((box.xmax - box.xmin) * width, 2)}
          height={Math.max((box.ymax - box.ymin) * height, 2)}
          fill={colour}
          fill-opacity="0.35"
          stroke={colour}
          stroke-width="1.2"
        />
      ))}
    </svg>
  );
}

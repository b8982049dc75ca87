/** The report beside the image, as it is written and then with its evidence. */
import { Copy, Download, Printer, Square } from 'lucide-preact';
import { useEffect, useState } from 'preact/hooks';
import { fetchFrom } from '../api/client.ts';
import { type Command, keyName, register } from '../commands/commands.ts';
import { ErrorLine } from '../parts/error-line.tsx';
import { span } from '../parts/text.ts';
import { readAgain } from '../state/actions.ts';
import { setVerdict } from '../state/feedback.ts';
import {
  cancelReading,
  chosen,
  isProbable,
  locations,
  type Reading,
  reading,
  threshold,
} from '../state/reading.ts';
import { apiKey } from '../state/session.ts';
import { isOpen, type Job, jobs } from '../state/worklist.ts';
import { words } from '../words/words.ts';
import { FeedbackForm } from './feedback-form.tsx';
import { FindingList } from './finding-list.tsx';
import { LinkedProse } from './linked-prose.tsx';

export function ReportPane() {
  const now = reading.value;
  const text = words.value.report;
  const report = now?.job?.report;

  useEffect(
    () =>
      register([
        command(
          'copy',
          () => words.value.commands.copyReport,
          'y',
          () => reading.value && copy(reading.value),
        ),
        command(
          'agree',
          () => words.value.commands.agree,
          'Shift+Enter',
          () => setVerdict('agree'),
        ),
        command('next-finding', () => words.value.commands.nextFinding, 'n', nextFinding),
      ]),
    [],
  );

  return (
    <section class="report-pane" aria-label={text.title}>
      {now?.problem ? (
        <ErrorLine>{now.problem.message}</ErrorLine>
      ) : !now ? (
        <p class="muted">{text.none}</p>
      ) : report && now.job ? (
        <Finished now={now} job={now.job} />
      ) : now.job && !isOpen(now.job) ? (
        <Unfinished job={now.job} />
      ) : (
        <Progress now={now} />
      )}
    </section>
  );
}

function command(id: string, name: () => string, key: string, run: () => void): Command {
  return { id, name, key, run, enabled: () => Boolean(reading.value?.job?.report) };
}

function nextFinding(): void {
  const count = locations.value.length;
  if (count) chosen.value = ((chosen.value ?? -1) + 1) % count;
}

/** Stage, time, place in the queue, and the text so far. */
function Progress({ now }: { now: Reading }) {
  const text = words.value.report;
  const [seconds, setSeconds] = useState(0);
  useEffect(() => {
    const began = now.asked ?? (now.job ? Date.parse(now.job.submitted_at) : Date.now());
    const tick = () => setSeconds(Math.max(0, Date.now() - began) / 1000);
    tick();
    const clock = setInterval(tick, 100);
    return () => clearInterval(clock);
  }, [now.asked, now.job]);
  // The list is asked every few seconds; events don't say how the queue moves.
  const ahead = now.job?.state === 'queued' ? (jobs.value.get(now.id)?.ahead ?? now.job.ahead ?? 0) : 0;
  const stage = now.text
    ? text.stages.writing
    : now.job?.state === 'running'
      ? text.stages.running
      : text.stages.queued;
  return (
    <div class="progress">
      <p role="status">
        <span class="pulse" aria-hidden="true" /> {stage} <span class="muted">{words.value.seconds(seconds)}</span>
      </p>
      {now.cutOff && <ErrorLine>{words.value.connectionLost}</ErrorLine>}
      {ahead > 0 && <p class="muted">{text.ahead(ahead)}</p>}
      <progress aria-label={stage} />
      {now.text && (
        <p class="live" data-testid="live">
          {now.text}
        </p>
      )}
      <button type="button" onClick={() => cancelReading()}>
        <Square size={14} aria-hidden="true" /> {words.value.viewer.cancelReading}
      </button>
    </div>
  );
}

/** Why there is no report, and what to do. */
function Unfinished({ job }: { job: Job }) {
  const text = words.value.report;
  return (
    <>
      {job.state === 'failed' && <h2>{text.failed}</h2>}
      {job.state === 'failed' ? (
        <ErrorLine>{job.failure?.message}</ErrorLine>
      ) : (
        <p class="muted">{job.state === 'expired' ? text.expired : text.cancelled}</p>
      )}
      <button type="button" onClick={() => readAgain([job.id])}>
        {words.value.retry}
      </button>
    </>
  );
}

function Finished({ now, job }: { now: Reading; job: Job }) {
  const text = words.value.report;
  const report = job.report as NonNullable<Job['report']>;
  const hidden = locations.value.filter((one) => !isProbable(one)).length;
  const took = now.asked && now.answered ? (now.answered - now.asked) / 1000 : null;
  return (
    <article class="report" data-testid="report" aria-label={text.title}>
      {report.abstained && <h2 class="abstained">{text.abstained}</h2>}
      {(report.warnings ?? []).length > 0 && (
        <ul class="warnings" aria-label={text.warnings}>
          {report.warnings?.map((one) => (
            <li key={one}>{one}</li>
          ))}
        </ul>
      )}
      {!report.abstained && (
        <>
          <h2>{text.findings}</h2>
          <LinkedProse text={report.findings} locations={report.locations} testid="findings" />
        </>
      )}
      <h2>{text.locations}</h2>
      {report.locations.length ? (
        <FindingList />
      ) : (
        <p class="muted">{report.abstained ? text.notAssessed : text.noLocations}</p>
      )}
      {report.locations.some((one) => one.probability != null) && (
        <label class="threshold">
          <span>
            {text.threshold} <output>{Math.round(threshold.value * 100)} %</output>
          </span>
          <input
            type="range"
            min="0"
            max="1"
            step="0.05"
            value={threshold.value}
            onInput={(event) => {
              threshold.value = event.currentTarget.valueAsNumber;
            }}
          />
          {hidden > 0 && <span class="muted">{text.hidden(hidden)}</span>}
        </label>
      )}
      {!report.abstained && (
        <>
          <h2>{text.impression}</h2>
          <LinkedProse text={report.impression} locations={report.locations} testid="impression" />
        </>
      )}
      <FeedbackForm job={job} />
      <Out job={job} now={now} />
      <footer>
        <p class="disclaimer">{report.disclaimer}</p>
        <p class="muted small" data-testid="provenance">
          {report.model.name} {report.model.revision.slice(0, 12)} · {report.model.quantisation}
          {took !== null && <> · {text.after(words.value.seconds(took))}</>}
          {took === null && job.finished_at && job.started_at && (
            <> · {text.after(span((Date.parse(job.finished_at) - Date.parse(job.submitted_at)) / 1000))}</>
          )}
        </p>
      </footer>
    </article>
  );
}

/** Ways to take the report out. */
function Out({ job, now }: { job: Job; now: Reading }) {
  const text = words.value.report;
  const [copied, setCopied] = useState(false);
  return (
    <details class="out">
      <summary>{text.out}</summary>
      <div class="buttons">
        <button
          type="button"
          title={keyName('y')}
          onClick={async () => {
            await copy(now);
            setCopied(true);
            setTimeout(() => setCopied(false), 2000);
          }}
        >
          <Copy size={14} aria-hidden="true" /> {copied ? text.copied : text.copy}
        </button>
        {Object.entries(text.forms).map(([part, name]) => (
          <a
            key={part}
            class="button"
            href={`v1/jobs/${job.id}/${part}`}
            target="_blank"
            rel="noopener"
            onClick={(event) => {
              if (!apiKey.value) return;
              event.preventDefault();
              saveWithKey(job.id, part);
            }}
          >
            <Download size={14} aria-hidden="true" /> {name}
          </a>
        ))}
        <button type="button" onClick={() => print()}>
          <Printer size={14} aria-hidden="true" /> {text.print}
        </button>
      </div>
    </details>
  );
}

async function copy(now: Reading): Promise<void> {
  await navigator.clipboard.writeText(await (await fetchFrom(`v1/jobs/${now.id}/report.txt`)).text());
}

/**
 * Saves a file that needs the key. A link can't send the key, and what a page made itself, such as a blob, would open
 * with this page's content policy and could reach this page and its key.
 */
async function saveWithKey(job: string, part: string): Promise<void> {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await (await fetchFrom(`v1/jobs/${job}/${part}`)).blob());
  link.download = `${job}-${part}`;
  link.click();
  URL.revokeObjectURL(link.href);
}

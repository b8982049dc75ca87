/** Worklist, image and report side by side; on a phone, one of them at a time. */
import { useComputed, useSignal, useSignalEffect } from '@preact/signals';
import { FileText, Image, Link2, List, Play, X } from 'lucide-preact';
import { useCallback, useMemo } from 'preact/hooks';
import { api, data } from './api/client.ts';
import { Problem } from './api/problem.ts';
import { ErrorLine } from './parts/error-line.tsx';
import { titleOf } from './parts/text.ts';
import { dashOf } from './report/dashes.ts';
import { ReportPane } from './report/report-pane.tsx';
import { open, route } from './route.ts';
import { analyse } from './state/actions.ts';
import { chosenFile } from './state/chosen-file.ts';
import { add, correct, draft, editing } from './state/feedback.ts';
import {
  boxesShown,
  boxOpacity,
  chosen,
  hiddenBoxes,
  hovered,
  isProbable,
  type Location,
  locations,
  reading,
} from './state/reading.ts';
import { neighbour } from './state/selection.ts';
import { type Job, jobs } from './state/worklist.ts';
import { type Picture, pictureOfFile, pictureOfJob } from './viewer/pictures.ts';
import { Toolbar } from './viewer/toolbar.tsx';
import { Viewer } from './viewer/viewer.tsx';
import type { BoxListener, ShownBox, Viewport } from './viewer/viewport.ts';
import { words } from './words/words.ts';
import { Worklist } from './worklist/worklist.tsx';

interface Props {
  onFiles: (files: File[]) => void;
  onDemo: () => void;
}

type Pane = 'list' | 'image' | 'report';

/** What a viewport shows: a picture, or why there is none. */
interface Shown {
  of: string | null;
  picture: Picture | null;
  problem: string | null;
}
const NOTHING: Shown = { of: null, picture: null, problem: null };

export function ReadingRoom({ onFiles, onDemo }: Props) {
  const main = useSignal<Viewport | null>(null);
  const other = useSignal<Viewport | null>(null);
  const shown = useSignal<Shown>(NOTHING);
  const beside = useSignal<Shown>(NOTHING);
  const besideLocations = useSignal<readonly Location[]>([]);
  const pane = useSignal<Pane>('list');
  const linked = useSignal(true);

  const besideId = useComputed(() => (route.value.page === 'reading' ? route.value.beside : null));

  useSignalEffect(() => {
    const id = reading.value?.id ?? null;
    if (id) {
      chosenFile.value = null;
      showJob(id, shown);
      prefetch(id);
    } else if (chosenFile.value) {
      showFile(chosenFile.value);
    } else {
      shown.value = NOTHING;
    }
  });
  useSignalEffect(() => {
    const id = besideId.value;
    besideLocations.value = [];
    if (id) {
      showJob(id, beside);
      data<Job>(api.GET('/v1/jobs/{id}', { params: { path: { id } } }))
        .then((job) => {
          if (besideId.peek() === id) besideLocations.value = job.report?.locations ?? [];
        })
        .catch(() => {}); // its image says what is wrong
    } else beside.value = NOTHING;
  });
  // Opening an image shows it on a phone, too.
  const openId = useComputed(() => reading.value?.id ?? null);
  useSignalEffect(() => {
    if (openId.value || chosenFile.value) pane.value = 'image';
  });
  useSignalEffect(() => {
    if (linked.value && besideId.value && main.value?.view.value && other.value) other.value.follow(main.value);
  });
  useSignalEffect(() => {
    const at = chosen.value;
    const location = at === null ? undefined : locations.peek()[at];
    const view = main.peek()?.view.peek();
    if (location && view && main.peek()?.isBeyondView(location.box)) main.peek()?.centerOn(location.box);
  });

  async function showFile(file: File): Promise<void> {
    const of = nameOf(file);
    if (shown.peek().of === of) return;
    shown.value = { of, picture: null, problem: null };
    const picture = await pictureOfFile(file, of);
    if (shown.peek().of !== of) return;
    shown.value = { of, picture, problem: picture ? null : words.peek().viewer.cannotShow };
  }

  const boxes = useComputed<readonly ShownBox[]>(() => shownBoxes());
  const besideBoxes = useComputed<readonly ShownBox[]>(() =>
    besideLocations.value.map((location, index) =>
      boxOf(location, index, boxesShown.value && isProbable(location)),
    ),
  );
  const highlighted = useComputed(() => {
    const at = hovered.value ?? chosen.value;
    return at === null ? null : String(at);
  });
  const listener = useMemo<BoxListener>(
    () => ({
      onHover: (key) => {
        hovered.value = indexOf(key);
      },
      onSelect: (key) => {
        chosen.value = indexOf(key);
      },
      onMove: (key, box) => correct(key, { box }),
      onDraw: (box) => editing.value && add(box),
    }),
    [],
  );

  const openBeside = useCallback(() => {
    const id = reading.value?.id;
    if (!id) return;
    if (besideId.value) return open(id);
    const patient = jobs.value.get(id)?.patient;
    const prior =
      [...jobs.value.values()].find((job) => job.id !== id && patient && job.patient === patient) ??
      neighbour(id, 1);
    if (prior) open(id, prior.id);
  }, []);

  const text = words.value;
  const file = reading.value ? null : chosenFile.value;
  return (
    <main class={`reading-room show-${pane.value}`}>
      <Worklist onFiles={onFiles} onDemo={onDemo} />
      <section class="reading-view" aria-label={text.viewer.title}>
        <Toolbar
          viewport={main.value}
          picture={shown.value.picture}
          besideOpen={besideId.value !== null}
          onBeside={openBeside}
        />
        <div class={`viewports ${besideId.value ? 'two' : ''}`}>
          <Viewer
            id="main"
            picture={shown.value.picture}
            instead={<Instead shown={shown.value} />}
            boxes={boxes.value}
            highlighted={highlighted.value}
            opacity={boxOpacity.value}
            listener={listener}
            onViewport={(viewport) => {
              main.value = viewport;
            }}
            corner={
              file && (
                <button
                  type="button"
                  class="primary analyse"
                  onClick={() => analyse([file], { priority: 'stat' })}
                >
                  <Play size={16} aria-hidden="true" /> {text.viewer.analyse}
                </button>
              )
            }
          />
          {besideId.value && (
            <Viewer
              id="beside"
              picture={beside.value.picture}
              instead={<Instead shown={beside.value} />}
              boxes={besideBoxes.value}
              highlighted={null}
              opacity={boxOpacity.value}
              onViewport={(viewport) => {
                other.value = viewport;
              }}
              corner={
                <div class="beside-corner">
                  <button
                    type="button"
                    class="icon"
                    aria-pressed={linked.value}
                    aria-label={text.viewer.linked}
                    title={text.viewer.linked}
                    onClick={() => {
                      linked.value = !linked.value;
                    }}
                  >
                    <Link2 size={16} aria-hidden="true" />
                  </button>
                  <button
                    type="button"
                    class="icon"
                    aria-label={text.viewer.closeBeside}
                    title={text.viewer.closeBeside}
                    onClick={openBeside}
                  >
                    <X size={16} aria-hidden="true" />
                  </button>
                </div>
              }
            />
          )}
        </div>
      </section>
      <ReportPane />
      <nav class="panes" aria-label={text.reading}>
        {(
          [
            ['list', List, text.worklist.title],
            ['image', Image, text.viewer.title],
            ['report', FileText, text.report.title],
          ] as const
        ).map(([name, Icon, title]) => (
          <button
            key={name}
            type="button"
            aria-pressed={pane.value === name}
            onClick={() => {
              pane.value = name;
            }}
          >
            <Icon size={18} aria-hidden="true" /> {title}
          </button>
        ))}
      </nav>
    </main>
  );
}

const names = new WeakMap<File, string>();

/** Returns a name for a chosen file, which is another for each: two files may be called the same. */
function nameOf(file: File): string {
  const name = names.get(file) ?? `file-${crypto.randomUUID()}`;
  names.set(file, name);
  return name;
}

function Instead({ shown }: { shown: Shown }) {
  const text = words.value.viewer;
  if (shown.problem) return <ErrorLine>{shown.problem}</ErrorLine>;
  return <p class="muted">{shown.of ? text.loading : text.nothing}</p>;
}

async function showJob(id: string, into: { value: Shown; peek(): Shown }): Promise<void> {
  if (into.peek().of === id) return;
  into.value = { of: id, picture: null, problem: null };
  try {
    const picture = await pictureOfJob(id);
    if (into.peek().of === id) into.value = { of: id, picture, problem: null };
  } catch (error) {
    const gone = error instanceof Problem && error.status === 404;
    const problem = gone ? words.peek().viewer.gone : error instanceof Error ? error.message : String(error);
    if (into.peek().of === id) into.value = { of: id, picture: null, problem };
  }
}

/** Fetches the images that a reader most probably opens next. */
function prefetch(id: string): void {
  const idle = globalThis.requestIdleCallback ?? ((work: () => void) => setTimeout(work, 200));
  idle(() => {
    for (const by of [1, -1]) {
      const next = neighbour(id, by);
      if (next && next.id !== id) pictureOfJob(next.id).catch(() => {});
    }
  });
}

/** The boxes of the report, or those of the reader's draft while it is edited. */
function shownBoxes(): ShownBox[] {
  const reported = locations.value;
  const isShown = (index: number) => {
    const location = reported[index];
    return boxesShown.value && !hiddenBoxes.value.has(index) && location !== undefined && isProbable(location);
  };
  if (editing.value && draft.value) {
    return draft.value.locations.map((one, number) => ({
      key: one.key,
      tag: String(number + 1),
      label: `${number + 1} ${titleOf(one)}`,
      colour: reported[one.of ?? -1]?.colour ?? '#ffd666',
      dash: dashOf(number),
      box: one.box,
      visible: one.verdict !== 'rejected',
      movable: true,
    }));
  }
  return reported.map((location, index) => boxOf(location, index, isShown(index)));
}

const boxOf = (location: Location, index: number, visible: boolean): ShownBox => ({
  key: String(index),
  tag: String(index + 1),
  label: `${index + 1} ${titleOf(location)}`,
  colour: location.colour,
  dash: dashOf(index),
  box: location.box,
  visible,
  movable: false,
});

const indexOf = (key: string | null): number | null =>
  key === null || Number.isNaN(Number(key)) ? null : Number(key);

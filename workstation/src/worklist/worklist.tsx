/** The list of all images: those of this page, of the API and of other systems. */
import { elementScroll, observeElementOffset, observeElementRect, Virtualizer } from '@tanstack/virtual-core';
import { ArrowDownWideNarrow, FolderPlus, ImagePlus, Search, Sparkles } from 'lucide-preact';
import { useEffect, useLayoutEffect, useReducer, useRef, useState } from 'preact/hooks';
import { type Command, keyName, register } from '../commands/commands.ts';
import { ErrorLine } from '../parts/error-line.tsx';
import { open, route } from '../route.ts';
import { cancelJobs, readAgain } from '../state/actions.ts';
import { neighbour, type Sort, searchText, selected, shownJobs, sort, stateFilter } from '../state/selection.ts';
import { isOpen, type Job, jobs, listed, listProblem } from '../state/worklist.ts';
import { words } from '../words/words.ts';
import { EraseDialog } from './erase-dialog.tsx';
import { JobRow, ROW_HEIGHT } from './job-row.tsx';
import { SendingSets } from './sending-sets.tsx';

interface Props {
  onFiles: (files: File[]) => void;
  onDemo: () => void;
}

export function Worklist({ onFiles, onDemo }: Props) {
  const text = words.value.worklist;
  const rows = shownJobs.value;
  const [erasing, setErasing] = useState<readonly string[]>([]);
  const [problems, setProblems] = useState<readonly string[]>([]);
  const search = useRef<HTMLInputElement>(null);
  const files = useRef<HTMLInputElement>(null);
  const folder = useRef<HTMLInputElement>(null);
  const openId = () => (route.value.page === 'reading' ? route.value.job : null);
  const step = (by: number) => {
    const next = neighbour(openId(), by);
    if (next) open(next.id);
  };
  const targets = () => (selected.value.size ? [...selected.value] : [openId()].filter((id) => id !== null));

  useEffect(() => {
    const all: Command[] = [
      { id: 'next', name: () => words.value.commands.next, key: 'ArrowDown', run: () => step(1) },
      { id: 'previous', name: () => words.value.commands.previous, key: 'ArrowUp', run: () => step(-1) },
      { id: 'search', name: () => words.value.commands.searchList, key: '/', run: () => search.current?.focus() },
      { id: 'add', name: () => words.value.worklist.add, key: 'o', run: () => files.current?.click() },
      {
        id: 'add-folder',
        name: () => words.value.worklist.addFolder,
        key: 'O',
        run: () => folder.current?.click(),
      },
      { id: 'demo', name: () => words.value.worklist.demo, key: 'd', run: onDemo },
      {
        id: 'erase',
        name: () => words.value.worklist.erase,
        key: 'Delete',
        run: () => setErasing(targets()),
        enabled: () => targets().length > 0,
      },
      {
        id: 'again',
        name: () => words.value.worklist.again,
        key: 'g',
        run: () => readAgain(targets()).then(setProblems),
        enabled: () => targets().length > 0,
      },
      {
        id: 'stop',
        name: () => words.value.worklist.stop,
        key: 'x',
        run: () => cancelJobs(targets()).then(setProblems),
        enabled: () => targets().some((id) => isOpen(jobs.value.get(id) ?? ({} as Job))),
      },
      {
        id: 'select-all',
        name: () => words.value.worklist.selectAll,
        key: 'Mod+a',
        run: () => {
          selected.value = new Set(shownJobs.value.map((job) => job.id));
        },
      },
    ];
    return register(all);
  }, [onDemo]);

  const chosen = (input: HTMLInputElement) => {
    onFiles([...(input.files ?? [])]);
    input.value = ''; // so that the same file can be chosen again
  };

  return (
    <section class="worklist" aria-label={text.title}>
      <div class="adding">
        <button
          type="button"
          class="primary"
          title={`${text.add} (${keyName('o')})`}
          onClick={() => files.current?.click()}
        >
          <ImagePlus size={16} aria-hidden="true" /> {text.add}
        </button>
        <button
          type="button"
          class="icon"
          aria-label={text.addFolder}
          title={`${text.addFolder} (${keyName('O')})`}
          onClick={() => folder.current?.click()}
        >
          <FolderPlus size={16} aria-hidden="true" />
        </button>
        <button type="button" title={keyName('d')} onClick={onDemo}>
          <Sparkles size={16} aria-hidden="true" /> {text.demo}
        </button>
        <input
          ref={files}
          type="file"
          multiple
          hidden
          data-testid="files"
          onChange={(event) => chosen(event.currentTarget)}
        />
        <input
          ref={(element) => {
            folder.current = element;
            element?.setAttribute('webkitdirectory', '');
          }}
          type="file"
          hidden
          data-testid="folder"
          onChange={(event) => chosen(event.currentTarget)}
        />
      </div>
      <SendingSets />
      <div class="filters">
        <label class="search">
          <Search size={15} aria-hidden="true" />
          <input
            ref={search}
            type="search"
            aria-label={text.search}
            placeholder={text.searchHint}
            value={searchText.value}
            onInput={(event) => {
              searchText.value = event.currentTarget.value;
            }}
            onKeyDown={(event) => {
              if (event.key !== 'Escape') return;
              searchText.value = '';
              event.currentTarget.blur();
            }}
          />
        </label>
        <select
          aria-label={text.filter}
          value={stateFilter.value}
          onChange={(event) => {
            stateFilter.value = event.currentTarget.value as Job['state'] | 'all';
          }}
        >
          <option value="all">{text.all}</option>
          {Object.entries(words.value.states).map(([state, name]) => (
            <option key={state} value={state}>
              {name}
            </option>
          ))}
        </select>
        <span class="select-with-icon">
          <ArrowDownWideNarrow size={15} aria-hidden="true" />
          <select
            aria-label={text.sort}
            value={sort.value}
            onChange={(event) => {
              sort.value = event.currentTarget.value as Sort;
            }}
          >
            {Object.entries(text.sorts).map(([kind, name]) => (
              <option key={kind} value={kind}>
                {name}
              </option>
            ))}
          </select>
        </span>
      </div>
      {listProblem.value && (
        <ErrorLine>
          {listProblem.value.status === 0
            ? words.value.connectionLost
            : `${words.value.listUnavailable}: ${listProblem.value.message}`}
        </ErrorLine>
      )}
      {selected.value.size > 0 && (
        <div class="bulk" role="group" aria-label={text.selected(selected.value.size)}>
          <span>{text.selected(selected.value.size)}</span>
          <button type="button" onClick={() => readAgain(targets()).then(setProblems)}>
            {text.again}
          </button>
          <button type="button" onClick={() => cancelJobs(targets()).then(setProblems)}>
            {text.stop}
          </button>
          <button type="button" class="danger" onClick={() => setErasing(targets())}>
            {text.erase}
          </button>
          <button
            type="button"
            onClick={() => {
              selected.value = new Set();
            }}
          >
            {text.clearSelection}
          </button>
        </div>
      )}
      {problems.length > 0 && <ErrorLine>{[...new Set(problems)].join(' ')}</ErrorLine>}
      {rows.length > 0 ? (
        <Rows rows={rows} openId={openId()} />
      ) : (
        <p class="muted empty-list">
          {jobs.value.size ? text.nothingFound : listed.value || listProblem.value ? text.empty : text.loading}
        </p>
      )}
      <p class="muted small count" role="status">
        {text.count(rows.length, jobs.value.size)}
      </p>
      <EraseDialog
        ids={erasing}
        onClose={(wrong) => {
          setErasing([]);
          setProblems(wrong);
        }}
      />
    </section>
  );
}

/** The rows that are in view, of however many. */
function Rows({ rows, openId }: { rows: readonly Job[]; openId: string | null }) {
  const scroller = useRef<HTMLDivElement>(null);
  const [, redraw] = useReducer((times: number) => times + 1, 0);
  const virtual = useRef<Virtualizer<HTMLDivElement, HTMLDivElement> | null>(null);
  const options = {
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_HEIGHT,
    getItemKey: (at: number) => rows[at]?.id ?? at,
    overscan: 6,
    scrollToFn: elementScroll,
    observeElementRect,
    observeElementOffset,
    onChange: () => redraw(0),
  };
  virtual.current ??= new Virtualizer(options);
  virtual.current.setOptions(options);
  useLayoutEffect(() => virtual.current?._didMount(), []);
  useLayoutEffect(() => virtual.current?._willUpdate());
  useEffect(() => {
    const at = rows.findIndex((job) => job.id === openId);
    if (at >= 0) virtual.current?.scrollToIndex(at, { align: 'auto' });
  }, [openId]);
  return (
    <div
      ref={scroller}
      class="rows"
      role="grid"
      aria-rowcount={rows.length}
      aria-label={words.value.worklist.title}
      data-testid="rows"
    >
      <div class="all-rows" role="presentation" style={{ height: `${virtual.current.getTotalSize()}px` }}>
        {virtual.current.getVirtualItems().map(({ key, index, start }) => {
          const job = rows[index];
          return job && <JobRow key={key} job={job} index={index} top={start} isOpen={job.id === openId} />;
        })}
      </div>
    </div>
  );
}

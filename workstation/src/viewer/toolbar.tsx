/** The tools above the image. Each has a key, which its tooltip names. */
import { signal, useSignal } from '@preact/signals';
import {
  Columns2,
  Contrast,
  Expand,
  FlipHorizontal2,
  Hand,
  HeartPulse,
  type LucideIcon,
  Maximize,
  RotateCw,
  Ruler,
  ScanSearch,
  SquareDashed,
  SunMedium,
  Triangle,
  Undo2,
  X,
  ZoomIn,
} from 'lucide-preact';
import { useEffect } from 'preact/hooks';
import { type Command, keyName, register } from '../commands/commands.ts';
import { boxesShown, boxOpacity } from '../state/reading.ts';
import { words } from '../words/words.ts';
import type { Picture } from './pictures.ts';
import { type PrimaryTool, removeMeasurements, setPrimaryTool } from './tools.ts';
import type { Viewport } from './viewport.ts';

export const primaryTool = signal<PrimaryTool>('window');

/** Chooses what a drag over the image does. */
export function choosePrimaryTool(tool: PrimaryTool): void {
  primaryTool.value = tool;
  setPrimaryTool(tool);
}

interface Props {
  viewport: Viewport | null;
  picture: Picture | null;
  besideOpen: boolean;
  onBeside: () => void;
}

const DRAGS: [PrimaryTool, LucideIcon, string][] = [
  ['window', SunMedium, 'w'],
  ['pan', Hand, 'p'],
  ['zoom', ZoomIn, 'z'],
  ['magnify', ScanSearch, 'm'],
  ['length', Ruler, 'l'],
  ['angle', Triangle, 'a'],
  ['ratio', HeartPulse, 'c'],
];

export function Toolbar({ viewport, picture, besideOpen, onBeside }: Props) {
  const text = words.value.viewer;
  const ready = viewport !== null && picture !== null;
  const tools: Command[] = DRAGS.map(([tool, , key]) => ({
    id: `tool-${tool}`,
    name: () => nameOf(tool),
    key,
    run: () => choosePrimaryTool(tool),
    enabled: () => ready,
  }));
  const actions: (Command & { icon: LucideIcon })[] = [
    { id: 'fit', icon: Maximize, name: () => words.value.viewer.fit, key: 'f', run: () => viewport?.fit() },
    {
      id: 'actual',
      icon: Expand,
      name: () => words.value.viewer.actual,
      key: '1',
      run: () => viewport?.actualPixels(),
    },
    {
      id: 'invert',
      icon: Contrast,
      name: () => words.value.viewer.invert,
      key: 'i',
      run: () => viewport?.invert(),
    },
    {
      id: 'rotate',
      icon: RotateCw,
      name: () => words.value.viewer.rotate,
      key: 'r',
      run: () => viewport?.rotate(),
    },
    {
      id: 'mirror',
      icon: FlipHorizontal2,
      name: () => words.value.viewer.flip,
      key: 'h',
      run: () => viewport?.mirror(),
    },
    { id: 'reset', icon: Undo2, name: () => words.value.viewer.reset, key: '0', run: () => viewport?.reset() },
    { id: 'clear', icon: X, name: () => words.value.viewer.clear, key: 'Shift+Delete', run: removeMeasurements },
    { id: 'beside', icon: Columns2, name: () => words.value.viewer.beside, key: 's', run: onBeside },
  ].map((one) => ({ ...one, enabled: () => ready }));
  const unseen: Command[] = [
    { id: 'zoom-in', name: () => words.value.viewer.zoomIn, key: '+', run: () => viewport?.zoomBy(1.25) },
    { id: 'zoom-out', name: () => words.value.viewer.zoomOut, key: '-', run: () => viewport?.zoomBy(0.8) },
    { id: 'boxes', name: () => words.value.commands.toggleBoxes, key: 'b', run: toggleBoxes },
    { id: 'fullscreen', name: () => words.value.viewer.fullscreen, key: 'Shift+F11', run: toggleFullscreen },
  ].map((one) => ({ ...one, enabled: () => ready }));

  useEffect(() => register([...tools, ...actions, ...unseen]), [viewport, ready, onBeside]);

  return (
    <div class="toolbar" role="toolbar" aria-label={text.tools} tabIndex={ready ? undefined : 0}>
      <div class="group">
        {DRAGS.map(([tool, Icon, key]) => (
          <button
            key={tool}
            type="button"
            class="icon"
            aria-pressed={primaryTool.value === tool}
            aria-label={nameOf(tool)}
            title={`${nameOf(tool)} (${keyName(key)})`}
            disabled={!ready}
            onClick={() => choosePrimaryTool(tool)}
          >
            <Icon size={18} aria-hidden="true" />
          </button>
        ))}
      </div>
      <Presets viewport={viewport} picture={picture} />
      <div class="group">
        {actions.map(({ id, icon: Icon, name, key, run }) => (
          <button
            key={id}
            type="button"
            class="icon"
            aria-label={name()}
            aria-pressed={id === 'beside' ? besideOpen : undefined}
            title={`${name()} (${keyName(key)})`}
            disabled={!ready}
            onClick={run}
          >
            <Icon size={18} aria-hidden="true" />
          </button>
        ))}
      </div>
      <div class="group boxes">
        <button
          type="button"
          class="icon"
          aria-label={text.boxes}
          aria-pressed={boxesShown.value}
          title={`${words.value.commands.toggleBoxes} (${keyName('b')})`}
          disabled={!ready}
          onClick={toggleBoxes}
        >
          <SquareDashed size={18} aria-hidden="true" />
        </button>
        <input
          type="range"
          min="0.1"
          max="1"
          step="0.05"
          value={boxOpacity.value}
          aria-label={text.opacity}
          title={text.opacity}
          disabled={!ready || !boxesShown.value}
          onInput={(event) => {
            boxOpacity.value = event.currentTarget.valueAsNumber;
          }}
        />
      </div>
    </div>
  );
}

/** The file's windows, and some that are cut out of the whole range. */
function Presets({ viewport, picture }: Pick<Props, 'viewport' | 'picture'>) {
  const { presets, presetNames } = words.value.viewer;
  const chosen = useSignal('');
  const windows = picture?.windows ?? [];
  const first = windows[0];
  const cut = first
    ? [
        { name: 'lung', center: first.center - first.width * 0.2, width: first.width * 0.7 },
        { name: 'bone', center: first.center + first.width * 0.25, width: first.width * 0.6 },
      ]
    : [];
  const all = [...windows, ...cut];
  const named = presetNames as Record<string, string>;
  return (
    <select
      class="presets"
      aria-label={presets}
      title={presets}
      value={chosen.value}
      disabled={!viewport || !picture}
      onChange={({ currentTarget }) => {
        const window = all[Number(currentTarget.value)];
        if (window) viewport?.setWindow(window);
        chosen.value = '';
        currentTarget.value = '';
      }}
    >
      <option value="" disabled hidden>
        {words.value.viewer.window}
      </option>
      {all.map((one, number) => (
        <option key={number} value={number}>
          {named[one.name] ?? one.name}
        </option>
      ))}
    </select>
  );
}

function nameOf(tool: PrimaryTool): string {
  const text = words.value.viewer;
  const { box, ...others } = {
    ...{ window: text.windowLevel, pan: text.pan, zoom: text.zoom, magnify: text.magnify },
    ...{ length: text.length, angle: text.angle, ratio: text.ratio, box: words.value.feedback.add },
  };
  return tool === 'box' ? box : others[tool];
}

function toggleBoxes(): void {
  boxesShown.value = !boxesShown.value;
}

function toggleFullscreen(): void {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.querySelector('.reading-view')?.requestFullscreen();
}

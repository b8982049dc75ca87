/** The reader's tools: Cornerstone's, with our boxes and the cardiothoracic ratio made of its rectangle and ruler. */
import type { Types as CoreTypes } from '@cornerstonejs/core';
import {
  AdvancedMagnifyTool,
  AngleTool,
  addTool,
  annotation,
  Enums,
  LengthTool,
  PanTool,
  RectangleROITool,
  ToolGroupManager,
  type Types,
  utilities,
  WindowLevelTool,
  ZoomTool,
} from '@cornerstonejs/tools';
import { words } from '../words/words.ts';

const GROUP = 'reading';
const { MouseBindings } = Enums;

/** CSS pixels between a label's place and its text, as Cornerstone draws it. */
const LABEL_PADDING = 25;

/** A box around a finding: a rectangle with its name in the corner instead of statistics of its pixels. */
export class FindingBoxTool extends RectangleROITool {
  static override toolName = 'FindingBox';

  override renderLinkedTextBoxAnnotation(
    options: Parameters<RectangleROITool['renderLinkedTextBoxAnnotation']>[0],
  ) {
    const corners = options.canvasCoordinates;
    const place: CoreTypes.Point2 = [
      Math.min(...corners.map(([x]) => x)) - LABEL_PADDING + 2,
      Math.min(...corners.map(([, y]) => y)) - LABEL_PADDING,
    ];
    const { textBox } = options.annotation.data.handles as {
      textBox: { hasMoved: boolean; worldPosition: CoreTypes.Point3 };
    };
    textBox.hasMoved = true;
    textBox.worldPosition = options.enabledElement.viewport.canvasToWorld(place);
    return super.renderLinkedTextBoxAnnotation(options);
  }
}

/** A line of the cardiothoracic ratio: the first is the heart, the second the chest. */
export class RatioTool extends LengthTool {
  static override toolName = 'CardiothoracicRatio';
}

/** What a drag of the first mouse button, or of one finger, does. */
export const PRIMARY_TOOLS = {
  window: WindowLevelTool.toolName,
  pan: PanTool.toolName,
  zoom: ZoomTool.toolName,
  length: LengthTool.toolName,
  angle: AngleTool.toolName,
  ratio: RatioTool.toolName,
  magnify: AdvancedMagnifyTool.toolName,
  box: FindingBoxTool.toolName,
} as const;
export type PrimaryTool = keyof typeof PRIMARY_TOOLS;

const MEASURING = [LengthTool.toolName, AngleTool.toolName, RatioTool.toolName];

/** Registers the tools, and their group, which all viewports share. */
export function createToolGroup(): void {
  for (const tool of [
    AdvancedMagnifyTool,
    AngleTool,
    FindingBoxTool,
    LengthTool,
    PanTool,
    RatioTool,
    WindowLevelTool,
    ZoomTool,
  ]) {
    addTool(tool);
  }
  const group = ToolGroupManager.createToolGroup(GROUP);
  if (!group) throw new Error('The tools were registered before.');
  for (const name of Object.values(PRIMARY_TOOLS)) group.addTool(name, configurationOf(name));
  const { global: styles, ...others } = annotation.config.style.getDefaultToolStyles();
  annotation.config.style.setDefaultToolStyles({
    ...others,
    global: {
      ...styles,
      color: 'rgb(255, 214, 102)',
      colorHighlighted: 'rgb(255, 255, 255)',
      colorSelected: 'rgb(255, 255, 255)',
      lineWidth: '1.5',
      lineWidthHighlighted: '2.5',
      lineWidthSelected: '2.5',
      textBoxFontSize: '13px',
      textBoxColor: 'rgb(255, 214, 102)',
      textBoxColorHighlighted: 'rgb(255, 255, 255)',
      textBoxColorSelected: 'rgb(255, 255, 255)',
      textBoxFontFamily: 'system-ui, sans-serif',
      textBoxLinkLineWidth: '0',
      shadow: true,
    },
  });
  setPrimaryTool('window');
}

function configurationOf(tool: string): Record<string, unknown> {
  if (tool === FindingBoxTool.toolName) {
    return { calculateStats: false, getTextLines: (data: { label?: string }) => (data.label ? [data.label] : []) };
  }
  if (tool === RatioTool.toolName) return { getTextLines: ratioLines };
  if (tool === LengthTool.toolName)
    return { getTextLines: (data: Measured, target: string) => lengthLine(data, target) };
  return {};
}

/** Adds a viewport to those that the tools work in. */
export function useToolsIn(viewport: string, engine: string): void {
  ToolGroupManager.getToolGroup(GROUP)?.addViewport(viewport, engine);
}

/** Chooses what a drag does. The middle button moves, the right one and the wheel zoom, whatever is chosen. */
export function setPrimaryTool(chosen: PrimaryTool): void {
  const group = ToolGroupManager.getToolGroup(GROUP);
  if (!group) return;
  for (const name of Object.values(PRIMARY_TOOLS)) {
    if (name === FindingBoxTool.toolName || MEASURING.includes(name)) group.setToolPassive(name);
    else group.setToolDisabled(name);
  }
  const bindings = new Map<string, Types.IToolBinding[]>([
    [PanTool.toolName, [{ mouseButton: MouseBindings.Auxiliary }]],
    [
      ZoomTool.toolName,
      [{ mouseButton: MouseBindings.Secondary }, { mouseButton: MouseBindings.Wheel }, { numTouchPoints: 2 }],
    ],
  ]);
  const name = PRIMARY_TOOLS[chosen];
  bindings.set(name, [
    { mouseButton: MouseBindings.Primary },
    { numTouchPoints: 1 },
    ...(bindings.get(name) ?? []),
  ]);
  for (const [tool, of] of bindings) group.setToolActive(tool, { bindings: of });
}

interface Measured {
  cachedStats: Record<string, { length?: number; unit?: string }>;
}

function lengthLine(data: Measured, target: string): string[] {
  const { length, unit } = data.cachedStats[target] ?? {};
  return length === undefined || Number.isNaN(length) ? [] : [`${length.toFixed(unit === 'px' ? 0 : 1)} ${unit}`];
}

/** Returns what stands at a line of the ratio: which it is, its length, and at the chest the ratio. */
function ratioLines(data: Measured, target: string): string[] {
  const [length] = lengthLine(data, target);
  if (!length) return [];
  const lines = annotation.state
    .getAllAnnotations()
    .filter((one) => one.metadata?.toolName === RatioTool.toolName && target in (one.data.cachedStats ?? {}));
  const place = lines.findIndex((one) => one.data === (data as unknown));
  const { heart, chest } = words.value.viewer;
  if (place % 2 === 0) return [`${heart} ${length}`];
  const before = (lines[place - 1]?.data.cachedStats as Measured['cachedStats'] | undefined)?.[target]?.length;
  const own = data.cachedStats[target]?.length;
  return [`${chest} ${length}`, ...(before && own ? [`CTR ${(before / own).toFixed(2)}`] : [])];
}

/** Removes all measurements; boxes stay. */
export function removeMeasurements(): void {
  for (const one of [...annotation.state.getAllAnnotations()]) {
    if (MEASURING.includes(one.metadata?.toolName ?? '') && one.annotationUID) {
      annotation.state.removeAnnotation(one.annotationUID);
    }
  }
  utilities.triggerAnnotationRenderForViewportIds(ToolGroupManager.getToolGroup(GROUP)?.getViewportIds() ?? []);
}

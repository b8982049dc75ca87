/** One image on the screen: what is shown, how, and the boxes on it. */
import { Enums, eventTarget, type Types, utilities } from '@cornerstonejs/core';
import { annotation, Enums as ToolEnums, utilities as toolUtilities } from '@cornerstonejs/tools';
import { type Signal, signal } from '@preact/signals';
import { startCornerstone } from './cornerstone.ts';
import type { Picture, Window } from './pictures.ts';
import { FindingBoxTool, useToolsIn } from './tools.ts';

/** A rectangle in pixels of the upright image, whose first pixel reaches from 0 to 1. */
export interface PixelBox {
  xmin: number;
  ymin: number;
  xmax: number;
  ymax: number;
}

/** A box as it is drawn. */
export interface ShownBox {
  key: string;
  /** What stands at its corner always, and what while it is pointed at. */
  tag: string;
  label: string;
  colour: string;
  /** Dash pattern, so that colours aren't all that tells boxes apart. */
  dash: string;
  box: PixelBox;
  visible: boolean;
  movable: boolean;
}

/** How the image is shown. */
export interface View {
  /** Screen pixels an image pixel takes, in percent. */
  zoom: number;
  center: number;
  width: number;
  inverted: boolean;
  /** Degrees clockwise. */
  rotation: number;
  mirrored: boolean;
}

export interface BoxListener {
  onHover(key: string | null): void;
  onSelect(key: string | null): void;
  onMove(key: string, box: PixelBox): void;
  onDraw(box: PixelBox): void;
}

interface BoxData {
  label?: string;
  boxKey?: string;
  handles: { points: Types.Point3[]; textBox: object };
}

const SILENT: BoxListener = { onHover() {}, onSelect() {}, onMove() {}, onDraw() {} };

/** A viewport of Cornerstone with what this workstation shows in it. */
export class Viewport {
  readonly view: Signal<View | null> = signal(null);
  listener: BoxListener = SILENT;
  picture: Picture | null = null;

  private stack: Types.IStackViewport | null = null;
  private readonly uids = new Map<string, string>();
  private readonly boxes = new Map<string, ShownBox>();
  private hovered: string | null = null;
  private readonly size: ResizeObserver;
  private stopped = false;

  constructor(
    readonly id: string,
    private readonly element: HTMLDivElement,
  ) {
    this.size = new ResizeObserver(() => this.resize());
  }

  /** Shows an image: fitted, with its first window, unless it is one that is shown already. */
  async show(picture: Picture): Promise<void> {
    const engine = await startCornerstone();
    if (this.stopped) return;
    if (!this.stack) {
      engine.enableElement({
        viewportId: this.id,
        type: Enums.ViewportType.STACK,
        element: this.element,
        defaultOptions: { background: [0, 0, 0] },
      });
      this.stack = engine.getViewport(this.id) as Types.IStackViewport;
      useToolsIn(this.id, engine.id);
      this.listen();
      this.size.observe(this.element);
    }
    if (this.picture?.imageId === picture.imageId) return;
    this.picture = picture;
    await this.stack.setStack([picture.imageId]);
    this.reset();
    this.drawBoxes();
  }

  /** Fits the image, and shows it as stored. */
  reset(): void {
    this.stack?.resetCamera();
    this.stack?.resetProperties();
    this.stack?.setViewPresentation({ rotation: 0 });
    this.stack?.setCamera({ flipHorizontal: false, flipVertical: false });
    const first = this.picture?.windows[0];
    if (first) this.setWindow(first);
    this.render();
  }

  fit(): void {
    this.stack?.resetCamera({ suppressEvents: false });
    this.render();
  }

  /** Shows one image pixel on one screen pixel. */
  actualPixels(): void {
    this.setZoom(100);
  }

  /** Sets the zoom, in percent of screen pixels an image pixel. */
  setZoom(percent: number): void {
    if (!this.stack) return;
    const now = this.percent();
    this.stack.setZoom((this.stack.getZoom() * percent) / now);
    this.render();
  }

  zoomBy(factor: number): void {
    this.setZoom(this.percent() * factor);
  }

  setWindow({ center, width }: Pick<Window, 'center' | 'width'>): void {
    this.stack?.setProperties({ voiRange: { lower: center - width / 2, upper: center + width / 2 } });
    this.render();
  }

  invert(): void {
    if (!this.stack) return;
    this.stack.setProperties({ invert: !this.stack.getProperties().invert });
    this.render();
  }

  /** Turns the image clockwise by a quarter. */
  rotate(): void {
    if (!this.stack) return;
    const { rotation = 0 } = this.stack.getViewPresentation();
    this.stack.setViewPresentation({ rotation: (rotation + 90) % 360 });
    this.render();
  }

  mirror(): void {
    if (!this.stack) return;
    const { flipHorizontal = false } = this.stack.getViewPresentation();
    this.stack.setCamera({ flipHorizontal: !flipHorizontal });
    this.render();
  }

  /** Takes over another viewport's zoom, place and window. */
  follow(other: Viewport): void {
    if (!this.stack || !other.stack) return;
    this.stack.setZoom(other.stack.getZoom());
    this.stack.setPan(other.stack.getPan());
    const range = other.stack.getProperties().voiRange;
    if (range && sameDepth(this.picture, other.picture)) this.stack.setProperties({ voiRange: range });
    this.stack.render();
    this.note();
  }

  /** Draws these boxes, in place of those before. */
  setBoxes(boxes: readonly ShownBox[]): void {
    const kept = new Set(boxes.map((one) => one.key));
    for (const [key, uid] of this.uids) {
      if (!kept.has(key)) {
        annotation.state.removeAnnotation(uid);
        this.uids.delete(key);
      }
    }
    this.boxes.clear();
    for (const one of boxes) this.boxes.set(one.key, one);
    this.drawBoxes();
  }

  /** Makes one box bright, whoever points at it. */
  highlight(key: string | null): void {
    for (const [each, uid] of this.uids) {
      const drawn = annotation.state.getAnnotation(uid);
      const box = this.boxes.get(each);
      if (!drawn || !box) continue;
      drawn.highlighted = each === key;
      drawn.data.label = each === key ? box.label : box.tag;
    }
    this.renderBoxes();
  }

  /** Moves the image so that a box is in the middle. */
  centerOn(box: PixelBox): void {
    const image = this.stack?.getImageData()?.imageData;
    if (!this.stack || !image) return;
    const middle = this.world([(box.xmin + box.xmax) / 2, (box.ymin + box.ymax) / 2]);
    const { focalPoint = [0, 0, 0], position = [0, 0, 0] } = this.stack.getCamera();
    const by = middle.map((value, at) => value - (focalPoint[at] ?? 0));
    this.stack.setCamera({
      focalPoint: middle,
      position: position.map((value, at) => value + (by[at] ?? 0)) as Types.Point3,
    });
    this.render();
  }

  /** Returns whether a box is not wholly in view. */
  isBeyondView(box: PixelBox): boolean {
    const corners = [this.canvas([box.xmin, box.ymin]), this.canvas([box.xmax, box.ymax])];
    const { clientWidth, clientHeight } = this.element;
    return corners.some(([x, y]) => x < 0 || y < 0 || x > clientWidth || y > clientHeight);
  }

  /** Ends the viewport. */
  stop(): void {
    this.stopped = true;
    this.size.disconnect();
    for (const uid of this.uids.values()) annotation.state.removeAnnotation(uid);
    this.uids.clear();
    for (const kind of [ToolEnums.Events.ANNOTATION_MODIFIED, ToolEnums.Events.ANNOTATION_COMPLETED]) {
      eventTarget.removeEventListener(kind, this.onAnnotation);
    }
    if (this.stack) startCornerstone().then((engine) => engine.disableElement(this.id));
  }

  render(): void {
    this.stack?.render();
    this.note();
  }

  private resize(): void {
    startCornerstone().then((engine) => {
      if (!this.stopped) {
        engine.resize(true, true);
        this.note();
      }
    });
  }

  /** Screen pixels an image pixel takes, in percent. */
  private percent(): number {
    const [x0, y0] = this.canvas([0, 0]);
    const [x1, y1] = this.canvas([1, 0]);
    return Math.hypot(x1 - x0, y1 - y0) * 100;
  }

  private note(): void {
    if (!this.stack || !this.picture) return;
    const { voiRange, invert = false } = this.stack.getProperties();
    const { rotation = 0, flipHorizontal = false } = this.stack.getViewPresentation();
    const { lower = 0, upper = 1 } = voiRange ?? {};
    this.view.value = {
      zoom: this.percent(),
      center: (lower + upper) / 2,
      width: upper - lower,
      inverted: invert,
      rotation,
      mirrored: flipHorizontal,
    };
  }

  private listen(): void {
    const { element } = this;
    for (const kind of [Enums.Events.CAMERA_MODIFIED, Enums.Events.VOI_MODIFIED]) {
      element.addEventListener(kind, () => this.note());
    }
    element.addEventListener(ToolEnums.Events.MOUSE_MOVE, (event) => {
      const key = this.boxAt((event as CustomEvent).detail.currentPoints.world);
      if (key !== this.hovered) {
        this.hovered = key;
        this.listener.onHover(key);
      }
    });
    element.addEventListener('mouseleave', () => {
      this.hovered = null;
      this.listener.onHover(null);
    });
    element.addEventListener(ToolEnums.Events.MOUSE_CLICK, (event) => {
      this.listener.onSelect(this.boxAt((event as CustomEvent).detail.currentPoints.world));
    });
    for (const kind of [ToolEnums.Events.ANNOTATION_MODIFIED, ToolEnums.Events.ANNOTATION_COMPLETED]) {
      eventTarget.addEventListener(kind, this.onAnnotation);
    }
  }

  private readonly onAnnotation = (event: Event): void => {
    const { annotation: changed, viewportId } = (event as CustomEvent).detail;
    if (changed?.metadata.toolName !== FindingBoxTool.toolName) return;
    const data = changed.data as BoxData;
    if (data.boxKey !== undefined) {
      if (this.uids.get(data.boxKey) !== changed.annotationUID) return;
      this.listener.onMove(data.boxKey, this.boxOf(data));
      return;
    }
    if (event.type !== ToolEnums.Events.ANNOTATION_COMPLETED) return;
    if (viewportId !== undefined && viewportId !== this.id) return;
    if (changed.metadata.FrameOfReferenceUID !== this.stack?.getFrameOfReferenceUID()) return;
    const box = this.boxOf(data);
    annotation.state.removeAnnotation(changed.annotationUID); // drawn anew as one of ours
    if (box.xmax - box.xmin >= 4 && box.ymax - box.ymin >= 4) this.listener.onDraw(box);
    this.renderBoxes();
  };

  private boxAt(world: Types.Point3): string | null {
    const [x, y] = this.pixel(world);
    const inside = [...this.boxes.values()].filter(
      ({ box, visible }) => visible && x >= box.xmin && x <= box.xmax && y >= box.ymin && y <= box.ymax,
    );
    const area = ({ box }: ShownBox) => (box.xmax - box.xmin) * (box.ymax - box.ymin);
    return inside.sort((a, b) => area(a) - area(b))[0]?.key ?? null;
  }

  private drawBoxes(): void {
    if (!this.stack || !this.picture) return;
    for (const one of this.boxes.values()) this.drawBox(this.stack, one);
    this.renderBoxes();
  }

  private drawBox(stack: Types.IStackViewport, { key, tag, colour, dash, box, visible, movable }: ShownBox): void {
    const points = [
      this.world([box.xmin, box.ymin]),
      this.world([box.xmax, box.ymin]),
      this.world([box.xmin, box.ymax]),
      this.world([box.xmax, box.ymax]),
    ];
    const known = this.uids.get(key);
    let drawn = known ? annotation.state.getAnnotation(known) : undefined;
    if (drawn) {
      (drawn.data as BoxData).handles.points = points;
    } else {
      const corner = points[0] as Types.Point3;
      const textBox = {
        hasMoved: true,
        worldPosition: corner,
        worldBoundingBox: { topLeft: corner, topRight: corner, bottomLeft: corner, bottomRight: corner },
      };
      drawn = FindingBoxTool.createAnnotationForViewport(stack, {
        data: { label: tag, boxKey: key, cachedStats: {}, handles: { points, activeHandleIndex: null, textBox } },
      });
      annotation.state.addAnnotation(drawn, this.element);
      drawn.highlighted = false;
      this.uids.set(key, drawn.annotationUID as string);
    }
    const uid = drawn.annotationUID as string;
    annotation.config.style.setAnnotationStyles(uid, {
      color: colour,
      colorHighlighted: colour,
      colorSelected: colour,
      colorLocked: colour,
      lineDash: dash,
      lineWidth: '2',
      lineWidthHighlighted: '4',
      textBoxColor: '#ffffff',
      textBoxColorHighlighted: '#ffffff',
      textBoxColorLocked: '#ffffff',
      textBoxBackground: `${colour}cc`,
    });
    annotation.visibility.setAnnotationVisibility(uid, visible);
    annotation.locking.setAnnotationLocked(uid, !movable);
  }

  private renderBoxes(): void {
    toolUtilities.triggerAnnotationRender(this.element);
  }

  private boxOf({ handles }: BoxData): PixelBox {
    const corners = handles.points.map((point) => this.pixel(point));
    const { width, height } = this.picture ?? { width: 0, height: 0 };
    const within = (value: number, size: number) => Math.min(Math.max(value, 0), size);
    const across = corners.map(([x]) => within(x, width));
    const down = corners.map(([, y]) => within(y, height));
    return {
      xmin: Math.min(...across),
      ymin: Math.min(...down),
      xmax: Math.max(...across),
      ymax: Math.max(...down),
    };
  }

  /** Returns the place in Cornerstone's world of a place on the image, whose first pixel reaches from 0 to 1. */
  private world([x, y]: [number, number]): Types.Point3 {
    const image = this.stack?.getImageData()?.imageData;
    return image ? (utilities.transformIndexToWorld(image, [x - 0.5, y - 0.5, 0]) as Types.Point3) : [0, 0, 0];
  }

  private pixel(world: Types.Point3): [number, number] {
    const image = this.stack?.getImageData()?.imageData;
    if (!image) return [0, 0];
    const [i = 0, j = 0] = utilities.transformWorldToIndexContinuous(image, world);
    return [i + 0.5, j + 0.5];
  }

  /** Returns where a place on the image is on the element, in CSS pixels. */
  canvas(place: [number, number]): [number, number] {
    return this.stack ? (this.stack.worldToCanvas(this.world(place)) as [number, number]) : [0, 0];
  }
}

const sameDepth = (a: Picture | null, b: Picture | null): boolean =>
  a !== null && b !== null && a.pixels?.constructor === b.pixels?.constructor;

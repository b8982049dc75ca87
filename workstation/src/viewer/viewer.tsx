/** The image on black, what stands around it, and its tools. */
import { useSignal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { words } from '../words/words.ts';
import type { Picture } from './pictures.ts';
import { type BoxListener, type ShownBox, type View, Viewport } from './viewport.ts';

interface Props {
  id: string;
  picture: Picture | null;
  /** Why there is none, or that it is on its way. */
  instead: ComponentChildren;
  boxes: readonly ShownBox[];
  highlighted: string | null;
  opacity: number;
  listener?: BoxListener;
  onViewport?: (viewport: Viewport) => void;
  corner?: ComponentChildren;
}

/** One image with its boxes, sides and values. */
export function Viewer({
  id,
  picture,
  instead,
  boxes,
  highlighted,
  opacity,
  listener,
  onViewport,
  corner,
}: Props) {
  const element = useRef<HTMLDivElement>(null);
  const viewport = useRef<Viewport | null>(null);
  const view = useSignal<View | null>(null);

  useEffect(() => {
    const made = new Viewport(id, element.current as HTMLDivElement);
    viewport.current = made;
    onViewport?.(made);
    const unsubscribe = made.view.subscribe((value) => {
      view.value = value;
    });
    return () => {
      unsubscribe();
      made.stop();
      viewport.current = null;
    };
  }, [id]);
  useEffect(() => {
    if (viewport.current && listener) viewport.current.listener = listener;
  }, [listener]);
  useEffect(() => {
    if (picture) viewport.current?.show(picture);
  }, [picture]);
  useEffect(() => viewport.current?.setBoxes(boxes), [boxes]);
  useEffect(() => viewport.current?.highlight(highlighted), [highlighted]);

  return (
    <div class="viewer" style={{ '--box-opacity': opacity }}>
      <div
        ref={element}
        class={`viewport ${picture ? '' : 'empty'}`}
        data-testid={`viewport-${id}`}
        role="img"
        aria-label={words.value.viewer.title}
        onContextMenu={(event) => event.preventDefault()}
      />
      {picture ? (
        <>
          <Sides view={view.value} />
          <Values view={view.value} picture={picture} />
        </>
      ) : (
        <div class="instead">{instead}</div>
      )}
      {corner}
    </div>
  );
}

/** Which side is which, as the image is turned now. */
function Sides({ view }: { view: View | null }) {
  const { right, left, head, foot, mirrored, turned } = words.value.viewer;
  if (!view) return null;
  const round = [head, left, foot, right]; // clockwise from the top
  if (view.mirrored) round.reverse();
  // Mirrored, the list begins at the patient's right: bring the head to the top again, then turn.
  while (round[0] !== head) round.push(round.shift() as string);
  const quarter = Math.round(view.rotation / 90) % 4;
  const at = (place: number) => round[(place - quarter + 4) % 4];
  return (
    <>
      {['top', 'right', 'bottom', 'left'].map((edge, place) => (
        <span key={edge} class={`side ${edge}`} aria-hidden="true">
          {at(place)}
        </span>
      ))}
      {view.mirrored && (
        <p class="turned" role="status">
          {mirrored}
        </p>
      )}
      {!view.mirrored && quarter > 0 && (
        <p class="turned" role="status">
          {turned(quarter * 90)}
        </p>
      )}
    </>
  );
}

/** Zoom, window and scale. */
function Values({ view, picture }: { view: View | null; picture: Picture }) {
  const { zoomValue, windowValue, pixels, caliper } = words.value.viewer;
  if (!view) return null;
  return (
    <p class="values">
      <span>{zoomValue(Math.round(view.zoom))}</span>
      <span data-testid="window">{windowValue(Math.round(view.width), Math.round(view.center))}</span>
      <span title={picture.spacing ? (picture.atDetector ? caliper : '') : pixels}>
        {picture.width} × {picture.height}
        {picture.spacing ? ` · ${picture.spacing[0].toFixed(3)} mm` : ' px'}
      </span>
    </p>
  );
}

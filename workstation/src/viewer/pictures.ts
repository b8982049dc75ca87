/** The pixels of images: fetched or chosen, decoded, and kept for a while. */
import { fetchFrom } from '../api/client.ts';
import type { DecodedPng } from './decode-worker.ts';

export interface Window {
  name: string;
  center: number;
  width: number;
}

/** An image that can be shown. */
export interface Picture {
  /** Cornerstone's id of it. */
  imageId: string;
  width: number;
  height: number;
  /** Row by row; null where Cornerstone's own loader has them. */
  pixels: Uint8Array | Uint16Array | null;
  /** The first shows the image as the model saw it. */
  windows: Window[];
  /** Millimetres between rows and between columns; null where the file says nothing. */
  spacing: [number, number] | null;
  /** Whether the spacing is that at the detector, as projections have it. */
  atDetector: boolean;
}

const KEPT = 8;
const known = new Map<string, Picture>();
const pending = new Map<string, Promise<Picture>>();

/** Returns the picture with one of Cornerstone's ids, for its loader. */
export const pictureOf = (imageId: string): Picture | undefined => known.get(imageId);

/** Returns the image of a job as the server read it. Rejects with a `Problem`. */
export function pictureOfJob(job: string): Promise<Picture> {
  const imageId = `emx:${job}`;
  const found = known.get(imageId);
  if (found) {
    known.delete(imageId); // the one used last is dropped last
    known.set(imageId, found);
    return Promise.resolve(found);
  }
  let loading = pending.get(imageId);
  if (!loading) {
    loading = fetchFrom(`v1/jobs/${job}/image.png?depth=16`)
      .then((response) => response.arrayBuffer())
      .then((file) => decodePng(file))
      .then((decoded) => keep(fromPng(imageId, decoded)))
      .finally(() => pending.delete(imageId));
    pending.set(imageId, loading);
  }
  return loading;
}

/** Returns a chosen file as a picture; null where this browser can't show it. */
export async function pictureOfFile(file: Blob, id: string): Promise<Picture | null> {
  try {
    const start = new Uint8Array(await file.slice(0, 132).arrayBuffer());
    if (new TextDecoder().decode(start.slice(128)) === 'DICM') {
      const { loadDicomFile } = await import('./dicom-files.ts');
      return keep(await loadDicomFile(file));
    }
    return keep(await fromBitmap(`emx:${id}`, await createImageBitmap(file)));
  } catch {
    return null;
  }
}

/** Drops the pixels of a job that was erased. */
export function forgetPicture(job: string): void {
  known.delete(`emx:${job}`);
}

function keep(picture: Picture): Picture {
  known.set(picture.imageId, picture);
  for (const imageId of known.keys()) {
    if (known.size <= KEPT) break;
    known.delete(imageId);
  }
  return picture;
}

function fromPng(imageId: string, { width, height, pixels, text }: DecodedPng): Picture {
  const full: Window = pixels instanceof Uint16Array ? windowOf('full', 0, 65535) : windowOf('full', 0, 255);
  const first = text.Window ? parsedWindow('file', text.Window) : null;
  const further = (text.Windows ?? '').split('; ').filter(Boolean);
  const windows = [
    first ?? { ...full, name: 'file' },
    ...further.map((one) => parsedWindow(one.split('=')[0] ?? '', one.split('=')[1] ?? '')),
    ...(first ? [full] : []),
  ].filter((one): one is Window => one !== null);
  const [row, column] = (text.PixelSpacing ?? '').split(' ').map(Number);
  const spacing: [number, number] | null = row && column ? [row, column] : null;
  return {
    imageId,
    width,
    height,
    pixels,
    windows,
    spacing,
    atDetector: text.PixelSpacingFrom !== 'PixelSpacing',
  };
}

function parsedWindow(name: string, text: string): Window | null {
  const [center, width] = text.split(' ').map(Number);
  return center !== undefined && width !== undefined && width > 0 ? { name, center, width } : null;
}

const windowOf = (name: string, low: number, high: number): Window => ({
  name,
  center: (low + high) / 2,
  width: high - low,
});

async function fromBitmap(imageId: string, bitmap: ImageBitmap): Promise<Picture> {
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  if (!context) throw new Error('No canvas.');
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const pixels = new Uint8Array(width * height);
  for (let at = 0; at < pixels.length; at++) {
    // Luma as of ITU-R BT.601, as the server computes it.
    pixels[at] =
      ((data[4 * at] ?? 0) * 299 + (data[4 * at + 1] ?? 0) * 587 + (data[4 * at + 2] ?? 0) * 114) / 1000;
  }
  return {
    imageId,
    width,
    height,
    pixels,
    windows: [windowOf('file', 0, 255)],
    spacing: null,
    atDetector: false,
  };
}

let worker: Worker | null = null;
let questions = 0;
const waiting = new Map<number, { resolve(png: DecodedPng): void; reject(error: Error): void }>();

function decodePng(file: ArrayBuffer): Promise<DecodedPng> {
  if (!worker) {
    worker = new Worker(new URL('./decode-worker.ts', import.meta.url), { type: 'module' });
    worker.onmessage = ({ data }) => {
      const question = waiting.get(data.number);
      waiting.delete(data.number);
      if (data.decoded) question?.resolve(data.decoded);
      else question?.reject(new Error(data.error));
    };
  }
  const number = questions++;
  worker.postMessage({ number, file }, [file]);
  return new Promise((resolve, reject) => waiting.set(number, { resolve, reject }));
}

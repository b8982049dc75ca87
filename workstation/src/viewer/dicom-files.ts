/** DICOM files that were chosen and that the server doesn't have yet, decoded by Cornerstone's loader. */
import { imageLoader, metaData } from '@cornerstonejs/core';
import { init as initDicomLoader, wadouri } from '@cornerstonejs/dicom-image-loader';
import { startCornerstone } from './cornerstone.ts';
import type { Picture } from './pictures.ts';

let ready = false;

/** Decodes a DICOM file. Rejects where Cornerstone can't. */
export async function loadDicomFile(file: Blob): Promise<Picture> {
  await startCornerstone();
  if (!ready) {
    initDicomLoader({ maxWebWorkers: 1 });
    ready = true;
  }
  const imageId = wadouri.fileManager.add(file as File);
  const image = await imageLoader.loadAndCacheImage(imageId);
  const centers = [image.windowCenter].flat();
  const widths = [image.windowWidth].flat();
  const plane = metaData.get('imagePlaneModule', imageId);
  const spacing: [number, number] | null = plane?.rowPixelSpacing
    ? [plane.rowPixelSpacing, plane.columnPixelSpacing]
    : null;
  return {
    imageId,
    width: image.columns,
    height: image.rows,
    pixels: null,
    windows: centers.map((center, at) => ({
      name: at ? `window ${at + 1}` : 'file',
      center,
      width: widths[at] ?? 1,
    })),
    spacing,
    atDetector: true,
  };
}

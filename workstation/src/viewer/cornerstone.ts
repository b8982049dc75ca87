/** Cornerstone3D, started once: its loader for our pictures, and where it draws. */
import {
  Enums,
  imageLoader,
  init as initCore,
  metaData,
  RenderingEngine,
  setUseCPURendering,
  type Types,
  utilities,
} from '@cornerstonejs/core';
import { init as initTools } from '@cornerstonejs/tools';
import { type Picture, pictureOf } from './pictures.ts';
import { createToolGroup } from './tools.ts';

/** WebGL without a graphics card is slower than Cornerstone's own way to draw on the CPU. */
const SOFTWARE = /swiftshader|llvmpipe|software|basic render/i;

let started: Promise<RenderingEngine> | null = null;

/** Starts Cornerstone at the first call. */
export function startCornerstone(): Promise<RenderingEngine> {
  started ??= start();
  return started;
}

async function start(): Promise<RenderingEngine> {
  initCore();
  if (drawsOnCpu()) setUseCPURendering(true);
  initTools();
  imageLoader.registerImageLoader('emx', (imageId) => ({ promise: Promise.resolve(imageOf(imageId)) }));
  metaData.addProvider(describe, 10_000);
  createToolGroup();
  return new RenderingEngine('workstation');
}

/** Returns whether pictures are drawn by the CPU: `?draw=cpu` or `?draw=gpu` chooses, else what is there. */
export function drawsOnCpu(): boolean {
  const chosen = new URLSearchParams(location.search).get('draw');
  if (chosen) return chosen === 'cpu';
  const context = document.createElement('canvas').getContext('webgl2');
  if (!context) return true;
  const debug = context.getExtension('WEBGL_debug_renderer_info');
  const renderer = debug ? String(context.getParameter(debug.UNMASKED_RENDERER_WEBGL)) : '';
  context.getExtension('WEBGL_lose_context')?.loseContext();
  return SOFTWARE.test(renderer);
}

function known(imageId: string): Picture {
  const picture = pictureOf(imageId);
  if (!picture) throw new Error('The picture is no longer kept.');
  return picture;
}

function imageOf(imageId: string): Types.IImage {
  const { width, height, pixels, windows, spacing } = known(imageId);
  if (!pixels) throw new Error('Another loader has this picture.');
  const [row, column] = spacing ?? [1, 1];
  const first = windows[0] ?? { center: 128, width: 255 };
  const image: Partial<Types.IImage> = {
    imageId,
    minPixelValue: 0,
    maxPixelValue: pixels instanceof Uint16Array ? 65535 : 255,
    slope: 1,
    intercept: 0,
    windowCenter: first.center,
    windowWidth: first.width,
    voiLUTFunction: Enums.VOILUTFunctionType.LINEAR_EXACT,
    getPixelData: () => pixels,
    rows: height,
    columns: width,
    height,
    width,
    color: false,
    rgba: false,
    numberOfComponents: 1,
    rowPixelSpacing: row,
    columnPixelSpacing: column,
    sizeInBytes: pixels.byteLength,
    invert: false,
    dataType: pixels instanceof Uint16Array ? 'Uint16Array' : 'Uint8Array',
    voxelManager: utilities.VoxelManager.createImageVoxelManager({
      width,
      height,
      scalarData: pixels,
      numberOfComponents: 1,
    }) as Types.IVoxelManager<number>,
  };
  return image as Types.IImage;
}

/** Tells Cornerstone of a picture what a DICOM file would. */
function describe(kind: string, imageId: string): unknown {
  if (typeof imageId !== 'string' || !imageId.startsWith('emx:')) return undefined;
  const picture = pictureOf(imageId);
  if (!picture) return undefined;
  const { width, height, pixels, windows, spacing } = picture;
  const bits = pixels instanceof Uint16Array ? 16 : 8;
  switch (kind) {
    case 'imagePixelModule':
      return {
        pixelRepresentation: 0,
        bitsAllocated: bits,
        bitsStored: bits,
        highBit: bits - 1,
        samplesPerPixel: 1,
        photometricInterpretation: 'MONOCHROME2',
      };
    case 'imagePlaneModule':
      return {
        frameOfReferenceUID: imageId, // each picture's boxes and measurements are its own
        rows: height,
        columns: width,
        imageOrientationPatient: [1, 0, 0, 0, 1, 0],
        rowCosines: [1, 0, 0],
        columnCosines: [0, 1, 0],
        imagePositionPatient: [0, 0, 0],
        pixelSpacing: spacing ?? [1, 1],
        rowPixelSpacing: spacing?.[0] ?? 1,
        columnPixelSpacing: spacing?.[1] ?? 1,
        usingDefaultValues: spacing === null,
      };
    case 'generalSeriesModule':
      return { modality: 'DX', seriesInstanceUID: imageId, seriesNumber: 1 };
    case 'voiLutModule':
      return {
        windowCenter: windows.map((one) => one.center),
        windowWidth: windows.map((one) => one.width),
        voiLUTFunction: Enums.VOILUTFunctionType.LINEAR_EXACT,
      };
    case 'modalityLutModule':
      return { rescaleSlope: 1, rescaleIntercept: 0 };
    default:
      return undefined;
  }
}

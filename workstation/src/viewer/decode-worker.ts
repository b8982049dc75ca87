/** Decodes PNG files off the page's thread. */
import { decode } from 'fast-png';

export interface DecodedPng {
  width: number;
  height: number;
  pixels: Uint8Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;
  text: Record<string, string>;
}

self.onmessage = ({ data }: MessageEvent<{ number: number; file: ArrayBuffer }>) => {
  try {
    const png = decode(data.file);
    if (png.channels !== 1) throw new Error('The picture is not grayscale.');
    const pixels = png.depth === 16 ? Uint16Array.from(png.data) : Uint8Array.from(png.data);
    const decoded: DecodedPng = { width: png.width, height: png.height, pixels, text: png.text };
    self.postMessage({ number: data.number, decoded }, { transfer: [pixels.buffer] });
  } catch (error) {
    self.postMessage({ number: data.number, error: String(error) });
  }
};

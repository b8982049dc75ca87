import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  base: './', // below any path prefix
  resolve: {
    // What is imported by Cornerstone3D and never used here: XML meshes, and a worker for segmentations.
    alias: [
      { find: 'xmlbuilder2', replacement: here('./src/absent.ts') },
      { find: /^.*\/registerComputeWorker\.js$/, replacement: here('./src/absent.ts') },
    ],
  },
  worker: { format: 'es' },
  build: {
    outDir: here('../gateway/emx_gateway/web'),
    emptyOutDir: true,
    target: 'es2022',
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 4000,
    license: { fileName: 'licenses.md' },
    assetsInlineLimit: 0, // the content policy has no data: but for pictures
  },
  server: {
    proxy: Object.fromEntries(
      ['/v1', '/demo.png', '/docs', '/healthz', '/readyz'].map((path) => [path, 'http://127.0.0.1:8000']),
    ),
  },
});

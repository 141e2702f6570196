// How the page is built: into server/page, which is checked in so that building the server needs no
// node. In two steps: `--mode sdk` the SDK as one file, then the page, which loads that file.
import { fileURLToPath } from 'node:url';
import { defineConfig, type UserConfig } from 'vite';

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

const shared = {
  outDir: here('../../../server/page'),
  target: 'es2022',
  minify: true,
  modulePreload: false,
} as const;

const sdk: UserConfig = {
  publicDir: false,
  build: {
    ...shared,
    emptyOutDir: true,
    lib: { entry: here('../src/sdk.ts'), formats: ['es'], fileName: () => 'sdk.js' },
    // Vite itself leaves the white space of libraries in.
    rolldownOptions: { output: { minify: true } },
  },
};

const page: UserConfig = {
  root: here('.'),
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  plugins: [
    {
      name: 'sdk-is-a-file-of-its-own',
      enforce: 'pre',
      resolveId: (id, importer) =>
        importer !== undefined && id.endsWith('/sdk.js') ? { id: '/sdk.js', external: true } : null,
    },
  ],
  build: {
    ...shared,
    emptyOutDir: false,
    cssCodeSplit: false,
    rolldownOptions: {
      makeAbsoluteExternalsRelative: false,
      output: {
        entryFileNames: 'app.js',
        assetFileNames: (asset) => (asset.names[0]?.endsWith('.css') ? 'style.css' : '[name][extname]'),
      },
    },
  },
};

export default defineConfig(({ mode }) => (mode === 'sdk' ? sdk : page));

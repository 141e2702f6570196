// How the package is built and tested.
import { defineConfig } from 'vitest/config';

const MODULES = { index: 'src/index.ts', persist: 'src/persist/index.ts' };
/** Everything in one file, for pages that have no bundler: built after the others. */
const SINGLE = { sdk: 'src/sdk.ts' };

export default defineConfig(({ mode }) => ({
  build: {
    target: 'es2022',
    minify: true,
    sourcemap: true,
    emptyOutDir: mode !== 'single',
    lib: { entry: mode === 'single' ? SINGLE : MODULES, formats: ['es'] },
    // Vite itself leaves the white space of libraries in.
    rolldownOptions: { output: { minify: true, chunkFileNames: 'shared.js' } },
  },
  test: {
    // A hung test ends; timing decides nothing.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    projects: [
      { extends: true, test: { name: 'pure', include: ['tests/pure/**/*.test.ts'] } },
      {
        extends: true,
        test: {
          name: 'server',
          include: ['tests/server/**/*.test.ts'],
          fileParallelism: false,
          execArgv: ['--experimental-websocket'],
        },
      },
      {
        extends: true,
        test: {
          name: 'browser',
          include: ['tests/browser/**/*.test.ts'],
          fileParallelism: false,
          execArgv: ['--experimental-websocket'],
        },
      },
      {
        extends: true,
        test: {
          name: 'page',
          include: ['tests/page/**/*.test.ts'],
          fileParallelism: false,
          execArgv: ['--experimental-websocket'],
        },
      },
    ],
  },
}));

// Says what `import { connect } from '@tern/client'` costs a page: bundled, minified, gzipped. Fails
// if that is above the budget.
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'vite';

/** In bytes. */
const BUDGET = 20 * 1024;

const entry = fileURLToPath(new URL('../dist/index.js', import.meta.url));
const app = '\0app';
const { output } = await build({
  configFile: false,
  logLevel: 'error',
  build: { write: false, target: 'es2022', rolldownOptions: { input: app, output: { minify: true } } },
  plugins: [
    {
      name: 'app',
      resolveId: (id) => (id === app ? id : null),
      load: (id) =>
        id === app ? `import { connect } from ${JSON.stringify(entry)}; globalThis.connect = connect;` : null,
    },
  ],
});
const code = output.map((chunk) => ('code' in chunk ? chunk.code : '')).join('');
const bytes = gzipSync(code, { level: 9 }).length;
console.log(`connect: ${code.length} bytes minified, ${bytes} gzipped, budget ${BUDGET}`);
process.exitCode = bytes > BUDGET ? 1 : 0;

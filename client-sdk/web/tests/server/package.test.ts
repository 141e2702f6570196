// The package as users get it: packed, installed into a fresh strict project, compiled and run.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { Server } from '../harness/server.js';

const here = fileURLToPath(new URL('../../', import.meta.url));
const tsc = join(here, 'node_modules/typescript/bin/tsc');

const MAIN = `
import { Code, connect, type Entry, type State, TernError } from '@tern/client';
import { indexedDb, type Persistence } from '@tern/client/persist';

const keep: (user: string) => Persistence = (user) => indexedDb({ user });
void keep;
const [url = '', token = ''] = process.argv.slice(2);
const client = await connect({ url, token });
const first = new Promise<Entry>((resolve) => client.on('entry', ({ entry }) => resolve(entry)));
const { seq, conversation } = await client.send('bob', 'hello from a package');
const { body } = await first;
const problem: unknown = await client.send('bob', '').catch((error: unknown) => error);
if (!(problem instanceof TernError) || problem.code !== Code.TEXT_EMPTY || problem.retryable) throw problem;
const state: State = client.state;
const { entries } = await client.history(conversation);
console.log(JSON.stringify({ seq, body, state, entries: entries.length }));
await client.close();
`;

test('a packed package is all that a strict TypeScript project needs', async () => {
  const server = await Server.start();
  const dir = mkdtempSync(join(tmpdir(), 'tern-package-'));
  const run = (command: string, args: string[], cwd = dir) =>
    execFileSync(command, args, { cwd, encoding: 'utf8' });
  try {
    run('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', dir], here);
    const packed = readdirSync(dir).find((name) => name.endsWith('.tgz')) ?? '';
    const options = {
      strict: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: false,
      target: 'ES2022',
      outDir: 'out',
    };
    const files: Record<string, object> = {
      'package.json': { type: 'module', dependencies: { '@tern/client': `file:./${packed}` } },
      'tsconfig.json': { compilerOptions: { ...options, module: 'NodeNext', types: [] }, include: ['*.ts'] },
    };
    for (const [name, value] of Object.entries(files)) writeFileSync(join(dir, name), JSON.stringify(value));
    writeFileSync(join(dir, 'main.ts'), `declare const process: { argv: string[] };${MAIN}`);
    mkdirSync(join(dir, 'out'));
    run('npm', ['install', '--no-audit', '--no-fund', '--offline', '--silent']);
    run('node', [tsc, '-p', '.']);
    const said = run('node', [
      '--experimental-websocket',
      'out/main.js',
      server.ready.http_url,
      server.token('alice'),
    ]);
    expect(JSON.parse(said)).toEqual({
      seq: 1,
      body: { kind: 'message', text: 'hello from a package', data: null, replyTo: null },
      state: { state: 'online', transport: 'websocket' },
      entries: 1,
    });
    const { dependencies } = JSON.parse(
      readFileSync(join(dir, 'node_modules/@tern/client/package.json'), 'utf8'),
    );
    expect(dependencies).toBeUndefined();
  } finally {
    rmSync(dir, { recursive: true, force: true });
    await server.stop();
  }
});

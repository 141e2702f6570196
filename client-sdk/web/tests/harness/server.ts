// A real `tern dev` process with a data directory of its own.
import { type ChildProcess, spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** The line by which a server says where it is. */
export interface Ready {
  quic_addr: string;
  websocket_url: string;
  wss_url: string;
  http_url: string;
  ops_url: string;
  webtransport_url?: string;
  cert_sha256: string;
  store_id: string;
  jwt_secret_file: string;
  tokens: Record<string, string>;
}

const root = fileURLToPath(new URL('../../../../', import.meta.url));

/** The built server: `TERN_BIN`, or that of the debug build. */
export const binary = (): string => {
  const path =
    process.env.TERN_BIN ?? join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'debug/tern');
  if (!existsSync(path)) throw new Error(`${path} is not there: run \`cargo build -p tern\``);
  return path;
};

/** Settings that tests want loose, so that only those about limits meet them. */
const LOOSE = [
  'USER_SENDS_PER_SECOND',
  'USER_SENDS_BURST',
  'USER_FETCHES_PER_SECOND',
  'USER_FETCHES_BURST',
  'CONNECTION_FRAMES_PER_SECOND',
  'CONNECTION_FRAMES_BURST',
  'CONNECTION_WATCHES_PER_SECOND',
  'CONNECTION_WATCHES_BURST',
];

const base64 = (data: string | Buffer) => Buffer.from(data).toString('base64url');

/** A running server. */
export class Server {
  ready!: Ready;
  private child: ChildProcess | null = null;
  private readonly dir = mkdtempSync(join(tmpdir(), 'tern-web-'));
  private log = '';
  private readonly env: Record<string, string>;

  private constructor(env: Record<string, string>) {
    this.env = env;
  }

  /** Where it keeps its data; `tern chat` finds it there. */
  get dataDir(): string {
    return join(this.dir, 'data');
  }

  static async start(env: Record<string, string> = {}): Promise<Server> {
    const server = new Server(env);
    await server.launch([0, 0, 0]);
    return server;
  }

  private launch(ports: readonly number[]): Promise<void> {
    const args = ['dev', '--json', '--data-dir', this.dataDir];
    for (const [at, flag] of ['--port', '--http-port', '--ops-port'].entries())
      args.push(flag, String(ports[at]));
    const env: Record<string, string | undefined> = { ...process.env, ...this.env };
    for (const name of LOOSE) env[`TERN__QUOTA__${name}`] ??= '100000';
    const child = spawn(binary(), args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.child = child;
    child.stderr?.on('data', (text) => {
      this.log += text;
    });
    return new Promise((resolve, reject) => {
      child.once('exit', (code) => reject(new Error(`the server ended with ${code}\n${this.log}`)));
      createInterface({ input: child.stdout as NodeJS.ReadableStream }).once('line', (line) => {
        this.ready = JSON.parse(line);
        resolve();
      });
    });
  }

  /** Its ports: clients, HTTP, operators. */
  get ports(): number[] {
    const { quic_addr, http_url, ops_url } = this.ready;
    return [quic_addr, http_url, ops_url].map((text) => Number(text.split(':').at(-1)));
  }

  /** Ends it at once, as a crash would. */
  kill(): Promise<void> {
    return this.end('SIGKILL');
  }

  /** Asks it to drain and waits until it has ended. */
  drain(): Promise<void> {
    return this.end('SIGTERM');
  }

  private end(signal: NodeJS.Signals): Promise<void> {
    const { child } = this;
    this.child = null;
    if (!child || child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
    return new Promise((resolve) => {
      child.once('exit', () => resolve());
      child.kill(signal);
    });
  }

  /** Starts it again on the same data and ports. */
  async restart(): Promise<void> {
    await this.kill();
    for (let tries = 1; ; tries++) {
      try {
        return await this.launch(this.ports);
      } catch (error) {
        // Somebody else got one of the ports meanwhile.
        if (tries === 5 || !String(error).includes('another program uses it')) throw error;
        await new Promise((resolve) => setTimeout(resolve, 300));
      }
    }
  }

  /** A token of this user for so many seconds. */
  token(user: string, seconds = 3600): string {
    const now = Math.floor(Date.now() / 1000);
    const claims = JSON.parse(
      Buffer.from((this.ready.tokens.alice ?? '').split('.')[1] ?? '', 'base64url').toString(),
    );
    const payload = {
      ...claims,
      sub: user,
      name: user[0]?.toUpperCase() + user.slice(1),
      iat: now,
      nbf: now - 60,
      exp: now + seconds,
    };
    const head = base64(JSON.stringify({ alg: 'HS256', typ: 'JWT' }));
    const body = `${head}.${base64(JSON.stringify(payload))}`;
    const secret = readFileSync(this.ready.jwt_secret_file, 'utf8').replace(/[\r\n]+$/, '');
    return `${body}.${base64(createHmac('sha256', secret).update(body).digest())}`;
  }

  /** What it has logged so far. */
  get logged(): string {
    return this.log;
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

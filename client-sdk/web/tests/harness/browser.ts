// Debian's Chromium with a page that has the built package, from an origin on loopback.
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type BrowserContext, chromium, type Page } from 'playwright-core';
import type { Config, Entry, Stats } from '../../src/index.js';
import { until } from './people.js';
import type { Server } from './server.js';

const CHROMIUM = process.env.TERN_CHROMIUM ?? '/usr/bin/chromium';
const DIST = fileURLToPath(new URL('../../dist/', import.meta.url));
const EXAMPLE = fileURLToPath(new URL('../../examples/hello.html', import.meta.url));
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-sync',
];

/** What the page runs: people by name, each with everything they were told. */
const PAGE = `
import { start } from '/index.js';
import { indexedDb } from '/persist.js';
globalThis.people = {};
globalThis.arrive = (name, config, persist) => {
  // A page whose test gives out tokens asks there.
  const renew = globalThis.mint ? { renewToken: ({ why }) => globalThis.mint(why) } : {};
  const client = start({ ...config, ...renew, ...(persist ? { persist: indexedDb({ user: persist }) } : {}) });
  const person = { client, entries: [], events: [] };
  globalThis.people[name] = person;
  client.on('entry', ({ conversation, entry }) => person.entries.push({ conversation, ...entry }));
  for (const event of ['gap', 'echo', 'sent', 'sendFailed', 'state', 'problem', 'persistence', 'resync', 'storeChanged'])
    client.on(event, (value) => person.events.push({ name: event, value: value.error ? { ...value, error: String(value.error) } : value }));
};
globalThis.ready = true;
`;

/** One browser with a profile of its own, and the origin that its pages come from. */
export class Browser {
  private readonly context: BrowserContext;
  private readonly origin: string;
  private readonly end: () => Promise<void>;

  private constructor(context: BrowserContext, origin: string, end: () => Promise<void>) {
    this.context = context;
    this.origin = origin;
    this.end = end;
  }

  static async start(): Promise<Browser> {
    if (!existsSync(join(DIST, 'index.js'))) throw new Error('dist is not there: run `npm run build`');
    const site = createServer(({ url }, response) => {
      const file = join(DIST, (url ?? '/').slice(1));
      const pages: Record<string, string> = {
        '/': '<script type="module" src="/page.js"></script>',
        '/page.js': PAGE,
        '/hello.html': readFileSync(EXAMPLE, 'utf8'),
      };
      const text = pages[url ?? ''];
      if (text === undefined && !/^\/[\w-]+\.js$/.test(url ?? '')) return response.writeHead(404).end();
      const type = url?.endsWith('.js') ? 'text/javascript' : 'text/html';
      response.writeHead(200, { 'content-type': type }).end(text ?? readFileSync(file));
    });
    await new Promise<void>((resolve) => site.listen(0, '127.0.0.1', resolve));
    const profile = mkdtempSync(join(tmpdir(), 'tern-chromium-'));
    const context = await chromium.launchPersistentContext(profile, {
      executablePath: CHROMIUM,
      args: FLAGS,
    });
    return new Browser(context, `http://127.0.0.1:${(site.address() as AddressInfo).port}`, async () => {
      await context.close();
      site.close();
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    });
  }

  /** Another page of the site. */
  async visit(path: string): Promise<Page> {
    const page = await this.context.newPage();
    await page.goto(`${this.origin}${path}`);
    return page;
  }

  /** A page for people; `mint` gives it tokens. */
  async tab(prepare?: () => void, mint?: (why: string) => string): Promise<Tab> {
    const page = await this.context.newPage();
    if (mint) await page.exposeFunction('mint', mint);
    page.on('pageerror', (error) => console.log(`page: ${error.message}`));
    if (prepare) await page.addInitScript(prepare);
    const tab = new Tab(page);
    await page.goto(this.origin);
    await tab.loaded();
    return tab;
  }

  /** Ends all pages, and so all clients in them. */
  async closeTabs(): Promise<void> {
    const [first, ...others] = this.context.pages();
    await Promise.all(others.map((page) => page.close()));
    await first?.goto('about:blank');
  }

  close(): Promise<void> {
    return this.end();
  }
}

type Told = { name: string; value: Record<string, unknown> };

/** One page. Its people are known by name; without one it is `me`. */
export class Tab {
  readonly page: Page;

  constructor(page: Page) {
    this.page = page;
  }

  async loaded(): Promise<void> {
    await this.page.waitForFunction('globalThis.ready');
  }

  async reload(): Promise<void> {
    await this.page.reload();
    await this.loaded();
  }

  /** Somebody connects from this page; `persist`: with saved state of this user. */
  async arrive(config: Config, persist: string | null = null): Promise<void> {
    await this.page.evaluate(`arrive('me', ${JSON.stringify(config)}, ${JSON.stringify(persist)})`);
  }

  /** Evaluates an expression on the person `me`. */
  me<T>(expression: string): Promise<T> {
    return this.page.evaluate(
      `(() => { const { client, entries, events } = people.me; return ${expression}; })()`,
    );
  }

  async online(): Promise<string> {
    return until('a session', () => this.me<string>('client.state.transport'));
  }

  entries(): Promise<(Entry & { conversation: string })[]> {
    return this.me('entries');
  }

  texts(): Promise<string[]> {
    return this.me(`entries.flatMap(({ body }) => body.kind === 'message' ? [body.text] : [])`);
  }

  told(name: string): Promise<Told['value'][]> {
    return this.me(`events.filter((event) => event.name === '${name}').map(({ value }) => value)`);
  }

  stats(): Promise<Omit<Stats, 'cursors'>> {
    return this.me('({ ...client.stats, cursors: 0 })');
  }

  /** Sends these texts and does not wait. */
  async send(to: string, texts: string[]): Promise<void> {
    await this.me(`void ${JSON.stringify(texts)}.forEach((text) => client.send('${to}', text))`);
  }
}

/** How a page reaches a server. */
export type Way = 'websocket' | 'webtransport';

/** The configuration of somebody who comes this way only. */
export function wayTo(server: Server, user: string, way: Way): Config {
  const { http_url, webtransport_url, cert_sha256 } = server.ready;
  const token = server.token(user);
  if (way === 'websocket') return { url: http_url, token, backoffMaxMs: 300 };
  if (!webtransport_url) throw new Error('the server has no WebTransport');
  return {
    webTransport: webtransport_url,
    webSocket: null,
    serverCertificateHashes: [cert_sha256],
    token,
    backoffMaxMs: 300,
  };
}

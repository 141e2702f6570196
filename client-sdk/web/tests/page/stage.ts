// A real `tern dev` with its page, and Debian's Chromium in front of it.
import { readFileSync } from 'node:fs';
import {
  type Browser,
  type BrowserContext,
  type BrowserContextOptions,
  chromium,
  type Frame,
  type Page,
} from 'playwright-core';
import { type Client, start } from '../../src/index.js';
import { Server } from '../harness/server.js';

const CHROMIUM = process.env.TERN_CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-sync',
];

/** Takes the page's files from this directory instead of those built into the server: for work on the page. */
const FILES = process.env.TERN_PAGE_FILES;

/** Longest time that anything on the page may take, in ms. */
export const PATIENCE_MS = 20_000;

/** What a browser can lack. */
type Without = 'WebTransport' | 'WebSocket';

/** A page, or a frame in one: they are used alike. */
export type View = Page | Frame;

/** The server and the browser of one test file. */
export class Stage {
  readonly server: Server;
  readonly browser: Browser;
  /** What pages said that they should not have: errors, and violations of the policy. */
  readonly complaints: string[] = [];
  private readonly clients: Client[] = [];

  private constructor(server: Server, browser: Browser) {
    this.server = server;
    this.browser = browser;
  }

  static async set(env: Record<string, string> = {}): Promise<Stage> {
    const server = await Server.start(env);
    return new Stage(server, await chromium.launch({ executablePath: CHROMIUM, args: FLAGS }));
  }

  get url(): string {
    const { page_url } = this.server.ready as { page_url?: string };
    if (page_url === undefined) throw new Error('this server has no page');
    return page_url;
  }

  /** Opens an address of the page in a browser profile of its own. */
  async open(query = '', options: BrowserContextOptions = {}, without?: Without): Promise<Page> {
    const context = await this.browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    context.setDefaultTimeout(PATIENCE_MS);
    if (FILES !== undefined) await fresh(context, FILES);
    if (without) {
      await context.addInitScript((name) => Reflect.deleteProperty(globalThis, name), without);
    }
    const page = await context.newPage();
    page.on('pageerror', (error) => this.complaints.push(`error: ${error.message}`));
    page.on('console', (message) => {
      if (/Content Security Policy|Trusted/.test(message.text())) this.complaints.push(message.text());
    });
    await page.goto(this.url + query);
    return page;
  }

  /**
   * Opens the chat of a user and waits until it is connected; `without`: in a browser that lacks this
   * transport, so that the other one wins in any case. Only WebSocket can be cut off by the debugger.
   */
  async chatOf(
    user: string,
    options: BrowserContextOptions & { to?: string; without?: Without } = {},
  ): Promise<Page> {
    const { to, without, ...rest } = options;
    const query = `?as=${encodeURIComponent(user)}${to ? `&to=${encodeURIComponent(to)}` : ''}`;
    const page = await this.open(query, rest, without);
    await connected(page);
    return page;
  }

  /** A client of the SDK in this process. */
  client(user: string): Client {
    const client = start({
      webSocket: this.server.ready.websocket_url,
      webTransport: null,
      token: this.server.token(user),
    });
    this.clients.push(client);
    return client;
  }

  async strike(): Promise<void> {
    await Promise.all(this.clients.map((client) => client.close()));
    await this.browser.close();
    await this.server.stop();
  }
}

async function fresh(context: BrowserContext, dir: string): Promise<void> {
  await context.route(/\/(app|sdk)\.js$|\/style\.css$/, async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: readFileSync(dir + new URL(route.request().url()).pathname) });
  });
}

export const connected = (view: View): Promise<void> =>
  view.locator('.status.online, .status.degraded').waitFor({ state: 'attached' });

/** Writes into the open conversation. */
export async function write(view: View, text: string): Promise<void> {
  await view.locator('#compose').fill(text);
  await view.locator('#compose').press('Enter');
}

/** The messages that are there, with their state. */
export const messages = (view: View): Promise<{ text: string; own: boolean; state: string }[]> =>
  view.locator('.message').evaluateAll((all) =>
    all.map((one) => ({
      text: one.querySelector('.text')?.textContent ?? '',
      own: one.classList.contains('own'),
      state: ['pending', 'sent', 'failed'].find((state) => one.classList.contains(state)) ?? '',
    })),
  );

export const texts = async (view: View): Promise<string[]> => (await messages(view)).map(({ text }) => text);

/** Waits for a message with this text. */
export const shown = (view: View, text: string): Promise<void> =>
  view.locator('.message .text').getByText(text, { exact: true }).first().waitFor();

/** Waits until this holds. */
export async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`not within ${PATIENCE_MS / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The frame of one side of the page with two users. */
export async function side(page: Page, user: string): Promise<Frame> {
  const frame = await (await page.locator(`iframe[title$="${user}"]`).elementHandle())?.contentFrame();
  if (!frame) throw new Error(`there is no side of ${user}`);
  return frame;
}

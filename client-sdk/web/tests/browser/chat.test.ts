// The package in Debian's Chromium against a real server, over every way that the server has.
import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { start } from '../../src/index.js';
import { Browser, type Tab, type Way, wayTo } from '../harness/browser.js';
import { Person, until, upTo } from '../harness/people.js';
import { binary, Server } from '../harness/server.js';

let server: Server;
let one: Browser;
let other: Browser;

beforeAll(async () => {
  [one, other] = await Promise.all([Browser.start(), Browser.start()]);
});

afterAll(async () => {
  await Promise.all([one?.close(), other?.close()]);
});

beforeEach(async () => {
  server = await Server.start();
});

afterEach(async () => {
  await Promise.all([one.closeTabs(), other.closeTabs()]);
  await server.stop();
});

const texts = (from: number, to: number) => upTo(to - from + 1).map((n) => `m${n + from - 1}`);

async function tab(browser: Browser, user: string, way: Way, persist = false): Promise<Tab> {
  const tab = await browser.tab();
  await tab.arrive(wayTo(server, user, way), persist ? user : null);
  await tab.online();
  return tab;
}

describe.each<Way>(['websocket', 'webtransport'])('over %s', (way) => {
  test('two browsers chat', async () => {
    const [alice, bob] = [await tab(one, 'alice', way), await tab(other, 'bob', way)];
    expect(await alice.online()).toBe(way);
    await alice.send('bob', ['hi 👋🏽', 'é']);
    await until('both at bob', async () => (await bob.texts()).length === 2);
    await bob.send('alice', ['ö']);
    await until('three at alice', async () => (await alice.texts()).length === 3);
    expect(await alice.texts()).toEqual(['hi 👋🏽', 'é', 'ö']);
    expect(await bob.texts()).toEqual(['hi 👋🏽', 'é', 'ö']);
    expect(await alice.told('problem')).toEqual([]);
    expect((await alice.stats()).rttMs).not.toBeNull();
  });

  test('the server is killed and comes back: everything unsent arrives once, in order', async () => {
    const [alice, bob] = [await tab(one, 'alice', way), await tab(other, 'bob', way)];
    await alice.send('bob', texts(1, 100));
    await until('some at bob', async () => (await bob.entries()).length > 10);
    await server.kill();
    await alice.send('bob', texts(101, 200));
    await until('alice is offline', () => alice.me<boolean>(`client.state.state === 'offline'`));
    await alice.send('bob', texts(201, 250));
    await server.restart();
    await until('all at bob', async () => (await bob.entries()).length >= 250);
    expect(await bob.texts()).toEqual(texts(1, 250));
    await until('all at alice', async () => (await alice.entries()).length >= 250);
    expect(await alice.texts()).toEqual(texts(1, 250));
    expect((await alice.entries()).map(({ seq }) => seq)).toEqual(upTo(250));
  });
});

describe.each<Way>(['websocket', 'webtransport'])('over %s', (way) => {
  test('a server that goes away mid-stream is left in time and found again', async () => {
    const [alice, bob] = [await tab(one, 'alice', way), await tab(other, 'bob', way)];
    await alice.send('bob', texts(1, 200));
    await until('some at bob', async () => (await bob.entries()).length > 10);
    const drained = server.drain();
    await alice.send('bob', texts(201, 300));
    await drained;
    await server.restart();
    await until('all at bob', async () => (await bob.entries()).length >= 300);
    expect(await bob.texts()).toEqual(texts(1, 300));
    expect((await alice.told('state')).map(({ state }) => state)).toContain('draining');
  });
});

test('the example is what its page says', async () => {
  const { http_url } = server.ready;
  const page = await one.visit(`/hello.html#url=${http_url}&token=${server.token('alice')}`);
  await page.waitForFunction(`document.body.innerText.includes('1 alice: hello')`);
});

test('a browser and the Rust SDK have the same log, with any text exact', async () => {
  const alice = await tab(one, 'alice', 'webtransport');
  const chat = ['chat', '--as', 'bob', '--to', 'alice', '--json', '--data-dir', server.dataDir];
  const bob = spawn(binary(), chat, { stdio: ['pipe', 'pipe', 'ignore'] });
  const lines: {
    event: string;
    entry: { seq: number; temp_id: string; body: { text: string } };
  }[] = [];
  createInterface({ input: bob.stdout }).on('line', (line) => lines.push(JSON.parse(line)));
  const odd = [
    '👩‍👩‍👧‍👦🏳️‍🌈',
    'שלום \u202eabc\u202c',
    'e\u0301\u0323 ﷽',
    '\u0000\ufeff\u2028',
    '漢字かな한글',
    `${'ё'.repeat(8_191)}x`,
  ];
  const all = 2 * odd.length;
  for (const text of odd) {
    bob.stdin.write(`${JSON.stringify({ text })}\n`);
    await alice.send('bob', [text]);
  }
  const entries = () => lines.filter(({ event }) => event === 'entry').map(({ entry }) => entry);
  await until('all at both', async () => entries().length >= all && (await alice.entries()).length >= all);
  bob.stdin.end();
  const mine = (await alice.entries()).map(({ seq, tempId, body }) => [
    seq,
    tempId,
    body.kind === 'message' && body.text,
  ]);
  const theirs = entries().map(({ seq, temp_id, body }) => [seq, temp_id, body.text]);
  expect(mine).toEqual(theirs);
  expect(mine.map(([, , text]) => text).sort()).toEqual([...odd, ...odd].sort());
});

test('offline for 10,000 messages and back: one gap, the newest 50, and history has every seq once', async () => {
  const alice = await tab(one, 'alice', 'websocket', true);
  const bob = new Person(start({ url: server.ready.http_url, token: server.token('bob') }));
  const pair = (await bob.client.send('alice', 'first')).conversation;
  await until('the first', async () => (await alice.entries()).length === 1);
  await alice.page.goto('about:blank');
  for (let sent = 1; sent < 10_001; sent += 500) {
    await Promise.all(texts(sent, sent + 499).map((text) => bob.client.send('alice', text)));
  }
  const head = bob.client.stats.cursors.get(pair) ?? 0;
  expect(head).toBe(10_001);
  await bob.client.close();
  const back = await one.tab();
  await back.arrive(wayTo(server, 'alice', 'websocket'), 'alice');
  await until('the newest', async () => (await back.entries()).some(({ seq }) => seq === head));
  expect(await back.told('gap')).toEqual([{ conversation: pair, from: 2, to: head - 50 }]);
  expect((await back.entries()).map(({ seq }) => seq)).toEqual(upTo(50).map((n) => head - 50 + n));
  const rest = await back.page.evaluate<number[]>(`(async () => {
    const seqs = [];
    for (let before = ${head - 49}; before > 1; before = seqs.at(-1)) {
      const { entries } = await people.me.client.history('${pair}', { before, limit: 200 });
      seqs.push(...entries.map(({ seq }) => seq));
    }
    return seqs;
  })()`);
  expect(rest.reverse()).toEqual(upTo(head - 50));
});

test('a token is renewed without a reconnect, over every way', async () => {
  for (const way of ['websocket', 'webtransport'] as const) {
    const asked: string[] = [];
    const alice = await one.tab(undefined, (why) => {
      asked.push(why);
      return server.token('alice');
    });
    await alice.arrive({ ...wayTo(server, 'alice', way), token: server.token('alice', 4) });
    await until('a renewal', () => asked.length > 0);
    await new Promise((resolve) => setTimeout(resolve, 5_000));
    await alice.send('bob', ['still here']);
    await until('the ack', async () => (await alice.told('sent')).length === 1);
    expect(asked).toEqual(['expiring']);
    expect((await alice.stats()).sessions).toBe(1);
    await alice.page.close();
  }
});

test('what was typed offline survives a reload and leaves in order, and nothing is handed out again', async () => {
  const [alice, bob] = [await tab(one, 'alice', 'websocket', true), await tab(other, 'bob', 'websocket')];
  await alice.send('bob', texts(1, 3));
  await until('three acked and saved', async () => (await alice.stats()).pending === 0);
  await server.kill();
  await until('offline', () => alice.me<boolean>(`client.state.state === 'offline'`));
  await alice.send('bob', texts(4, 40));
  await new Promise((resolve) => setTimeout(resolve, 200));
  await alice.reload();
  const config = wayTo(server, 'alice', 'websocket');
  await alice.arrive(config, 'alice');
  const echoes = await until('echoes', async () => {
    const told = await alice.told('echo');
    return told.length >= 37 ? told : null;
  });
  expect(echoes.map(({ text, restored }) => [text, restored])).toEqual(
    texts(4, 40).map((text) => [text, true]),
  );
  await alice.send('bob', texts(41, 45));
  await server.restart();
  await until('all at bob', async () => (await bob.entries()).length >= 45);
  expect(await bob.texts()).toEqual(texts(1, 45));
  await until('the rest at alice', async () => (await alice.entries()).length >= 42);
  expect(await alice.texts()).toEqual(texts(4, 45));
});

test('a tab that is closed with unsent messages is taken over by another of the same user, once', async () => {
  const [first, second] = [
    await tab(one, 'alice', 'websocket', true),
    await tab(one, 'alice', 'websocket', true),
  ];
  const third = await tab(one, 'alice', 'websocket', true);
  const bob = await tab(other, 'bob', 'websocket');
  await first.send('bob', ['hello']);
  for (const tab of [second, third, bob]) await until('hello', async () => (await tab.texts()).length === 1);
  await server.kill();
  for (const tab of [first, second, third]) {
    await until('offline', () => tab.me<boolean>(`client.state.state === 'offline'`));
  }
  await third.send('bob', texts(1, 20));
  await second.send('bob', ['from the second']);
  await new Promise((resolve) => setTimeout(resolve, 200));
  await third.page.close();
  await server.restart();
  await until('all at bob', async () => (await bob.entries()).length >= 22);
  const seen = await bob.texts();
  expect(seen).toHaveLength(22);
  expect(seen.filter((text) => text.startsWith('m'))).toEqual(texts(1, 20));
  for (const tab of [first, second]) {
    await until('all at the other tabs', async () => (await tab.entries()).length >= 22);
    expect(await tab.texts()).toEqual(seen);
  }
});

test('without WebTransport, or without UDP, the fallback is used and the cause is told', async () => {
  const { http_url, cert_sha256 } = server.ready;
  // As with a firewall: what is sent there is swallowed.
  const hole = createSocket('udp4');
  await new Promise<void>((resolve) => hole.bind(0, '127.0.0.1', resolve));
  const config = {
    url: http_url,
    webTransport: `https://127.0.0.1:${hole.address().port}`,
    serverCertificateHashes: [cert_sha256],
  };
  const blocked = await one.tab();
  await blocked.arrive({ ...config, token: server.token('alice') });
  expect(await blocked.online()).toBe('websocket');
  expect(await blocked.me('client.state')).toMatchObject({
    state: 'degraded',
    cause: expect.stringContaining('WebTransport'),
  });
  const missing = await one.tab(() => {
    Object.defineProperty(globalThis, 'WebTransport', { value: undefined });
  });
  await missing.arrive({ ...config, token: server.token('alice') });
  expect(await missing.online()).toBe('websocket');
  expect(await missing.me('client.state')).toMatchObject({
    state: 'degraded',
    cause: 'this browser has no WebTransport',
  });
  hole.close();
});

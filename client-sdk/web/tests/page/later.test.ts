// A server of a later version: what this page does not know is a quiet line, and the chat goes on.
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { Decoder, encode } from '../../src/codec/frames.js';
import type { Entry, EntryBody, Frame } from '../../src/generated/frames.js';
import { Stage, shown, texts, until, write } from './stage.js';

let stage: Stage;
beforeAll(async () => {
  stage = await Stage.set();
});
afterAll(() => stage.strike());
afterEach(() => expect(stage.complaints).toEqual([]));

/** Bodies that stand in the place of those of these texts. */
const INSTEAD: Record<string, EntryBody> = {
  '(later)': { kind: 'opaque', number: 200, bytes: Uint8Array.of(2, 104, 105) },
  '(erased)': { kind: 'erased' },
  '(data)': { kind: 'message', text: '', data: { order: 7 }, replyTo: 1 },
};

const changed = (entry: Entry): Entry => {
  const { body } = entry;
  return { ...entry, body: (body.kind === 'message' && INSTEAD[body.text]) || body };
};

/** The frames that a later server would have sent. */
function later(bytes: Buffer): Buffer {
  const decoder = new Decoder();
  const frames: Uint8Array[] = [];
  decoder.push(bytes);
  for (let next = decoder.next(); next; next = decoder.next()) {
    if (!('frame' in next)) continue;
    const { request, frame } = next;
    const entries = 'entries' in frame ? { entries: frame.entries.map(changed) } : {};
    frames.push(encode({ request, frame: { ...frame, ...entries } as Frame }));
  }
  return Buffer.concat(frames);
}

test('entries of later kinds, erased ones and those without a text have their place among the others', async () => {
  const ida = stage.client('ida');
  for (const text of ['first', '(later)', '(erased)', '(data)', '(later)']) await ida.send('hugo', text);
  const context = await stage.browser.newContext();
  const page = await context.newPage();
  await page.addInitScript(() => Reflect.deleteProperty(globalThis, 'WebTransport'));
  await page.routeWebSocket(/connect/, (near) => {
    const far = near.connectToServer();
    far.onMessage((message) => near.send(typeof message === 'string' ? message : later(message)));
  });
  await page.goto(`${stage.url}?as=hugo`);
  await page.locator('.status.online, .status.degraded').waitFor();
  await page.locator('.conversation .badge').getByText('5').waitFor();
  expect(await page.locator('.conversation').textContent()).toContain('This app is too old to show this.');
  await page.locator('.conversation').click();
  await until('all are there', async () => (await page.locator('.row[data-seq]').count()) === 5);
  expect(await texts(page)).toEqual(['first', 'This message was erased.', 'This message has no text.']);
  expect(await page.locator('.event').getByText('This app is too old to show this.').count()).toBe(2);
  await until('all is read', async () => (await page.locator('.badge').count()) === 0);
  await ida.send('hugo', '(later)');
  await until('it is there', async () => (await page.locator('.event').count()) === 3);
  await ida.send('hugo', 'and on');
  await shown(page, 'and on');
  await write(page, 'here too');
  await shown(page, 'here too');
  const { entries } = await ida.history((await ida.conversations()).conversations[0]?.conversation ?? '');
  expect(entries[0]?.body).toMatchObject({ text: 'here too' });
  await context.close();
});

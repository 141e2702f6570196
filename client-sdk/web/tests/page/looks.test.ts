// How the page looks and whom it serves: axe finds nothing in its main states, light and dark; the
// first message is soon on the screen; the files stay small. With TERN_PAGE_PICTURES=1 the states are
// kept as pictures under docs/page.
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { connected, Stage, shown, side, until, write } from './stage.js';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const BUILT = fileURLToPath(new URL('../../../../server/page/', import.meta.url));
const PICTURES = process.env.TERN_PAGE_PICTURES
  ? fileURLToPath(new URL('../../../../docs/page/', import.meta.url))
  : null;
/** The states that the documentation shows. */
const SHOWN = new Set([
  'side-by-side',
  'light',
  'members-dark',
  'offline',
  'connection-light',
  'phone-light',
  'phone-dark',
]);
/** Most bytes of all files of the page, as they travel with gzip. */
const PAGE_BYTES_MAX = 60 * 1024;
/** The first message is on the screen within this time after navigation, in ms: far above what it takes. */
const FIRST_MESSAGE_MS_MAX = 10_000;

let stage: Stage;
let group: string;
beforeAll(async () => {
  stage = await Stage.set();
  const [alice, bob, carol] = ['alice', 'bob', 'carol'].map((user) => stage.client(user));
  if (!alice || !bob || !carol) throw new Error('nobody is here');
  await bob.send('alice', 'Did you see the new release notes? https://tern.example/notes');
  await alice.send('bob', 'Reading them now. The part about reconnects is just what we needed.');
  const others = Array.from({ length: 97 }, (_, at) => `member ${at + 1}`);
  group = (await alice.createGroup('Release crew', ['bob', 'carol', ...others])).conversation;
  await alice.send(group, 'Morning! Who takes the release notes?');
  await bob.send(group, 'I can. Give me until noon.');
  await bob.send(group, 'Anything I must not forget?');
  await carol.send(group, 'The new limits, and a line about WebTransport 🛰️');
  await carol.send(group, 'שלום לכולם, הכול מוכן');
  await alice.send(group, 'Wonderful 👍');
  await bob.send('carol', 'Lunch at half past twelve?');
  await carol.send('bob', 'Gladly. I bring Dora along, she is new in the team.');
});
afterAll(() => stage.strike());
afterEach(() => expect(stage.complaints).toEqual([]));

/** What axe finds, in words. The policy of the page holds for scripts of the page, not for the debugger's. */
async function findings(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    const { axe } = globalThis as unknown as { axe: { run: () => Promise<{ violations: Violation[] }> } };
    type Violation = { id: string; help: string; nodes: { html: string; failureSummary?: string }[] };
    const { violations } = await axe.run();
    return violations.map(
      ({ id, help, nodes }) =>
        `${id}: ${help}: ${nodes.map(({ html, failureSummary }) => `${html.slice(0, 200)} ${failureSummary}`).join(' | ')}`,
    );
  });
}

async function look(page: Page, name: string): Promise<void> {
  await page.evaluate(() => document.fonts.ready);
  if (PICTURES && SHOWN.has(name)) await page.screenshot({ path: `${PICTURES}${name}.png` });
  expect(await findings(page), name).toEqual([]);
}

const openGroup = (page: Page): Promise<void> =>
  page.locator('.conversation-title').getByText('Release crew').click();

for (const colorScheme of ['light', 'dark'] as const) {
  test(`axe finds nothing to complain about, ${colorScheme}`, async () => {
    const bob = await stage.chatOf('bob', { colorScheme, without: 'WebSocket' });
    await bob.locator('.conversation').first().waitFor();
    await look(bob, `list-${colorScheme}`);
    await openGroup(bob);
    await shown(bob, 'Wonderful 👍');
    await until('the others are seen', async () =>
      /online/.test((await bob.locator('.room-sub').textContent()) ?? ''),
    );
    await look(bob, colorScheme);
    await bob.getByRole('button', { name: 'Details', exact: true }).click();
    await until('all are there', async () => (await bob.locator('.member').count()) === 100);
    await look(bob, `members-${colorScheme}`);
    await bob.getByRole('button', { name: 'Connection', exact: true }).click();
    await until('a round trip', async () =>
      /Round trip\s*\d/.test((await bob.locator('.facts').first().textContent()) ?? ''),
    );
    await look(bob, `connection-${colorScheme}`);
    await bob.getByRole('button', { name: 'Close the connection panel' }).click();
    await bob.getByRole('button', { name: 'New group' }).click();
    await look(bob, `new-group-${colorScheme}`);
    await bob.keyboard.press('Escape');
    await until('the dialog is gone', async () => (await bob.locator('.dialog').count()) === 0);
    await bob.context().close();
  });

  test(`axe finds nothing to complain about on a phone, ${colorScheme}`, async () => {
    const carol = await stage.chatOf('carol', {
      colorScheme,
      viewport: { width: 390, height: 780 },
      hasTouch: true,
    });
    await carol.locator('.conversation').first().waitFor();
    await look(carol, `phone-list-${colorScheme}`);
    await openGroup(carol);
    await shown(carol, 'Wonderful 👍');
    await look(carol, `phone-${colorScheme}`);
    await carol.goBack();
    await carol.locator('.conversation').first().waitFor();
    await carol.context().close();
  });
}

test('side by side, and without a server', async () => {
  const page = await stage.open('', { viewport: { width: 1440, height: 860 } });
  const [alice, bob] = [await side(page, 'alice'), await side(page, 'bob')];
  await Promise.all([connected(alice), connected(bob)]);
  await write(bob, 'Both of us in one window!');
  await shown(alice, 'Both of us in one window!');
  await alice.locator('.room-sub').getByText('online', { exact: true }).waitFor();
  await look(page, 'side-by-side');
  await stage.server.kill();
  await bob.locator('.banner').waitFor();
  await alice.locator('.banner').waitFor();
  await write(bob, 'Written while the server is away');
  await bob.locator('.message.pending').waitFor();
  await look(page, 'offline');
  await stage.server.restart();
  await shown(alice, 'Written while the server is away');
  await page.context().close();
});

test('everything can be done with the keyboard', async () => {
  const bob = await stage.chatOf('bob');
  await bob.locator('.conversation').first().waitFor();
  await bob.keyboard.press('Tab');
  expect(await bob.evaluate(() => document.activeElement?.textContent)).toBe('Skip to writing');
  await bob.keyboard.press('Control+k');
  expect(await bob.evaluate(() => document.activeElement?.id)).toBe('find');
  await bob.keyboard.type('zoe');
  await bob.keyboard.press('Enter');
  await bob.locator('.room-title h2').getByText('zoe').waitFor();
  await until('the field has the focus', () => bob.evaluate(() => document.activeElement?.id === 'compose'));
  await bob.keyboard.type('from the keyboard');
  await bob.keyboard.press('Shift+Enter');
  await bob.keyboard.type('on two lines');
  await bob.keyboard.press('Enter');
  await bob.locator('.message.sent').waitFor();
  expect(await bob.locator('.message .text').textContent()).toBe('from the keyboard\non two lines');
  await bob.keyboard.press('Control+k');
  await bob.keyboard.press('ArrowDown');
  await bob.keyboard.press('ArrowDown');
  expect(await bob.evaluate(() => document.activeElement?.classList.contains('conversation'))).toBe(true);
  await bob.context().close();
});

test('the first message is soon on the screen', async () => {
  const times: number[] = [];
  for (let run = 0; run < 3; run++) {
    const context = await stage.browser.newContext();
    const page = await context.newPage();
    // Zero is when the navigation began.
    await page.addInitScript(() => {
      new MutationObserver((_, observer) => {
        if (!document.querySelector('.message')) return;
        (globalThis as { firstMs?: number }).firstMs = performance.now();
        observer.disconnect();
      }).observe(document, { subtree: true, childList: true });
    });
    await page.goto(`${stage.url}?as=alice&to=bob`);
    await page.locator('.message').first().waitFor();
    times.push(
      Math.round(await page.evaluate(() => (globalThis as { firstMs?: number }).firstMs ?? Number.NaN)),
    );
    await context.close();
  }
  console.log(
    `first message on the screen ${times.join(', ')} ms after navigation, a new browser profile each`,
  );
  expect(Math.min(...times)).toBeLessThan(FIRST_MESSAGE_MS_MAX);
});

test('the page stays small', () => {
  const sizes = readdirSync(BUILT).map(
    (file) => [file, gzipSync(readFileSync(BUILT + file)).length] as const,
  );
  const sum = sizes.reduce((total, [, size]) => total + size, 0);
  console.log(`page, gzip: ${sizes.map((row) => row.join(' ')).join(', ')}; together ${sum} bytes`);
  expect(sum).toBeLessThanOrEqual(PAGE_BYTES_MAX);
});

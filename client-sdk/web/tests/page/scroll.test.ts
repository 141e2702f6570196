// A conversation of very many messages: every one can be reached, few of them exist at a time.

import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { pairOf } from '../../src/index.js';
import { Stage, shown, until, write } from './stage.js';

/** Messages of the long conversation; 100,000 take some minutes, so that CI has fewer. */
const MANY = Number(process.env.TERN_PAGE_MESSAGES ?? 10_000);
/** A hung test ends; in ms. */
const TEST_MS = 300_000 + 30 * MANY;
/** A tall window shows more of them at a time. */
const TALL = { viewport: { width: 1000, height: 3000 } };
/** Sends on their way while it is filled. */
const AT_ONCE = 200;
/** Most rows in the document. */
const ROWS_MAX = 300;

let stage: Stage;
beforeAll(async () => {
  stage = await Stage.set();
  const client = stage.client('alice');
  const started = Date.now();
  const underway = new Set<Promise<unknown>>();
  for (let seq = 1; seq <= MANY; seq++) {
    const sent = client.send('bob', textOf(seq)).finally(() => underway.delete(sent));
    underway.add(sent);
    if (underway.size >= AT_ONCE) await Promise.race(underway);
  }
  await Promise.all(underway);
  console.log(`${MANY} messages were written in ${((Date.now() - started) / 1000).toFixed(1)} s`);
}, TEST_MS);
afterAll(() => stage.strike());
afterEach(() => expect(stage.complaints).toEqual([]));

/** Texts of all lengths, so that rows have all heights. */
function textOf(seq: number): string {
  const words = (seq * 7919) % 23;
  return `${seq}${' word'.repeat(words)}${seq % 50 === 0 ? '\nand a\nfew more\nlines' : ''}`;
}

/** What is in the document now: seqs with their texts, and whether one is still missing. */
const rows = (page: Page) =>
  page.evaluate(() => {
    const box = (document.querySelector('.timeline') as HTMLElement).getBoundingClientRect();
    return [...document.querySelectorAll<HTMLElement>('.row')].map((row) => {
      const { top, bottom } = row.getBoundingClientRect();
      return {
        seq: Number(row.dataset.seq),
        text: row.querySelector('.text')?.textContent ?? null,
        top: top - box.top,
        seen: bottom > box.top && top < box.bottom,
      };
    });
  });

/**
 * Scrolls inside the page, a screen at a time, waiting for what is missing, until this seq is on the
 * screen. Gives every seq that was seen, the most rows there were, and by how much rows moved otherwise
 * than by what was scrolled.
 */
async function walk(page: Page, goal: number): Promise<{ seqs: number[]; most: number; jumps: number[] }> {
  return page.evaluate(async (goal) => {
    const list = document.querySelector('.timeline') as HTMLElement;
    const seen = new Set<number>();
    const jumps: number[] = [];
    let most = 0;
    const direction = goal === 1 ? -1 : 1;
    const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
    const inView = () => {
      const box = list.getBoundingClientRect();
      return [...document.querySelectorAll<HTMLElement>('.row')].filter((row) => {
        const { top, bottom } = row.getBoundingClientRect();
        return bottom > box.top + 1 && top < box.bottom - 1;
      });
    };
    for (;;) {
      while (inView().some((row) => row.dataset.absent !== undefined) || inView().length === 0) await frame();
      const all = [...document.querySelectorAll<HTMLElement>('.row')];
      most = Math.max(most, all.length);
      const visible = inView();
      for (const row of visible) seen.add(Number(row.dataset.seq));
      const before = list.scrollTop;
      const anchor = direction < 0 ? visible[0] : visible.at(-1);
      const seq = anchor?.dataset.seq;
      const at = anchor?.getBoundingClientRect().top ?? 0;
      const step = direction * (list.clientHeight - 120);
      const lowest = list.scrollHeight - list.clientHeight;
      if (visible.some((row) => Number(row.dataset.seq) === goal)) break;
      if (direction < 0 ? before <= 0 : before >= lowest - 1) {
        // Heights are put right when the scrolling has ended: then there is more.
        await frame();
        continue;
      }
      const room = direction < 0 ? Math.max(step, -before) : Math.min(step, lowest - before);
      list.scrollTop = before + room;
      await frame();
      await frame();
      const same = document.querySelector<HTMLElement>(`.row[data-seq="${seq}"]`);
      // The row that was looked at has moved by what was scrolled and not a pixel more.
      // At an end the list stops earlier.
      const ended = inView().some((row) => Number(row.dataset.seq) === goal);
      if (same && same.dataset.absent === undefined && !ended) {
        const moved = same.getBoundingClientRect().top - at + room;
        if (Math.abs(moved) > 2) jumps.push(Math.round(moved));
      }
    }
    return { seqs: [...seen].sort((a, b) => a - b), most, jumps };
  }, goal);
}

test(
  `scrolling ${MANY} messages to the first and back shows every seq`,
  async () => {
    const bob = await stage.chatOf('bob', { to: 'alice', ...TALL });
    // It opens at the first new one.
    await bob.locator('.to-end').click();
    await shown(bob, textOf(MANY).replaceAll('\n', ' '));
    const started = Date.now();
    const up = await walk(bob, 1);
    const down = await walk(bob, MANY);
    console.log(`up and down in ${((Date.now() - started) / 1000).toFixed(1)} s, at most ${up.most} rows`);
    for (const { seqs, most, jumps } of [up, down]) {
      expect(seqs.length).toBe(MANY);
      expect([seqs[0], seqs.at(-1)]).toEqual([1, MANY]);
      expect(most).toBeLessThanOrEqual(ROWS_MAX);
      expect(jumps).toEqual([]);
    }
    await bob.context().close();
  },
  TEST_MS,
);

test('each row has its own text, and a jump to the first message is a key', async () => {
  const bob = await stage.chatOf('bob', { to: 'alice' });
  await bob.locator('.row').last().waitFor();
  await bob.locator('.timeline').focus();
  await bob.keyboard.press('Home');
  await shown(bob, textOf(1));
  await until('the screen is full of messages', async () =>
    (await rows(bob)).filter(({ seen }) => seen).every(({ text }) => text !== null),
  );
  for (const { seq, text } of await rows(bob)) if (text !== null) expect(text).toBe(textOf(seq));
  await bob.getByText('This is the beginning of').waitFor();
  await bob.context().close();
});

test('what arrives below does not move what is read above, and is counted', async () => {
  const alice = stage.client('alice');
  const bob = await stage.chatOf('bob', { to: 'alice' });
  const toEnd = bob.locator('.to-end');
  await bob.locator('.row').first().waitFor();
  await bob.locator('.timeline').focus();
  await bob.keyboard.press('End');
  await shown(bob, textOf(MANY).replaceAll('\n', ' '));
  await until('everything is read', async () => (await bob.locator('.badge').count()) === 0);
  await bob.locator('.timeline').hover();
  await bob.mouse.wheel(0, -3000);
  await toEnd.waitFor();
  await until('the screen is full of messages', async () =>
    (await rows(bob)).every(({ text }) => text !== null),
  );
  await new Promise((resolve) => setTimeout(resolve, 500));
  const before = (await rows(bob)).filter(({ seen }) => seen);
  for (let count = 1; count <= 5; count++) await alice.send('bob', `new ${count}`);
  await toEnd.getByText('5 new').waitFor();
  const after = (await rows(bob)).filter(({ seen }) => seen);
  expect(after).toEqual(before);
  await toEnd.click();
  await shown(bob, 'new 5');
  await until('they are read', async () => (await bob.locator('.badge').count()) === 0);
  await write(bob, 'an answer');
  await shown(bob, 'an answer');
  expect(pairOf('alice', 'bob')).toMatch(/^c:/);
  await bob.context().close();
});

// Two people chat on the page, whatever happens to their connections.
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { connected, messages, Stage, shown, side, texts, until, write } from './stage.js';

let stage: Stage;
beforeAll(async () => {
  stage = await Stage.set();
});
afterAll(() => stage.strike());
afterEach(() => expect(stage.complaints).toEqual([]));

describe('two people', () => {
  test('chat side by side from the link that the server prints', async () => {
    const page = await stage.open('', { viewport: { width: 1440, height: 860 } });
    const [alice, bob] = [await side(page, 'alice'), await side(page, 'bob')];
    await Promise.all([connected(alice), connected(bob)]);
    await write(alice, 'hello bob');
    await shown(bob, 'hello bob');
    await write(bob, 'hello alice');
    await shown(alice, 'hello alice');
    expect(await messages(alice)).toEqual([
      { text: 'hello bob', own: true, state: 'sent' },
      { text: 'hello alice', own: false, state: '' },
    ]);
    // They met just now: each sees that the other is here.
    await alice.locator('.room-sub').getByText('online', { exact: true }).waitFor();
    await bob.locator('.room-sub').getByText('online', { exact: true }).waitFor();
    await page.context().close();
  });

  test('chat in two browsers, see each other typing, and count what is unread', async () => {
    const erin = await stage.chatOf('erin', { to: 'frank' });
    const frank = await stage.chatOf('frank');
    for (const text of ['one', 'two', 'three']) await write(erin, text);
    await frank.locator('.badge').getByText('3').waitFor();
    expect(await frank.title()).toBe('(3) Frank · Tern');
    await frank.locator('.conversation').click();
    await shown(frank, 'three');
    await frank.locator('.fresh-mark').waitFor();
    await until('everything is read', async () => (await frank.locator('.badge').count()) === 0);
    await frank.locator('#compose').pressSequentially('I am ');
    await erin.locator('.room-sub').getByText('typing…').waitFor();
    await frank.context().close();
    await erin.context().close();
  });

  test('chat with each other over WebTransport and over WebSocket', async () => {
    const uma = await stage.chatOf('uma', { to: 'vera', without: 'WebSocket' });
    const vera = await stage.chatOf('vera', { to: 'uma', without: 'WebTransport' });
    await write(uma, 'over streams');
    await shown(vera, 'over streams');
    await write(vera, 'over one socket');
    await shown(uma, 'over one socket');
    for (const [page, transport] of [
      [uma, 'WebTransport'],
      [vera, 'WebSocket'],
    ] as const) {
      await page.getByRole('button', { name: 'Connection', exact: true }).click();
      await page.locator('.facts dd').getByText(transport, { exact: true }).waitFor();
      await page.context().close();
    }
  });

  test('what was read on one device is read on the other', async () => {
    const gina = stage.client('gina');
    await gina.send('harry', 'for both your devices');
    const [desk, phone] = [await stage.chatOf('harry'), await stage.chatOf('harry')];
    await desk.locator('.badge').waitFor();
    await phone.locator('.badge').waitFor();
    await desk.locator('.conversation').click();
    await until('the other device knows', async () => (await phone.locator('.badge').count()) === 0);
    await desk.context().close();
    await phone.context().close();
  });

  test('a recipient whom nobody knows is said to be one', async () => {
    const ina = await stage.chatOf('ina', { to: 'nobody-at-all' });
    await write(ina, 'are you there?');
    await ina.locator('.notice').getByText('Nobody called “nobody-at-all” has ever been here').waitFor();
    await ina.context().close();
  });
});

describe('a connection that breaks', () => {
  test('cut by hand heals by itself, and is counted', async () => {
    const kim = await stage.chatOf('kim', { to: 'leo' });
    const leo = await stage.chatOf('leo', { to: 'kim' });
    await kim.getByRole('button', { name: 'Connection', exact: true }).click();
    await kim.getByRole('button', { name: 'Cut my link' }).click();
    await kim.locator('.journal').getByText('the application cut the link').waitFor();
    await kim.locator('.facts').getByText('Resumes').waitFor();
    await until('a resume', async () =>
      /Resumes\s*1/.test((await kim.locator('.facts').first().textContent()) ?? ''),
    );
    await write(leo, 'did you notice?');
    await shown(kim, 'did you notice?');
    await kim.context().close();
    await leo.context().close();
  });

  test('killed with -9: the banner says so, what is written is kept, and arrives once and in order', async () => {
    const mia = await stage.chatOf('mia', { to: 'noah' });
    const noah = await stage.chatOf('noah', { to: 'mia' });
    await write(mia, 'before');
    await shown(noah, 'before');
    await stage.server.kill();
    await mia.locator('.banner').getByText('The server cannot be reached.').waitFor();
    for (const text of ['during 1', 'during 2', 'during 3']) await write(mia, text);
    await until(
      'all wait',
      async () => (await messages(mia)).filter(({ state }) => state === 'pending').length === 3,
    );
    await stage.server.restart();
    await shown(noah, 'during 3');
    await write(noah, 'back again');
    await shown(mia, 'back again');
    const all = ['before', 'during 1', 'during 2', 'during 3', 'back again'];
    expect(await texts(noah)).toEqual(all);
    await until('all are sent', async () =>
      (await messages(mia)).every(({ own, state }) => !own || state === 'sent'),
    );
    expect(await texts(mia)).toEqual(all);
    await until('the banner goes', async () => (await mia.locator('.banner').count()) === 0);
    await mia.context().close();
    await noah.context().close();
  });

  test('what was written offline survives a reload of the page', async () => {
    const olga = await stage.chatOf('olga', { to: 'paul', without: 'WebTransport' });
    const paul = await stage.chatOf('paul', { to: 'olga' });
    await olga.context().setOffline(true);
    await olga.evaluate(() => dispatchEvent(new Event('offline')));
    await olga.getByRole('button', { name: 'Connection', exact: true }).click();
    await olga.getByRole('button', { name: 'Cut my link' }).click();
    await olga.locator('.banner').getByText('This device is offline.').waitFor();
    await write(olga, 'kept over a reload');
    await until('it waits', async () => (await messages(olga)).at(-1)?.state === 'pending');
    await olga.context().setOffline(false);
    await olga.reload();
    await shown(paul, 'kept over a reload');
    await shown(olga, 'kept over a reload');
    expect(await texts(paul)).toEqual(['kept over a reload']);
    await olga.context().close();
    await paul.context().close();
  });
});

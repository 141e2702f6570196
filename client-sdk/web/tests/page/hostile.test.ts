// What others send is text and nothing else, and what cannot be read is said.
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { messages, Stage, shown, texts, until, write } from './stage.js';

let stage: Stage;
beforeAll(async () => {
  stage = await Stage.set();
});
afterAll(() => stage.strike());
afterEach(() => expect(stage.complaints).toEqual([]));

const HOSTILE = [
  '<img src=x onerror="globalThis.bitten = true"><script>globalThis.bitten = true</script>',
  'javascript:globalThis.bitten=true data:text/html,<script>globalThis.bitten=true</script>',
  '\u202eevil sdrawkcab\u2066 and more \u2067 still',
  'Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!',
  // biome-ignore lint/suspicious/noTemplateCurlyInString: it is what somebody may send
  '{{constructor.constructor("globalThis.bitten=true")()}} ${globalThis.bitten = true}',
  'https://bank.example@evil.example/ and https://ok.example/a(b)c. done',
  'מה שלומך? Fine 👩‍👩‍👧‍👦🏳️‍🌈 e\u0301 \u{1F9D1}\u200d\u{1F680} ﷽',
  '\u0000 \u0007 \ufeff \u200b \u2028 x',
];

test('markup and scripts in texts, names and ids and bidi controls in texts are shown, not obeyed', async () => {
  // The server lets no bidi control into a name or an id; letters written from right to left it does.
  const eve = stage.client('<b onclick="globalThis.bitten=true">שלום</b>');
  const { conversation } = await eve.createGroup('שלום <script>globalThis.bitten=true</script>', ['alice']);
  for (const text of HOSTILE) await eve.send(conversation, text);
  const alice = await stage.chatOf('alice');
  await alice.locator('.conversation').first().click();
  await until('all are there', async () => (await texts(alice)).length === HOSTILE.length);
  expect(await texts(alice)).toEqual(HOSTILE);
  expect(await alice.evaluate(() => 'bitten' in globalThis)).toBe(false);
  expect(await alice.locator('.text img, .text script, .text b').count()).toBe(0);
  // Only what leads where it says can be followed, and it learns nothing of us.
  const links = await alice
    .locator('.text a')
    .evaluateAll((all) => all.map((one) => [one.textContent, one.getAttribute('rel')]));
  expect(links).toEqual([['https://ok.example/a(b)c', 'noopener noreferrer nofollow']]);
  // A name that turns the direction turns it inside its own element only.
  const isolated = await alice
    .locator('.name')
    .evaluateAll((all) => all.every((one) => getComputedStyle(one).unicodeBidi === 'isolate'));
  expect(isolated).toBe(true);
  await alice.context().close();
});

test('what is written arrives exactly, up to the longest text', async () => {
  const carol = await stage.chatOf('carol', { to: 'dave' });
  const dave = stage.client('dave');
  const got: string[] = [];
  dave.on('entry', ({ entry }) => entry.body.kind === 'message' && got.push(entry.body.text));
  const longest = `${'é👩‍👩‍👧‍👦שלום\n'.repeat(420)}x`;
  const sent = ['مرحبا بالعالم', 'e\u0301 is not é', '  spaces  kept  ', longest];
  for (const text of sent) await write(carol, text);
  await until('all have arrived', async () => got.length === sent.length);
  expect(got).toEqual(sent);
  expect(await texts(carol)).toEqual(sent);
  await carol.context().close();
});

test('a huge paste is refused in words, and nothing is lost', async () => {
  const frida = await stage.chatOf('frida', { to: 'gus' });
  await frida.locator('#compose').fill('kept');
  await frida.locator('#compose').evaluate((field: HTMLTextAreaElement) => {
    const clipboardData = new DataTransfer();
    clipboardData.setData('text/plain', 'ü'.repeat(1_000_000));
    field.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
  });
  await frida
    .getByText(
      'The pasted text has 2,000,000 bytes. A message holds 16,384, and 4 are used. Nothing was pasted.',
    )
    .waitFor();
  expect(await frida.locator('#compose').inputValue()).toBe('kept');
  // Typed rather than pasted, it is counted.
  await frida.locator('#compose').fill('ü'.repeat(8_200));
  await frida.getByText('16 bytes too long').waitFor();
  expect(await frida.getByRole('button', { name: 'Send' }).isDisabled()).toBe(true);
  await frida.context().close();
});

test('frames that make no sense are reported, and the chat goes on', async () => {
  const context = await stage.browser.newContext();
  const page = await context.newPage();
  // Between the page and the server stands somebody who adds frames.
  const spoilers: ((bytes: Buffer) => void)[] = [];
  await page.addInitScript(() => Reflect.deleteProperty(globalThis, 'WebTransport'));
  await page.routeWebSocket(/connect/, (near) => {
    const far = near.connectToServer();
    far.onMessage((message) => near.send(message));
    spoilers.push((bytes) => near.send(bytes));
  });
  await page.goto(`${stage.url}?as=hugo&to=ida`);
  await page.locator('.status.online, .status.degraded').waitFor();
  await write(page, 'before');
  await until('it is sent', async () => (await messages(page)).at(-1)?.state === 'sent');
  await page.getByRole('button', { name: 'Connection', exact: true }).click();
  // A deliver with a body that is none, and a frame of no known type that may be skipped.
  for (const spoil of spoilers) {
    spoil(Buffer.from([0x06, 0x13, 0x01, 0xff, 0xff, 0xff, 0xff]));
    spoil(Buffer.from([0x04, 0x7f, 0x00, 0x01, 0x02]));
  }
  await page.locator('.journal .bad').getByText('Not understood').first().waitFor();
  await write(page, 'after');
  await until('it is sent', async () => {
    const last = (await messages(page)).at(-1);
    return last?.text === 'after' && last.state === 'sent';
  });
  await shown(page, 'before');
  await context.close();
});

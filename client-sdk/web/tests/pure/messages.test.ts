// What a message carries besides its text, and how far the user has read.
import { afterEach, expect, test, vi } from 'vitest';
import { TernError } from '../../src/errors.js';
import { Code } from '../../src/generated/codes.js';
import type { ConversationSummary } from '../../src/generated/frames.js';
import type { Peer } from '../harness/fakes.js';
import { C, deliver, entry, ID, message, online, refusal } from '../harness/online.js';

const PAIR = 'c:rmxbb4fyj7hc3rrnolm7nvxz3e';

afterEach(() => {
  vi.useRealTimers();
});

test('data and the answered entry go with a message as they were when it was sent', async () => {
  const { client, person, peer } = await online();
  const data = { album: ['a', 'b'], at: { lat: 48.1, lon: -0.25 }, n: null };
  const wanted = structuredClone(data);
  const sending = client.send(C, '', { data, replyTo: 7 });
  data.album.push('changed meanwhile');
  expect(person.told('echo')).toMatchObject([{ text: '', data: wanted, replyTo: 7, restored: false }]);
  const { tempId, request, ...sent } = peer.last('send') as { tempId: string; request: number };
  expect(sent).toMatchObject({ to: C, text: '', data: wanted, replyTo: 7 });
  const ack = { tempId, conversation: C, seq: 1, id: ID, timeMs: 2, messages: 1 };
  peer.send({ type: 'send_ack', ...ack, duplicate: false, recipientUnknown: false }, request);
  await expect(sending).resolves.toMatchObject({ seq: 1, messages: 1 });
  expect(person.entries[0]).toMatchObject({
    seq: 1,
    messages: 1,
    body: { kind: 'message', text: '', data: wanted, replyTo: 7 },
  });
  for (const plain of [0, false, '', 'text', [1, [2]], 'half \\ud800 in letters']) {
    client.send(C, '', { data: plain });
    expect(peer.last('send')?.data).toEqual(plain);
  }
  client.send(C, 'text only', { data: null, replyTo: undefined });
  expect(peer.last('send')).toMatchObject({ data: null, replyTo: null });
});

test('what no message can carry is refused before it is sent', async () => {
  const { client, peer } = await online({ pendingMax: 1_000 });
  const loop: unknown[] = [];
  loop.push(loop);
  const refused = async (text: string, options: object, code: number) => {
    const error = await client.send('bob', text, options).then(
      () => null,
      (error) => error,
    );
    expect(error, JSON.stringify(text.slice(0, 9))).toBeInstanceOf(TernError);
    expect(error).toMatchObject({ kind: 'refused', code, retryable: false });
  };
  for (const data of [loop, 1n, () => 1, Number.NaN, { half: '\ud800' }]) {
    await refused('x', { data }, Code.INVALID_ARGUMENT);
  }
  for (const replyTo of [0, -1, 1.5, 2 ** 60]) await refused('x', { replyTo }, Code.INVALID_ARGUMENT);
  await refused('', {}, Code.TEXT_EMPTY);
  await refused('x'.repeat(16_384), { data: 7 }, Code.TEXT_TOO_LONG);
  await refused('', { data: 'x'.repeat(16_384) }, Code.TEXT_TOO_LONG);
  expect(peer.last('send')).toBeUndefined();
  client.send('bob', 'x'.repeat(16_383), { data: 7 });
  expect(peer.last('send')?.data).toBe(7);
});

test('who writes has read what is above: told once, and never back', async () => {
  const { client, person, peer } = await online();
  peer.send(deliver(1, 2));
  expect(person.told('read')).toEqual([]);
  // From another device of the user.
  peer.send(deliver(entry(3, message('mine'), 'alice')));
  expect(person.told('read')).toEqual([{ conversation: C, seq: 3, messages: 3 }]);
  peer.send({ type: 'have_read', conversation: C, seq: 2, messages: 2 });
  peer.send({ type: 'have_read', conversation: C, seq: 3, messages: 3 });
  expect(person.told('read')).toHaveLength(1);
  peer.send(deliver(4, 5, entry(6, { kind: 'renamed', name: 'x' }, 'alice')));
  expect(person.told('read')).toHaveLength(1);
  peer.send({ type: 'have_read', conversation: C, seq: 5, messages: 5 });
  expect(person.told('read').at(-1)).toEqual({ conversation: C, seq: 5, messages: 5 });
  // What the application says itself it is not told.
  client.markRead(C, 6);
  peer.send({ type: 'have_read', conversation: C, seq: 6, messages: 5 });
  expect(person.told('read')).toHaveLength(2);
  // Its own message, by the ack.
  const sending = client.send(C, 'from here');
  const { tempId, request } = peer.last('send') as { tempId: string; request: number };
  const ack = { tempId, conversation: C, seq: 7, id: ID, timeMs: 2, messages: 6 };
  peer.send({ type: 'send_ack', ...ack, duplicate: false, recipientUnknown: false }, request);
  await sending;
  expect(person.told('read').at(-1)).toEqual({ conversation: C, seq: 7, messages: 6 });
});

test('while a log is caught up with, own messages from before the read position tell nothing', async () => {
  const { person, peer } = await online();
  const summary: ConversationSummary = {
    conversation: C,
    kind: 'group',
    name: 'crew',
    peer: null,
    head: 3,
    headMessages: 3,
    firstSeq: 1,
    readSeq: 3,
    readMessages: 3,
    unread: 0,
    lastTimeMs: 1,
    role: 'member',
    addedBy: null,
  };
  peer.send({ type: 'sync_page', conversations: [summary] });
  peer.send(deliver(1, entry(2, message('mine'), 'alice'), 3));
  expect(person.seqs(C)).toEqual([1, 2, 3]);
  expect(person.told('read')).toEqual([]);
});

test('a refused cursor that is named costs one conversation, not all of them', async () => {
  const { client, person, peer, peers } = await online();
  peer.send(deliver(1, 2));
  peer.send({ type: 'deliver', conversation: PAIR, entries: [entry(1)] });
  client.dropLink();
  await vi.advanceTimersByTimeAsync(1_000);
  const next = peers[1] as Peer;
  next.welcome();
  await vi.advanceTimersByTimeAsync(1);
  next.send(refusal(4400, { conversation: C }), next.last('sync')?.request ?? null);
  expect(person.told('resync')).toEqual([{ conversation: C }]);
  expect(next.last('sync')).toMatchObject({ cursors: [{ conversation: PAIR, seq: 1 }] });
  next.send(deliver(1));
  next.synced();
  expect(person.seqs(C)).toEqual([1, 2, 1]);
  // Of an ack there is no request; what is missing is fetched.
  next.send(refusal(4400, { conversation: PAIR }));
  expect(person.told('resync')).toEqual([{ conversation: C }, { conversation: PAIR }]);
  await vi.advanceTimersByTimeAsync(1);
  expect(next.last('fetch')).toMatchObject({ conversation: PAIR, after: 0 });
});

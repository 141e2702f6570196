// What is kept in IndexedDB, and that clients go on from it.
import 'fake-indexeddb/auto';
import { expect, test } from 'vitest';
import { indexedDb, type Persistence, type SavedSend } from '../../src/persist/index.js';
import { fakeClient, type Peer, settled } from '../harness/fakes.js';
import { C, deliver } from '../harness/online.js';
import { Person, until } from '../harness/people.js';

const D = 'c:pvzqxqjje3ns24wiuqs4ifrv6e';
const [A, B] = ['00000000-0000-7000-8000-00000000000a', '00000000-0000-7000-8000-00000000000b'];

let users = 0;
const fresh = () => `user ${++users}`;
const nobody = () => {};

async function reopened(user: string, previous: Persistence) {
  previous.close();
  const next = indexedDb({ user });
  return { next, state: await next.load(nobody) };
}

const send = (n: number): SavedSend => ({
  tempId: `00000000-0000-7000-8000-${String(n).padStart(12, '0')}`,
  to: 'bob',
  text: `m${n}`,
  data: { n },
  replyTo: n,
  createdMs: n,
});

test('cursors belong to a store and a user, and never go back', async () => {
  const user = fresh();
  const saved = indexedDb({ user });
  expect(await saved.load(nobody)).toMatchObject({
    user,
    storeId: null,
    device: null,
    cursors: [],
    sends: [],
  });
  await saved.save([
    { kind: 'store', user, storeId: A },
    { kind: 'cursor', conversation: C, seq: 7 },
    { kind: 'cursor', conversation: D, seq: 3 },
    { kind: 'device', device: 'laptop' },
  ]);
  await saved.save([{ kind: 'cursor', conversation: C, seq: 5 }]);
  const { next, state } = await reopened(user, saved);
  expect(state).toMatchObject({ storeId: A, device: 'laptop' });
  expect(state.cursors).toEqual([
    [C, 7],
    [D, 3],
  ]);
  await next.save([
    { kind: 'cursor', conversation: C, seq: 9 },
    { kind: 'cursorDropped', conversation: C },
  ]);
  await next.save([{ kind: 'store', user, storeId: A }]);
  const dropped = await reopened(user, next);
  expect(dropped.state.cursors).toEqual([[D, 3]]);
  await dropped.next.save([{ kind: 'store', user, storeId: B }]);
  const moved = await reopened(user, dropped.next);
  expect(moved.state.cursors).toEqual([]);
  const stranger = indexedDb({ user: fresh() });
  expect((await stranger.load(nobody)).storeId).toBeNull();
});

test('unresolved messages stay, in order, once', async () => {
  const user = fresh();
  const saved = indexedDb({ user });
  await saved.load(nobody);
  await saved.save([1, 2, 3].map((n) => ({ kind: 'send', send: send(n) })));
  await saved.save([
    { kind: 'send', send: send(1) },
    { kind: 'resolved', tempId: send(2).tempId },
  ]);
  const { state } = await reopened(user, saved);
  expect(state.sends).toEqual([send(1), send(3)]);
});

test('a client goes on where the one before stopped', async () => {
  const user = 'alice';
  const first = fakeClient({ persist: indexedDb({ user }) });
  const person = new Person(first.client);
  const peer = await until('a link', () => first.peers[0]);
  peer.welcome();
  await settled();
  peer.synced();
  peer.send(deliver(1, 2));
  const beside = { data: { album: [1, 2] }, replyTo: 2 };
  const sending = first.client.send('bob', 'unsent', beside);
  await until('the send left', () => peer.last('send'));
  expect(peer.last('send')).toMatchObject({ ageMs: 0 });
  await first.client.close();
  await expect(sending).rejects.toMatchObject({ kind: 'closed' });
  expect(person.seqs(C)).toEqual([1, 2]);

  const second = fakeClient({ persist: indexedDb({ user }) });
  const again = new Person(second.client);
  // Said before the saved state is there, and not lost.
  second.client.watchPresence(['bob']);
  const next: Peer = await until('a link', () => second.peers[0]);
  // Before there is a session the application knows what is pending.
  expect(again.told('echo')).toMatchObject([
    { text: 'unsent', ...beside, tempId: sending.tempId, restored: true },
  ]);
  expect(second.client.user).toBe(user);
  next.welcome();
  await until('the send again', () => next.last('send'));
  expect(next.last('sync')).toMatchObject({ cursors: [{ conversation: C, seq: 2 }] });
  expect(next.last('send')).toMatchObject({ text: 'unsent', ...beside, tempId: sending.tempId });
  expect(next.last('watch')).toMatchObject({ users: ['bob'] });
  expect(next.last('send')?.ageMs).toBeGreaterThan(0);
  expect(next.got.find(({ type }) => type === 'hello')).toEqual(
    peer.got.find(({ type }) => type === 'hello'),
  );
  await second.client.close();
});

test('a message that cannot be saved is not accepted, and says so', async () => {
  const broken: Persistence = {
    load: async () => ({ user: null, storeId: null, device: 'd', cursors: [], sends: [], transport: null }),
    save: () => Promise.reject(new Error('the disk is full')),
    close: nobody,
  };
  const { client, peers } = fakeClient({ persist: broken });
  const person = new Person(client);
  const peer = await until('a link', () => peers[0]);
  peer.welcome();
  const sending = client.send('bob', 'x');
  await expect(sending).rejects.toMatchObject({
    kind: 'notSaved',
    message: expect.stringContaining('the disk is full'),
  });
  expect(person.told('persistence')[0]).toEqual({ problem: 'the disk is full' });
  expect(peer.last('send')).toBeUndefined();
  await client.close();
});

test('saved state that cannot be read stops the client with the reason', async () => {
  const broken: Persistence = {
    load: () => Promise.reject(new Error('not allowed')),
    save: async () => {},
    close: nobody,
  };
  const { client } = fakeClient({ persist: broken });
  await expect(client.sessionOpen()).rejects.toMatchObject({ kind: 'persistence' });
});

// The client against a server that does as it likes.
import { afterEach, expect, test, vi } from 'vitest';
import type { Frame } from '../../src/generated/frames.js';
import { fakeClient, type Peer } from '../harness/fakes.js';
import { C, deliver, entry, ID, message, online, refusal } from '../harness/online.js';

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

test('entries that come early wait; a hole that does not close is fetched after 100 ms', async () => {
  const { person, peer } = await online();
  peer.send(deliver(1));
  peer.send(deliver(3, 4));
  peer.send(deliver(1));
  expect(person.seqs(C)).toEqual([1]);
  await vi.advanceTimersByTimeAsync(90);
  expect(peer.last('fetch')).toBeUndefined();
  await vi.advanceTimersByTimeAsync(20);
  const fetch = peer.last('fetch');
  expect(fetch).toMatchObject({ conversation: C, after: 1 });
  peer.send({ type: 'page', conversation: C, entries: [entry(2)], firstSeq: 1, head: 4 }, fetch?.request);
  expect(person.seqs(C)).toEqual([1, 2, 3, 4]);
});

test('that a user was erased is told by the frame and by the entry, before the entry', async () => {
  const { client, peer } = await online();
  const told: string[] = [];
  client.on('erased', ({ seq }) => told.push(`erased ${seq}`));
  client.on('entry', ({ entry: { seq } }) => told.push(`entry ${seq}`));
  await vi.advanceTimersByTimeAsync(0);
  peer.send(deliver(1));
  peer.send({ type: 'erased', conversation: C, seq: 9 });
  peer.send(deliver(entry(2, { kind: 'left', user: 'erased:abc' }), entry(3, { kind: 'left', user: 'bob' })));
  expect(told).toEqual(['entry 1', 'erased 9', 'erased 2', 'entry 2', 'entry 3']);
});

test('handled entries are acked, at most every 50 ms', async () => {
  const { peer } = await online();
  peer.send(deliver(1));
  peer.send(deliver(2, 3));
  await vi.advanceTimersByTimeAsync(60);
  const acks = peer.got.filter((frame) => frame.type === 'ack');
  expect(acks.length).toBeLessThanOrEqual(2);
  expect(peer.last('ack')).toMatchObject({ positions: [{ conversation: C, seq: 3 }] });
});

test('with manual confirmation nothing is acked before the application says so', async () => {
  const { client, peer } = await online({ confirm: 'manual' });
  peer.send(deliver(1, 2, 3));
  await vi.advanceTimersByTimeAsync(200);
  expect(peer.last('ack')).toBeUndefined();
  client.confirm(C, 2);
  await vi.advanceTimersByTimeAsync(60);
  expect(peer.last('ack')).toMatchObject({ positions: [{ conversation: C, seq: 2 }] });
});

test('what a hostile server sends is inert and reported', async () => {
  const { client, person, peer } = await online();
  const before = person.events.length;
  const nonsense: Frame[] = [
    { type: 'gap', conversation: C, from: 5, to: 2 },
    { type: 'hello', token: '', device: null, agent: null, features: 0 },
    { type: 'send', to: 'bob', text: 'x', tempId: ID, ageMs: null, data: null, replyTo: null },
    { type: 'page', conversation: C, entries: [entry(1)], firstSeq: 1, head: 1 },
    { type: 'member_list', conversation: C, members: [] },
  ];
  for (const frame of nonsense) peer.send(frame);
  // A broken body, an unknown critical type, a number that no client can hold.
  peer.raw(Uint8Array.of(3, 29, 1, 9));
  peer.raw(Uint8Array.of(3, 99, 1, 0));
  peer.raw(Uint8Array.of(11, 4, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f));
  const problems = person.told('problem');
  expect(problems.length).toBe(person.events.length - before);
  expect(problems.map(({ code }) => code)).toEqual([4004, 4004, 4004, 4004, 4004, 4000, 4001, 4000]);
  expect(person.entries).toEqual([]);
  expect(client.state.state).toBe('online');
  const script = '<script>alert(1)</script>\u202e';
  peer.send(deliver(entry(1, message(script))));
  expect(person.texts()).toEqual([script]);
});

test('a server that sends nothing but rubbish loses the client, which comes back', async () => {
  const { client, person, peer, peers } = await online();
  for (let count = 0; count < 20; count++) peer.raw(Uint8Array.of(3, 99, 1, 0));
  expect(client.state.state).toBe('offline');
  expect(peer.closed).toBe(true);
  expect(person.told('problem')).toHaveLength(20);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(peers.length).toBe(2);
});

test('acks of an unknown send and refusals of a foreign request change nothing', async () => {
  const { client, person, peer } = await online();
  const sending = client.send('bob', 'hi');
  const request = peer.last('send')?.request ?? null;
  peer.send(refusal(4010, { tempId: ID }));
  peer.send(refusal(4010, { tempId: sending.tempId }), (request ?? 0) + 50);
  expect(person.told('sendFailed')).toEqual([]);
  peer.send(refusal(4010, { tempId: sending.tempId }), request);
  await expect(sending).rejects.toMatchObject({ kind: 'refused', code: 4010, retryable: false });
  expect(person.told('sendFailed')).toMatchObject([{ tempId: sending.tempId, to: 'bob' }]);
});

test('a dead server is noticed by the own ping, long before the browser does', async () => {
  const { client, person, peer } = await online();
  peer.send({ type: 'pong', nonce: peer.last('ping')?.nonce ?? 0 });
  expect(client.stats.rttMs).not.toBeNull();
  // It says nothing any more; the next ping goes after the keepalive, and nothing answers it.
  await vi.advanceTimersByTimeAsync(20_000);
  expect(client.state.state).toBe('online');
  await vi.advanceTimersByTimeAsync(6_100);
  expect(person.told('state').find(({ state }) => state === 'offline')).toMatchObject({
    cause: expect.stringContaining('nothing was heard'),
  });
  expect(peer.closed).toBe(true);
});

test('a server that is slow with an answer but answers pings is not dead', async () => {
  const { client, peer } = await online();
  peer.send({ type: 'pong', nonce: 1 });
  client.send('bob', 'slow');
  for (let seconds = 0; seconds < 30; seconds++) {
    await vi.advanceTimersByTimeAsync(1_000);
    const asked = peer.got.filter(({ type }) => type === 'ping').length;
    if (seconds === 1) expect(asked).toBe(1);
    if (asked > 1) peer.send({ type: 'pong', nonce: asked });
  }
  expect(client.state.state).toBe('online');
  expect(peer.closed).toBe(false);
});

test('while somebody looks at the page a dead server is noticed within 11 s', async () => {
  const { client, person, peer } = await online();
  const listen = { addEventListener() {}, removeEventListener() {} };
  vi.stubGlobal('document', { visibilityState: 'visible', ...listen });
  for (let answered = 0; answered < 5; answered++) {
    peer.send({ type: 'pong', nonce: peer.last('ping')?.nonce ?? 0 });
    await vi.advanceTimersByTimeAsync(5_000);
  }
  expect(client.state.state).toBe('online');
  await vi.advanceTimersByTimeAsync(6_100);
  expect(person.states).toContain('offline');
});

test('a server that goes away is left only when the next one has everything', async () => {
  const { client, person, peer, peers } = await online();
  peer.send(deliver(1));
  peer.send({ type: 'go_away', deadlineMs: 10_000, spreadMs: 0, target: null });
  expect(client.state.state).toBe('draining');
  const sending = client.send('bob', 'on the way');
  await vi.advanceTimersByTimeAsync(1);
  const next = peers[1] as Peer;
  next.welcome();
  await vi.advanceTimersByTimeAsync(1);
  expect(client.state.state).toBe('online');
  expect(peer.closed).toBe(false);
  // Both bring the same entry: it is handed out once.
  peer.send(deliver(2));
  next.send(deliver(2));
  expect(next.last('sync')).toMatchObject({ cursors: [{ conversation: C, seq: 1 }] });
  next.synced();
  expect(peer.closed).toBe(true);
  expect(peer.got.at(-1)).toMatchObject({ type: 'close', code: 0 });
  const { tempId, request } = next.last('send') as { tempId: string; request: number };
  const ack = {
    tempId,
    conversation: C,
    seq: 3,
    id: ID,
    timeMs: 2,
    messages: 3,
    duplicate: true,
    recipientUnknown: false,
  };
  next.send({ type: 'send_ack', ...ack }, request);
  await expect(sending).resolves.toMatchObject({ seq: 3, duplicate: true });
  expect(person.seqs(C)).toEqual([1, 2, 3]);
});

test('another store means other logs: cursors are dropped, what is unsent is kept', async () => {
  const { client, person, peer, peers } = await online();
  peer.send(deliver(1, 2));
  client.send('bob', 'unsent');
  client.dropLink();
  await vi.advanceTimersByTimeAsync(1_000);
  const next = peers[1] as Peer;
  next.welcome({ storeId: ID });
  await vi.advanceTimersByTimeAsync(1);
  expect(person.told('storeChanged')).toMatchObject([{ new: ID }]);
  expect(next.last('sync')).toMatchObject({ cursors: [] });
  expect(next.last('send')).toMatchObject({ text: 'unsent' });
  next.send(deliver(1));
  expect(person.seqs(C)).toEqual([1, 2, 1]);
});

test('a cursor above the head of its log is dropped and everything is synced anew', async () => {
  const { person, peer, peers, client } = await online();
  peer.send(deliver(1, 2));
  client.dropLink();
  await vi.advanceTimersByTimeAsync(1_000);
  const next = peers[1] as Peer;
  next.welcome();
  await vi.advanceTimersByTimeAsync(1);
  next.send(refusal(4400), next.last('sync')?.request ?? null);
  expect(person.told('resync')).toEqual([{ conversation: null }]);
  expect(next.last('sync')).toMatchObject({ cursors: [] });
});

test('a token of another user stops the client', async () => {
  const { client, peers, person } = await online();
  client.dropLink();
  await vi.advanceTimersByTimeAsync(1_000);
  (peers[1] as Peer).welcome({ user: 'mallory' });
  await vi.advanceTimersByTimeAsync(1);
  expect(client.state).toMatchObject({ state: 'closed', error: { kind: 'wrongUser' } });
  expect(person.states.at(-1)).toBe('closed');
});

test('a refusal for the moment is retried after the hint, with everything after it, in order', async () => {
  const { client, peer } = await online();
  const texts = ['a', 'b', 'c'];
  for (const text of texts) client.send('bob', text);
  const sends = () => peer.got.filter((frame) => frame.type === 'send');
  const [a, b, c] = sends();
  const busy = (retryAfterMs: number | null) => refusal(4300, { temporary: true, retryAfterMs });
  peer.send(busy(1_000), a?.request);
  peer.send(busy(null), b?.request);
  peer.send(busy(null), c?.request);
  await vi.advanceTimersByTimeAsync(900);
  expect(sends()).toHaveLength(3);
  await vi.advanceTimersByTimeAsync(200);
  expect(sends()[3]).toMatchObject({ text: 'a', tempId: (a as { tempId: string }).tempId });
});

test('entries wait for a listener, and what its handler throws does not stop the others', async () => {
  vi.useFakeTimers();
  const { client, peers } = fakeClient();
  await vi.advanceTimersByTimeAsync(0);
  const peer = peers[0] as Peer;
  peer.welcome();
  await vi.advanceTimersByTimeAsync(0);
  peer.synced();
  peer.send(deliver(1, 2));
  await vi.advanceTimersByTimeAsync(100);
  expect(peer.last('ack')).toBeUndefined();
  const seen: number[] = [];
  const offBad = client.on('entry', () => {
    throw new Error('mine');
  });
  const off = client.on('entry', ({ entry }) => seen.push(entry.seq));
  const thrown: unknown[] = [];
  process.setUncaughtExceptionCaptureCallback((error) => thrown.push(error));
  await vi.advanceTimersByTimeAsync(100);
  process.setUncaughtExceptionCaptureCallback(null);
  expect(thrown.map(String)).toEqual(['Error: mine', 'Error: mine']);
  expect(seen).toEqual([1, 2]);
  off();
  offBad();
  peer.send(deliver(3));
  expect(seen).toEqual([1, 2]);
});

test('limits of what waits are errors that say so', async () => {
  const { client } = await online({ pendingMax: 2 });
  client.send('bob', 'a');
  const second = client.send('bob', 'b');
  await expect(client.send('bob', 'c')).rejects.toMatchObject({ kind: 'full', retryable: true });
  await expect(client.send('bob', 'b', { tempId: second.tempId })).rejects.toMatchObject({ kind: 'inUse' });
});

test('a question is asked again after a lost link, and ends in time', async () => {
  const { client, peer, peers } = await online({ requestTimeoutMs: 5_000 });
  const page = client.history(C, { limit: 3 });
  expect(peer.last('fetch')).toMatchObject({ limit: 3 });
  client.dropLink();
  await vi.advanceTimersByTimeAsync(500);
  const next = peers[1] as Peer;
  next.welcome();
  await vi.advanceTimersByTimeAsync(500);
  next.synced();
  const request = next.last('fetch')?.request ?? null;
  next.send({ type: 'page', conversation: C, entries: [], firstSeq: 1, head: 0 }, request);
  await expect(page).resolves.toEqual({ conversation: C, entries: [], firstSeq: 1, head: 0 });
  const late = expect(client.members(C)).rejects.toMatchObject({ kind: 'timeout', retryable: true });
  await vi.advanceTimersByTimeAsync(6_000);
  await late;
});

test('what waited for a listener comes before what happens while it is told', async () => {
  const { client, peers } = fakeClient();
  vi.useFakeTimers();
  await vi.advanceTimersByTimeAsync(0);
  const peer = peers[0] as Peer;
  peer.welcome();
  await vi.advanceTimersByTimeAsync(0);
  peer.synced();
  peer.send(deliver(1, 2));
  const order: string[] = [];
  client.on('entry', ({ entry }) => {
    order.push(`entry ${entry.seq}`);
    if (entry.seq === 1) client.send('bob', 'from a handler');
  });
  client.on('echo', ({ text }) => order.push(text));
  client.send('bob', 'right after');
  peer.send(deliver(3));
  await vi.advanceTimersByTimeAsync(10);
  expect(order.filter((line) => line.startsWith('entry'))).toEqual(['entry 1', 'entry 2', 'entry 3']);
  expect(order).toContain('right after');
  expect(order).toContain('from a handler');
  expect(peer.got.filter(({ type }) => type === 'send')).toMatchObject([
    { text: 'right after' },
    { text: 'from a handler' },
  ]);
});

test('a read position above what the client knows of is told as that', async () => {
  const { client, peer } = await online();
  peer.send(deliver(1, 2));
  client.markRead(C, 99);
  expect(peer.last('read')).toMatchObject({ conversation: C, seq: 2 });
  expect(() => client.markRead(C, -1)).toThrow('seq');
});

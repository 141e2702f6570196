// The promises of the package against a real server, over WebSocket.
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  Code,
  type Config,
  type ConversationSummary,
  connect,
  pairOf,
  start,
  TernError,
} from '../../src/index.js';
import { Person, until, upTo } from '../harness/people.js';
import { Server } from '../harness/server.js';

let server: Server;
let people: Person[] = [];

beforeEach(async () => {
  server = await Server.start();
});

afterEach(async () => {
  await Promise.all(people.map(({ client }) => client.close()));
  people = [];
  await server.stop();
});

function arrive(user: string, config: Partial<Config> = {}): Person {
  const url = server.ready.http_url;
  const person = new Person(start({ url, token: server.token(user), backoffMaxMs: 300, ...config }));
  people.push(person);
  return person;
}

async function online(user: string, config: Partial<Config> = {}): Promise<Person> {
  const person = arrive(user, config);
  await person.client.sessionOpen();
  return person;
}

const PAIR = pairOf('alice', 'bob');

test('a message is echoed at once, acked when durable, and arrives with any text exact', async () => {
  const [alice, bob] = [await online('alice'), await online('bob')];
  const texts = [
    'hi',
    'é😀👩‍👩‍👧‍👦',
    'مرحبا ‮x‬',
    '\uFEFFq\u0000\u2028\r\n',
    '<img src=x onerror=alert(1)>',
    'ö'.repeat(8192),
    'a\u0301',
  ];
  for (const text of texts) {
    const sending = alice.client.send('bob', text);
    expect(alice.told('echo').at(-1)).toMatchObject({
      tempId: sending.tempId,
      to: 'bob',
      text,
      restored: false,
    });
    const ack = await sending;
    expect(ack).toMatchObject({ tempId: sending.tempId, conversation: PAIR, duplicate: false });
  }
  await until('all at bob', () => bob.entries.length === texts.length);
  expect(bob.texts()).toEqual(texts);
  expect(alice.texts()).toEqual(texts);
  expect(alice.seqs(PAIR)).toEqual(upTo(texts.length));
  const page = await bob.client.history(PAIR, { limit: 200 });
  expect(page.entries.reverse().map(({ body }) => body)).toEqual(
    texts.map((text) => ({ kind: 'message', text, data: null, replyTo: null })),
  );
});

test('what is wrong is refused with a typed error and nothing is sent', async () => {
  const alice = await online('alice');
  const { client } = alice;
  const kinds = async (promise: Promise<unknown>) => {
    const error = await promise.then(
      () => null,
      (error) => error,
    );
    expect(error).toBeInstanceOf(TernError);
    return [error.kind, error.code, error.retryable];
  };
  expect(await kinds(client.send('bob', ''))).toEqual(['refused', 4008, false]);
  expect(await kinds(client.send('bob', 'x'.repeat(16385)))).toEqual(['refused', 4007, false]);
  expect(await kinds(client.send('bob', 'half \ud800'))).toEqual(['refused', 4006, false]);
  expect(await kinds(client.send('c:nonsense', 'x'))).toEqual(['refused', 4006, false]);
  expect(await kinds(client.send('', 'x'))).toEqual(['refused', 4006, false]);
  expect(await kinds(client.send('b'.repeat(129), 'x'))).toEqual(['refused', 4006, false]);
  expect(await kinds(client.rename(pairOf('bob', 'carol'), 'x'))).toMatchObject([
    'refused',
    expect.any(Number),
    false,
  ]);
  expect(await kinds(client.history(pairOf('bob', 'carol')))).toEqual(['refused', 4009, false]);
  expect(() => client.watchPresence(Array.from({ length: 201 }, (_, at) => `u${at}`))).toThrow('200');
  expect(alice.entries).toEqual([]);
});

test('a server that is killed loses nothing: everything unsent arrives once, in order', async () => {
  const [alice, bob] = [await online('alice'), await online('bob')];
  const acks: Promise<unknown>[] = [];
  const send = (count: number) => {
    for (let at = 0; at < count; at++) acks.push(alice.client.send('bob', `m${acks.length + 1}`));
  };
  send(150);
  await until('some at bob', () => bob.entries.length >= 20);
  await server.kill();
  send(150);
  await until('alice is offline', () => alice.client.state.state === 'offline');
  send(100);
  await server.restart();
  await Promise.all(acks);
  await until('all at bob', () => bob.entries.length >= 400);
  for (const person of [alice, bob]) {
    expect(person.texts()).toEqual(upTo(400).map((n) => `m${n}`));
    expect(person.seqs(PAIR)).toEqual(upTo(400));
  }
  expect(bob.states).toContain('offline');
  expect(bob.told('gap')).toEqual([]);
});

test('the link may be cut at any time', async () => {
  const [alice, bob] = [
    await online('alice', { backoffMaxMs: 20 }),
    await online('bob', { backoffMaxMs: 20 }),
  ];
  const acks: Promise<unknown>[] = [];
  for (let at = 1; at <= 300; at++) {
    acks.push(alice.client.send('bob', `m${at}`));
    if (at % 30 === 0) alice.client.dropLink();
    if (at % 40 === 0) bob.client.dropLink();
    if (at % 10 === 0) await new Promise((resolve) => setTimeout(resolve, at % 7));
  }
  await Promise.all(acks);
  await until('all at bob', () => bob.entries.length >= 300);
  expect(bob.texts()).toEqual(upTo(300).map((n) => `m${n}`));
  expect(alice.texts()).toEqual(bob.texts());
  expect(alice.client.stats.sessions).toBeGreaterThan(3);
});

test('who was away for more than 500 entries gets one gap and the newest 50; history has the rest', async () => {
  const [alice, bob] = [await online('alice'), await online('bob')];
  await alice.client.send('bob', 'first');
  await until('the first', () => bob.entries.length === 1);
  await bob.client.close();
  await Promise.all(upTo(700).map((n) => alice.client.send('bob', `m${n}`)));
  // Without saved state a client begins anew; its log starts at 1.
  const again = await online('bob');
  await again.client.sync();
  expect(again.told('gap')).toEqual([{ conversation: PAIR, from: 1, to: 651 }]);
  expect(again.seqs(PAIR)).toEqual(upTo(50).map((n) => n + 651));
  const page = await again.client.history(PAIR, { before: 652, limit: 200 });
  expect(page.entries[0]?.seq).toBe(651);
});

test('groups: made, changed and left, with every change an entry for all', async () => {
  const [alice, bob, carol] = [await online('alice'), await online('bob'), await online('carol')];
  const { conversation } = await alice.client.createGroup('crew', ['bob']);
  await alice.client.send(conversation, 'hello');
  await alice.client.addMembers(conversation, ['carol']);
  await alice.client.setRole(conversation, 'bob', 'admin');
  await bob.client.rename(conversation, 'the crew');
  await carol.client.leave(conversation);
  await alice.client.removeMembers(conversation, ['bob']);
  await until('all at alice', () => alice.seqs(conversation).length === 7);
  const kinds = (person: Person) => person.entries.map(({ body }) => body.kind);
  expect(kinds(alice)).toEqual(['created', 'message', 'added', 'roleChanged', 'renamed', 'left', 'removed']);
  await until('all at bob', () => bob.seqs(conversation).length === 7);
  expect(kinds(bob)).toEqual(kinds(alice));
  expect((await alice.client.members(conversation)).map(({ user }) => user)).toEqual(['alice']);
  const { conversations } = await alice.client.conversations();
  expect(conversations).toMatchObject([
    { conversation, kind: 'group', name: 'the crew', role: 'owner', head: 7 },
  ]);
  await until('carol has hers', () => carol.entries.length === 4);
  expect(carol.told('gap')).toEqual([]);
});

test('presence, typing and read positions reach those they are for', async () => {
  const [alice, bob, tab] = [await online('alice'), await online('bob'), await online('bob')];
  await bob.client.send('alice', 'hello');
  const { seq } = await alice.client.send('bob', 'hi');
  alice.client.watchPresence(['bob', 'nobody']);
  const presence = await until('presence', () => alice.told('presence').at(-1));
  expect(presence.map(({ user, state }) => [user, state])).toEqual([
    ['bob', 'online'],
    ['nobody', 'unknown'],
  ]);
  alice.client.typing('bob');
  expect(await until('typing', () => bob.told('typing').at(0))).toEqual({
    conversation: PAIR,
    user: 'alice',
  });
  bob.client.markRead(PAIR, seq);
  expect(await until('read', () => tab.told('read').find((read) => read.seq === seq))).toEqual({
    conversation: PAIR,
    seq,
    messages: 2,
  });
  // Who writes has read what is above; what others read is theirs.
  expect(alice.told('read')).toEqual([{ conversation: PAIR, seq, messages: 2 }]);
});

test('a block keeps the other away until it is taken back, and other devices hear of it', async () => {
  const [alice, tab, bob] = [await online('alice'), await online('alice'), await online('bob')];
  await bob.client.send('alice', 'hi');
  await alice.client.block('bob');
  expect(await until('the block', () => tab.told('blockChanged').at(0))).toEqual({
    user: 'bob',
    blocked: true,
  });
  await expect(bob.client.send('alice', 'hello?')).rejects.toMatchObject({ code: Code.UNREACHABLE });
  await expect(alice.client.send('bob', 'hm')).rejects.toMatchObject({ code: Code.BLOCKED });
  expect((await alice.client.blocks()).map(({ user }) => user)).toEqual(['bob']);
  expect(await bob.client.blocks()).toEqual([]);
  await alice.client.unblock('bob');
  await bob.client.send('alice', 'thank you');
  await expect(alice.client.block('bob\u200b')).rejects.toMatchObject({ code: Code.INVALID_ARGUMENT });
});

test('groups that others put one in are kept, or left together', async () => {
  const [alice, bob] = [await online('alice'), await online('bob')];
  const made = [];
  for (const name of ['a', 'b', 'c']) made.push((await alice.client.createGroup(name, ['bob'])).conversation);
  const [kept, ...others] = made as [string, ...string[]];
  await bob.client.keep(kept);
  const left = await bob.client.leaveMany([...others, PAIR]);
  expect(left).toEqual([
    ...others.map((conversation) => ({ conversation, code: null })),
    { conversation: PAIR, code: Code.NOT_FOUND },
  ]);
  const { conversations } = await bob.client.conversations();
  const roles = Object.fromEntries(conversations.map(({ conversation, role }) => [conversation, role]));
  expect(roles).toEqual({ [kept]: 'member', [others[0] as string]: null, [others[1] as string]: null });
  expect(conversations.find(({ conversation }) => conversation === kept)?.addedBy).toBe(null);
});

test('data and answers arrive as they were sent, and what is unread is a difference', async () => {
  const [alice, tab, bob] = [await online('alice'), await online('alice'), await online('bob')];
  const data = { order: 7, items: ['tea', { sugar: null }], weight: -0.5, 'né"e': '\u2028👍' };
  const { seq } = await alice.client.send('bob', 'tea?', { data });
  await bob.client.send('alice', '', { data: ['yes'], replyTo: seq });
  await bob.client.send('alice', 'at five', { replyTo: 2 });
  await until('all', () => [alice, tab, bob].every(({ entries }) => entries.length === 3));
  for (const person of [alice, tab, bob]) {
    expect(person.entries.map(({ messages, body }) => [messages, body])).toEqual([
      [1, { kind: 'message', text: 'tea?', data, replyTo: null }],
      [2, { kind: 'message', text: '', data: ['yes'], replyTo: seq }],
      [3, { kind: 'message', text: 'at five', data: null, replyTo: 2 }],
    ]);
  }
  const page = await bob.client.history(PAIR);
  expect(page.entries.map(({ body }) => body).reverse()).toEqual(alice.entries.map(({ body }) => body));
  const unread = async ({ client }: Person) => {
    const { conversations } = await client.conversations();
    const { head, headMessages, readMessages, unread } = conversations[0] ?? ({} as ConversationSummary);
    expect(unread).toBe(headMessages - readMessages);
    return [head, headMessages, unread];
  };
  // Alice has read her own message, bob everything up to his last one.
  expect(await unread(alice)).toEqual([3, 3, 2]);
  expect(await unread(bob)).toEqual([3, 3, 0]);
  alice.client.markRead(PAIR, 2);
  const read = { conversation: PAIR, seq: 2, messages: 2 };
  expect(await until('read', () => tab.told('read').find(({ seq }) => seq === 2))).toEqual(read);
  expect(await unread(tab)).toEqual([3, 3, 1]);
});

test('a token is renewed on the live session', async () => {
  const reasons: string[] = [];
  const renewToken = ({ why }: { why: string }) => {
    reasons.push(why);
    return server.token('alice', reasons.length === 1 ? 5 : 3600);
  };
  const alice = await online('alice', { token: server.token('alice', 5), renewToken });
  await until('two renewals', () => reasons.length >= 2);
  await alice.client.send('bob', 'still here');
  await new Promise((resolve) => setTimeout(resolve, 6_000));
  await alice.client.send('bob', 'and here');
  expect(alice.client.stats.sessions).toBe(1);
  expect(new Set(reasons)).toEqual(new Set(['expiring']));
});

test('a refused token stops a client that cannot get another one, and is replaced by one that can', async () => {
  const url = server.ready.http_url;
  await expect(connect({ url, token: 'nonsense' })).rejects.toMatchObject({
    kind: 'token',
    retryable: false,
  });
  const renewToken = () => Promise.resolve(server.token('alice'));
  const alice = await online('alice', { token: server.token('alice', -3600), renewToken });
  expect(alice.client.session?.user).toBe('alice');
  const gone = () => {
    throw new TernError('token', 'signed out');
  };
  await expect(connect({ url, renewToken: gone })).rejects.toThrow('signed out');
  const busy = () => Promise.reject(new Error('the login service is away'));
  await expect(connect({ url, renewToken: busy, connectTimeoutMs: 400 })).rejects.toMatchObject({
    kind: 'timeout',
    retryable: true,
    message: expect.stringContaining('the login service is away'),
  });
});

test('a server that drains is left before it goes, and found again', async () => {
  const [alice, bob] = [await online('alice'), await online('bob')];
  const acks = upTo(100).map((n) => alice.client.send('bob', `m${n}`));
  await until('some at bob', () => bob.entries.length > 5);
  await server.drain();
  acks.push(...upTo(100).map((n) => alice.client.send('bob', `m${n + 100}`)));
  await server.restart();
  await Promise.all(acks);
  await until('all at bob', () => bob.entries.length >= 200);
  expect(bob.texts()).toEqual(upTo(200).map((n) => `m${n}`));
});

test('nobody at the address: the client says so, waits, and a stopped one is stopped', async () => {
  const lost = arrive('alice', { url: 'http://127.0.0.1:9' });
  const state = await until('offline', () => lost.told('state').find(({ state }) => state === 'offline'));
  expect(state).toMatchObject({ cause: expect.stringContaining('WebSocket') });
  const sending = lost.client.send('bob', 'x');
  await lost.client.close();
  await expect(sending).rejects.toMatchObject({ kind: 'closed' });
  await expect(lost.client.send('bob', 'x')).rejects.toMatchObject({ kind: 'closed' });
  await expect(lost.client.history(PAIR)).rejects.toMatchObject({ kind: 'closed' });
  expect(() => start({ url: 'ftp://x', token: 't' })).toThrow(TernError);
  expect(() => start({ url: 'https://x' })).toThrow('renewToken');
  expect(() => start({ token: 't' })).toThrow('url');
});

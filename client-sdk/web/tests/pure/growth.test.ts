// A log that a later version of the server has written to: this client lives with it.
import { afterEach, expect, test, vi } from 'vitest';
import { Writer } from '../../src/codec/bytes.js';
import { Decoder, type Envelope, encode } from '../../src/codec/frames.js';
import type { Entry, EntryBody, Frame } from '../../src/generated/frames.js';
import type { SavedChange } from '../../src/saved.js';
import type { Peer } from '../harness/fakes.js';
import { C, deliver, entry, message, online } from '../harness/online.js';

/** A body of a kind that nobody knows today. */
const future = (...bytes: number[]): EntryBody => ({
  kind: 'opaque',
  number: 4_000_000_000,
  bytes: Uint8Array.from(bytes),
});

afterEach(() => {
  vi.useRealTimers();
});

test('a log full of a future kind is handed out, confirmed and gone on from like any other', async () => {
  const saved: SavedChange[] = [];
  const persist = {
    load: async () => ({ user: null, storeId: null, device: 'd', cursors: [], sends: [], transport: null }),
    save: async (changes: SavedChange[]) => void saved.push(...changes),
    close: () => {},
  };
  const { client, person, peer, peers } = await online({ persist });
  const bodies = (seq: number) => (seq % 50 === 0 ? message(`m${seq}`) : future(seq % 256, 0xff, 0));
  const part = (from: number, to: number): Entry[] =>
    Array.from({ length: to - from + 1 }, (_, at) => entry(from + at, bodies(from + at)));
  // Live, behind a hole, and as the page that closes it.
  peer.send(deliver(...part(1, 100)));
  peer.send(deliver(...part(201, 300)));
  await vi.advanceTimersByTimeAsync(110);
  const fetch = peer.last('fetch');
  expect(fetch).toMatchObject({ after: 100 });
  const entries = part(101, 200).reverse();
  peer.send({ type: 'page', conversation: C, entries, firstSeq: 1, head: 300 }, fetch?.request);
  await vi.advanceTimersByTimeAsync(110);
  expect(person.seqs(C)).toEqual(Array.from({ length: 300 }, (_, at) => at + 1));
  expect(person.entries[141]?.body).toEqual(future(142, 0xff, 0));
  expect(person.texts()).toEqual(['m50', 'm100', 'm150', 'm200', 'm250', 'm300']);
  expect(person.told('problem')).toEqual([]);
  expect(peer.last('ack')).toMatchObject({ positions: [{ conversation: C, seq: 300 }] });
  expect(saved).toContainEqual({ kind: 'cursor', conversation: C, seq: 300 });
  // It goes on: sends, reads, and starts the next session after the last of them.
  client.markRead(C, 299);
  expect(peer.last('read')).toMatchObject({ seq: 299 });
  const sending = client.send(C, 'still here');
  await vi.advanceTimersByTimeAsync(10);
  const { tempId, request } = peer.last('send') as { tempId: string; request: number };
  const ack = { tempId, conversation: C, seq: 301, id: entry(1).id, timeMs: 2, messages: 301 };
  peer.send({ type: 'send_ack', ...ack, duplicate: false, recipientUnknown: false }, request);
  await expect(sending).resolves.toMatchObject({ seq: 301 });
  client.dropLink();
  await vi.advanceTimersByTimeAsync(1_000);
  const next = peers[1] as Peer;
  next.welcome();
  await vi.advanceTimersByTimeAsync(1);
  expect(next.last('sync')).toMatchObject({ cursors: [{ conversation: C, seq: 301 }] });
});

test('an opaque body is written as it was read, and keeps no more than its bytes', () => {
  const written = encode({ request: null, frame: deliver(entry(1, future(1, 2, 3))) });
  const decoder = new Decoder();
  decoder.push(written);
  const read = decoder.next() as Envelope;
  expect(encode(read)).toEqual(written);
  const { entries } = read.frame as Extract<Frame, { type: 'deliver' }>;
  const { bytes } = (entries[0] as Entry).body as Extract<EntryBody, { kind: 'opaque' }>;
  expect(bytes.buffer.byteLength).toBe(3);
});

test('fields that a later version has added to a known kind are ignored', () => {
  const text = new TextEncoder().encode('hi');
  const fields = [text.length, ...text, 0, 0];
  const grown = new Writer();
  grown.varint(0);
  grown.varint(fields.length + 3);
  grown.bytes(Uint8Array.of(...fields, 7, 0xff, 0xff));
  // The body is the last of an entry, and an entry of the frame.
  const plain = encode({ request: null, frame: deliver(entry(1, message('hi'))) });
  const without = plain.slice(1, plain.length - fields.length - 2);
  const frame = new Writer();
  frame.varint(without.length + grown.done.length);
  frame.bytes(without);
  frame.bytes(grown.done);
  const decoder = new Decoder();
  decoder.push(frame.done);
  expect(decoder.next()).toEqual({ request: null, frame: deliver(entry(1, message('hi'))) });
});

test('a known kind whose fields end early is refused, whatever follows it', () => {
  const whole = encode({ request: null, frame: deliver(entry(1, { kind: 'renamed', name: 'crew' })) });
  // The name claims to be longer than its body.
  const at = whole.length - 5;
  expect(whole[at]).toBe(4);
  whole[at] = 9;
  const decoder = new Decoder();
  decoder.push(whole);
  expect(() => decoder.next()).toThrow('ends early');
});

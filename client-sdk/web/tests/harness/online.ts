// A client that has a session, and what its server may send it.
import { vi } from 'vitest';
import type { Entry, EntryBody, ErrorFrame, Frame } from '../../src/generated/frames.js';
import { fakeClient, type Peer } from './fakes.js';
import { Person } from './people.js';

export const C = 'c:k65qsuf7itf6z52lvp67sjfjtm';
export const ID = '00000000-0000-7000-8000-0000000000ff';

export const message = (text: string): EntryBody => ({ kind: 'message', text, data: null, replyTo: null });

/** An entry of a log in which everything is a message of bob. */
export const entry = (seq: number, body: EntryBody = message(`m${seq}`), sender = 'bob'): Entry => ({
  seq,
  id: ID,
  timeMs: 1,
  sender,
  senderName: null,
  tempId: null,
  messages: seq,
  body,
});

export const deliver = (...entries: (number | Entry)[]): Frame => ({
  type: 'deliver',
  conversation: C,
  entries: entries.map((one) => (typeof one === 'number' ? entry(one) : one)),
});

export const refusal = (code: number, change: Partial<ErrorFrame> = {}): Frame => ({
  type: 'error',
  code,
  temporary: false,
  retryAfterMs: null,
  detail: 'no',
  tempId: null,
  conversation: null,
  ...change,
});

/** A client with a session whose sync is complete; time stands still. */
export async function online(config = {}) {
  vi.useFakeTimers();
  const { client, peers } = fakeClient(config);
  const person = new Person(client);
  await vi.advanceTimersByTimeAsync(0);
  const peer = peers[0] as Peer;
  peer.welcome();
  await vi.advanceTimersByTimeAsync(0);
  peer.synced();
  return { client, person, peer, peers };
}

// The golden vectors of the protocol: what Rust writes and refuses, this codec writes and refuses.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { DecodeError, Decoder, type Envelope, encode, type Incoming } from '../../src/codec/frames.js';
import { checkConversation, groupOf, pairOf } from '../../src/ids.js';

const vectors = (name: string) =>
  JSON.parse(readFileSync(new URL(`../../../../protocol/vectors/${name}.json`, import.meta.url), 'utf8'));
const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex, 'hex'));
const hex = (data: Uint8Array) => Buffer.from(data).toString('hex');

function decodeOne(data: Uint8Array, wide = false): Incoming | null {
  const decoder = new Decoder(wide);
  decoder.push(data);
  const first = decoder.next();
  if (!first) decoder.finish();
  return first;
}

/** The JSON form of a frame, from ours: as the page of the protocol describes it. */
function jsonOf({ request, frame }: Envelope): unknown {
  const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  const plain = (value: unknown): unknown => {
    if (typeof value === 'bigint') return `n${value}`;
    if (typeof value === 'number') return `n${value}`;
    if (Array.isArray(value)) return value.map(plain);
    if (typeof value !== 'object' || value === null) return value;
    const { kind, ...rest } = value as Record<string, unknown>;
    const rows = Object.entries(rest).map(([name, inner]) => [snake(name), plain(inner)]);
    const object = Object.fromEntries(rows);
    // A body of an entry is an object with the name of its variant; a summary has a kind of its own.
    if (kind === undefined) return object;
    return 'conversation' in rest ? { ...object, kind } : { [snake(kind as string)]: object };
  };
  const { type, ...body } = frame;
  return { type, ...(request === null ? {} : { request_id: plain(request) }), ...(plain(body) as object) };
}

/** Numbers as text, since JSON.parse rounds those above 2^53. */
const exact = (json: string): unknown =>
  JSON.parse(json.replace(/("(?:[^"\\]|\\.)*")|(\d+)/g, (_, text, number) => text ?? `"n${number}"`));

const frames: { name: string; hex: string; json: string }[] = vectors('frames');

test('there are vectors', () => expect(frames.length).toBeGreaterThan(80));

test.each(frames)('a frame has the golden bytes: $name', ({ hex: golden, json }) => {
  const read = decodeOne(bytes(golden), true) as Envelope;
  expect(jsonOf(read)).toEqual(exact(json));
  expect(hex(encode(read))).toBe(golden);
});

test.each(frames)('a number that a client cannot hold exactly is refused: $name', ({ hex: golden, json }) => {
  const body = JSON.parse(json);
  const wide = /\d{17,}/.test(JSON.stringify(body).replaceAll(/"[^"]*"/g, ''));
  if (wide) expect(() => decodeOne(bytes(golden))).toThrow('2^53');
  else expect(decodeOne(bytes(golden))).toHaveProperty('frame');
});

const refused: {
  name: string;
  hex: string;
  error: string;
  code: number;
  request_id?: number;
  fatal: boolean;
}[] = vectors('binary_refused');

test.each(refused)('broken bytes are refused with the golden error: $name', (vector) => {
  let error: unknown;
  try {
    decodeOne(bytes(vector.hex));
  } catch (caught) {
    error = caught;
  }
  expect(error).toBeInstanceOf(DecodeError);
  expect(error).toMatchObject({
    kind: vector.error,
    code: vector.code,
    fatal: vector.fatal,
    request: vector.request_id ?? null,
  });
});

test('after a broken frame the next is read, unless the error is fatal', () => {
  const ping = encode({ request: null, frame: { type: 'ping', nonce: 1 } });
  for (const { name, hex: broken, error, fatal } of refused) {
    if (error === 'truncated') continue;
    const decoder = new Decoder();
    decoder.push(bytes(broken));
    decoder.push(ping);
    expect(() => decoder.next(), name).toThrow();
    if (fatal) expect(() => decoder.next(), name).toThrow();
    else expect(decoder.next(), name).toMatchObject({ frame: { type: 'ping', nonce: 1 } });
  }
});

test('an unknown optional type is skipped and a padded number is read', () => {
  expect(decodeOne(bytes('0563000102' + '03'))).toEqual({ skipped: 99 });
  expect(decodeOne(bytes('840006018100'))).toEqual({ request: null, frame: { type: 'ping', nonce: 1 } });
});

const ids: { name: string; kind: string; parts: [string, string]; text: string }[] =
  vectors('conversation_ids');

test.each(ids)('a conversation id derives as everywhere: $name', ({ kind, parts, text }) => {
  expect((kind === 'pair' ? pairOf : groupOf)(...parts)).toBe(text);
  expect(checkConversation(text.toUpperCase().replace('C:', 'c:'))).toBe(text);
});

// The golden vectors of the protocol: what Rust writes and refuses, this codec writes and refuses.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { DecodeError, Decoder, type Envelope, encode, type Incoming } from '../../src/codec/frames.js';
import type { EntryBody } from '../../src/generated/frames.js';
import { checkConversation, groupOf, pairOf } from '../../src/ids.js';

const schema = JSON.parse(readFileSync(new URL('../../../../protocol/schema.json', import.meta.url), 'utf8'));
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

/** The number of a body that is known by its name in JSON only; its bytes are its JSON text. */
const KIND_NAMED = 2 ** 32 - 1;
const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** The JSON form of a frame, from ours: as the page of the protocol describes it. */
function jsonOf({ request, frame }: Envelope): unknown {
  const { type, ...body } = frame;
  return { type, ...(request === null ? {} : { request_id: plain(request) }), ...(plain(body) as object) };
}

function plain(value: unknown): unknown {
  if (typeof value === 'bigint' || typeof value === 'number') return `n${value}`;
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  const fields = Object.entries(value).map(([name, inner]) => {
    if (name === 'body') return ['body', bodyOf(inner)];
    return [snake(name), name === 'data' ? inner : plain(inner)];
  });
  return Object.fromEntries(fields);
}

/** Without the fields that have no value. */
function bodyOf(body: EntryBody): unknown {
  if (body.kind === 'opaque') {
    const bytes = Buffer.from(body.bytes);
    try {
      if (body.number === KIND_NAMED) return JSON.parse(bytes.toString());
    } catch {}
    return { kind: 'opaque', number: plain(body.number), bytes: bytes.toString('base64url') };
  }
  const there = Object.entries(body).filter(([, inner]) => inner !== null);
  return { ...(plain(Object.fromEntries(there)) as object), kind: snake(body.kind) };
}

/**
 * A JSON text with its numbers as text, since JSON.parse rounds those above 2^53; but not in what an
 * application or a later version has put there, which is read as JavaScript reads it.
 */
function exact(json: string): unknown {
  const text = json.replace(
    /("(?:[^"\\]|\\.)*")|(-?\d[\d.eE+-]*)/g,
    (_, quoted, number) => quoted ?? `"n${number}"`,
  );
  const kinds: string[] = schema.bodies.map(({ name }: { name: string }) => name);
  const merged = (numbers: unknown, read: unknown): unknown => {
    if (typeof read !== 'object' || read === null) return numbers;
    if (Array.isArray(read)) return read.map((inner, at) => merged((numbers as unknown[])[at], inner));
    const fields = Object.entries(read).map(([name, inner]) => {
      const kind = name === 'body' ? (inner as EntryBody).kind : null;
      const foreign = name === 'data' || (kind !== null && kind !== 'opaque' && !kinds.includes(kind));
      return [name, foreign ? inner : merged((numbers as Record<string, unknown>)[name], inner)];
    });
    return Object.fromEntries(fields);
  };
  return merged(JSON.parse(text), JSON.parse(json));
}

const frames: { name: string; hex: string; json: string }[] = vectors('frames');

test('there are vectors', () => {
  expect(frames.length).toBeGreaterThan(90);
  expect(frames.filter(({ json }) => json.includes('"opaque"')).length).toBeGreaterThan(1);
});

test.each(frames)('a frame has the golden bytes: $name', ({ hex: golden, json }) => {
  const read = decodeOne(bytes(golden), true) as Envelope;
  expect(jsonOf(read)).toEqual(exact(json));
  const written = encode(read);
  // An application's data has the digits and escapes of whoever wrote it; JavaScript has its own.
  if (json.includes('"data":')) expect(decodeOne(written, true)).toEqual(read);
  else expect(hex(written)).toBe(golden);
});

test.each(frames)('a number that a client cannot hold exactly is refused: $name', ({ hex: golden, json }) => {
  const body = JSON.parse(json);
  const wide = /\d{17,}/.test(JSON.stringify(body).replaceAll(/"[^"]*"/g, ''));
  if (wide) expect(() => decodeOne(bytes(golden))).toThrow('2^53');
  else expect(decodeOne(bytes(golden))).toHaveProperty('frame');
});

const accepted: { name: string; hex: string; json: string }[] = vectors('binary_accepted');

test.each(accepted)('bytes that others may write are read as the golden frame: $name', (vector) => {
  expect(jsonOf(decodeOne(bytes(vector.hex), true) as Envelope)).toEqual(exact(vector.json));
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
  expect(checkConversation(text.toUpperCase())).toBe(text);
});

// The codec: round trips of any frame, any cut of the stream, and any garbage.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Reader, utf8, Writer } from '../../src/codec/bytes.js';
import { DecodeError, Decoder, type Envelope, encode } from '../../src/codec/frames.js';
import { FRAMES, type Frame } from '../../src/generated/frames.js';
import { checkConversation, checkUser, freshUuid, IdError } from '../../src/ids.js';
import { sha256 } from '../../src/sha256.js';

const root = new URL('../../../../', import.meta.url);
const schema = JSON.parse(readFileSync(new URL('protocol/schema.json', root), 'utf8'));

type Type = { name: string; ty: string | Record<string, unknown> };
type Field = { name: string; ty: Type };

const camel = (name: string) => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
const lower = (name: string) => camel(name.replace(/(.)([A-Z])/g, '$1_$2').toLowerCase());

const text = fc.string({ unit: 'binary', maxLength: 40 }).filter((text) => !/\p{Cs}/u.test(text));
const user = text.filter((text) => {
  try {
    return checkUser(text) === text;
  } catch {
    return false;
  }
});
const bytes16 = fc.uint8Array({ minLength: 16, maxLength: 16 });
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const uuid = bytes16.map((bytes) => hex(bytes).replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-'));
const conversation = fc
  .array(fc.constantFrom(...'abcdefghijklmnopqrstuvwxyz234567'), { minLength: 25, maxLength: 25 })
  .map((letters) => checkConversation(`c:${letters.join('')}a`));

const scalars: Record<string, fc.Arbitrary<unknown>> = {
  String: text,
  Data: fc.jsonValue({ stringUnit: 'grapheme' }).filter((value) => value !== null),
  Token: text,
  bool: fc.boolean(),
  Code: fc.nat(65_535),
  u32: fc.nat(2 ** 32 - 1),
  u64: fc.maxSafeNat(),
  UserId: user,
  DeviceId: user,
  Target: fc.oneof(user, conversation),
  ConversationId: conversation,
  TempId: uuid,
  EntryId: uuid,
  StoreId: uuid,
};

/** Any body of an entry; numbers that no kind has are those of later versions. */
const entryBody = () =>
  fc.oneof(
    ...schema.bodies.map((body: { name: string; fields: { ty: { Struct: Field[] } } }) =>
      fields(body.fields.ty.Struct).map((value) => ({ kind: camel(body.name), ...value })),
    ),
    fc.record({
      kind: fc.constant('opaque'),
      number: fc.integer({ min: schema.bodies.length, max: 2 ** 32 - 1 }),
      bytes: fc.uint8Array({ maxLength: 300 }),
    }),
  );

/** Any value of a type, by what Rust says of it. */
function any({ name, ty }: Type): fc.Arbitrary<unknown> {
  const scalar = scalars[name];
  if (scalar) return scalar;
  if (name === 'EntryBody') return entryBody();
  const [kind, inner] = Object.entries(ty)[0] as [string, never];
  if (kind === 'Option') return fc.option(any(inner));
  if (kind === 'Seq') return fc.array(any(inner), { maxLength: 4 });
  if (kind === 'Struct') return fields(inner);
  return fc.constantFrom(...(inner as { name: string }[]).map((variant) => lower(variant.name)));
}

const fields = (list: Field[]): fc.Arbitrary<object> =>
  fc.record(Object.fromEntries(list.map(({ name, ty }) => [camel(name), any(ty)])));

const frame = fc.oneof<fc.Arbitrary<Frame>[]>(
  ...schema.frames.map(({ name, body }: { name: string; body: { ty: { Struct: Field[] } } }) =>
    fields(body.ty.Struct).map((value) => ({ type: name, ...value }) as Frame),
  ),
);
const envelope: fc.Arbitrary<Envelope> = fc.record({ request: fc.option(fc.maxSafeNat()), frame });

/** Everything that a decoder finds when the bytes come in these pieces. */
function decodeAll(pieces: Uint8Array[]): unknown[] {
  const decoder = new Decoder();
  const found: unknown[] = [];
  for (const piece of pieces) {
    decoder.push(piece);
    for (let next = decoder.next(); next; next = decoder.next()) found.push(next);
  }
  decoder.finish();
  return found;
}

test('every frame has a codec', () => {
  expect(Object.keys(FRAMES)).toEqual(schema.frames.map(({ name }: { name: string }) => name));
});

test('any frame survives the wire, however the stream is cut', () => {
  fc.assert(
    fc.property(fc.array(envelope, { minLength: 1, maxLength: 5 }), fc.array(fc.nat(200)), (sent, cuts) => {
      const whole = Buffer.concat(sent.map(encode));
      const pieces: Uint8Array[] = [];
      let at = 0;
      for (const cut of cuts) {
        pieces.push(whole.subarray(at, at + cut));
        at += cut;
      }
      pieces.push(whole.subarray(at));
      expect(decodeAll(pieces)).toEqual(sent);
    }),
    { numRuns: 500 },
  );
});

test('data is its JSON text on the wire', () => {
  const data = { order: [7, 0.5, null], by: 'ann' };
  const frame: Frame = {
    type: 'send',
    to: 'b',
    text: '',
    tempId: freshUuid(),
    ageMs: null,
    data,
    replyTo: 9,
  };
  const text = utf8(JSON.stringify(data));
  // An option that is there, the length, the text; then the entry that is answered.
  const end = [1, text.length, ...text, 1, 9];
  expect([...encode({ request: null, frame }).slice(-end.length)]).toEqual(end);
});

test('garbage and damaged frames are refused as such and never throw anything else', () => {
  const damaged = fc.tuple(envelope, fc.nat(), fc.nat(255)).map(([envelope, at, value]) => {
    const bytes = encode(envelope);
    bytes[at % bytes.length] = value;
    return bytes;
  });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 300 }), damaged), (bytes) => {
      const decoder = new Decoder();
      decoder.push(bytes);
      for (let rounds = 0; rounds <= bytes.length; rounds++) {
        try {
          if (!decoder.next()) return;
        } catch (error) {
          expect(error).toBeInstanceOf(DecodeError);
          if ((error as DecodeError).fatal) return;
        }
      }
    }),
    { numRuns: 3_000 },
  );
});

test('numbers of 64 bits are exact, as BigInt where they must be', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (value) => {
      const writer = new Writer();
      writer.varint(value);
      const reader = new Reader(writer.done);
      expect(BigInt(reader.u64())).toBe(value);
      expect(reader.wide).toBe(value > BigInt(Number.MAX_SAFE_INTEGER));
    }),
  );
  for (const wrong of [-1, 0.5, Number.NaN, 2 ** 53, -1n, 2n ** 64n]) {
    expect(() => new Writer().varint(wrong)).toThrow(RangeError);
  }
});

test('the hash is SHA-256', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (input) => {
      expect(hex(sha256(input))).toBe(createHash('sha256').update(input).digest('hex'));
    }),
  );
});

test('ids that are none are refused', () => {
  for (const bad of ['', 'a\nb', 'c:x', 'a\u0085', 'x'.repeat(129), '\ud800']) {
    expect(() => checkUser(bad), bad).toThrow(IdError);
  }
  for (const bad of ['c:', 'c:short', `c:${'!'.repeat(26)}`, `c:${'a'.repeat(25)}b`, 'bob']) {
    expect(() => checkConversation(bad), bad).toThrow(IdError);
  }
  expect(new Set(Array.from({ length: 50 }, freshUuid)).size).toBe(50);
  expect(utf8('é')).toHaveLength(2);
});

test('the generated code is what the protocol says now', async () => {
  // @ts-expect-error a script without types
  const { generate } = await import('../../scripts/generate.mjs');
  const page = readFileSync(new URL('docs/protocol.md', root), 'utf8');
  for (const [name, text] of Object.entries(generate(schema, page))) {
    const file = new URL(`../../src/generated/${name}`, import.meta.url);
    expect(readFileSync(file, 'utf8'), `${name}: run \`npm run generate\``).toBe(text);
  }
});

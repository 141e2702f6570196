// Codecs of values, and the ways to put them together. A codec says once how a value is read and written.
import {
  bytesOfConversation,
  bytesOfUuid,
  checkDevice,
  checkUser,
  conversationOfBytes,
  isConversation,
  type Target,
  uuidOfBytes,
} from '../ids.js';
import { BytesError, Reader, Writer } from './bytes.js';

/** The binary form of a type. */
export interface Codec<T> {
  read(reader: Reader): T;
  write(writer: Writer, value: T): void;
}

const codec = <T>(read: Codec<T>['read'], write: Codec<T>['write']): Codec<T> => ({ read, write });

const narrow = (bits: number) =>
  codec<number>(
    (reader) => reader.narrow(bits),
    (writer, value) => {
      if (value >= 2 ** bits) throw new RangeError(`${value} has more than ${bits} bits`);
      writer.varint(value);
    },
  );
export const u16 = narrow(16);
export const u32 = narrow(32);
export const u64 = codec<number>(
  (reader) => reader.u64(),
  (writer, value) => writer.varint(value),
);

/** 0 or 1; anything else is an error. */
const flag = (reader: Reader): boolean => {
  const value = reader.byte();
  if (value > 1) throw new BytesError('not 0 or 1');
  return value === 1;
};
export const bool = codec<boolean>(flag, (writer, value) => writer.byte(value ? 1 : 0));

export const str = codec<string>(
  (reader) => reader.text(),
  (writer, value) => writer.text(value),
);

const checked = (check: (text: string) => string) =>
  codec<string>(
    (reader) => check(reader.text()),
    (writer, value) => writer.text(check(value)),
  );
export const userId = checked(checkUser);
export const deviceId = checked(checkDevice);

const sixteen = (toText: (bytes: Uint8Array) => string, toBytes: (text: string) => Uint8Array) =>
  codec<string>(
    (reader) => toText(reader.bytes(16)),
    (writer, value) => writer.bytes(toBytes(value)),
  );
export const uuid = sixteen(uuidOfBytes, bytesOfUuid);
export const conversationId = sixteen(conversationOfBytes, bytesOfConversation);

export const target = codec<Target>(
  (reader) => oneOf([userId, conversationId], reader).read(reader),
  (writer, value) => {
    const which = isConversation(value);
    writer.varint(which ? 1 : 0);
    (which ? conversationId : userId).write(writer, value);
  },
);

export const option = <T>(inner: Codec<T>) =>
  codec<T | null>(
    (reader) => (flag(reader) ? inner.read(reader) : null),
    (writer, value) => {
      writer.byte(value === null ? 0 : 1);
      if (value !== null) inner.write(writer, value);
    },
  );

export const list = <T>(inner: Codec<T>) =>
  codec<T[]>(
    (reader) => {
      const count = reader.narrow(32);
      // Every element takes at least one byte: a claimed length makes no room.
      if (count > reader.left) throw new BytesError('the data ends early');
      const values: T[] = [];
      while (values.length < count) values.push(inner.read(reader));
      return values;
    },
    (writer, values) => {
      writer.varint(values.length);
      for (const value of values) inner.write(writer, value);
    },
  );

type Fields<T> = { [Name in keyof T]: Codec<T[Name]> };

export const struct = <T extends object>(fields: Fields<T>) => {
  const rows = Object.entries(fields) as [keyof T, Codec<unknown>][];
  return codec<T>(
    (reader) => {
      const value = {} as T;
      for (const [name, inner] of rows) value[name] = inner.read(reader) as T[keyof T];
      return value;
    },
    (writer, value) => {
      for (const [name, inner] of rows) inner.write(writer, value[name]);
    },
  );
};

function oneOf<T>(variants: readonly T[], reader: Reader): T {
  const found = variants[reader.narrow(32)];
  if (found === undefined) throw new BytesError('unknown variant');
  return found;
}

/** An enumeration of names. */
export const unit = <T extends string>(names: readonly T[]) =>
  codec<T>(
    (reader) => oneOf(names, reader),
    (writer, value) => writer.varint(names.indexOf(value)),
  );

/** Any JSON value but null, as its text. */
export const json = codec<unknown>(
  (reader) => {
    const value: unknown = JSON.parse(reader.text());
    // Without a value the option around it is empty.
    if (value === null) throw new BytesError('null where a JSON value must be');
    return value;
  },
  (writer, value) => writer.text(JSON.stringify(value)),
);

/** A variant of a later version: its number and its bytes. */
type Opaque = { kind: 'opaque'; number: number; bytes: Uint8Array };
type Variants<T extends { kind: string }> = {
  // biome-ignore lint/suspicious/noExplicitAny: every variant has another type
  [Kind in Exclude<T['kind'], 'opaque'>]: readonly [number, Codec<any>];
};

/**
 * An enumeration that grows, whose variants have fields: number, length, fields. A variant of unknown
 * number is kept as it is; of a known one, fields that a later version added are ignored.
 */
export const growing = <T extends { kind: string } | Opaque>(variants: Variants<T>) => {
  const rows = Object.entries(variants) as [string, readonly [number, Codec<object>]][];
  const byNumber = new Map(rows.map(([kind, [number, inner]]) => [number, [kind, inner] as const]));
  return codec<T>(
    (reader) => {
      const number = reader.narrow(32);
      const bytes = reader.bytes(reader.narrow(32));
      const known = byNumber.get(number);
      // A copy: these few would keep the whole buffer of the stream.
      if (!known) return { kind: 'opaque', number, bytes: bytes.slice() } as T;
      const inner = new Reader(bytes);
      const value = { kind: known[0], ...known[1].read(inner) } as T;
      reader.wide ||= inner.wide;
      return value;
    },
    (writer, value) => {
      let { number, bytes } = value as Opaque;
      if (value.kind !== 'opaque') {
        const [known, fields] = variants[value.kind as keyof Variants<T>];
        const inner = new Writer();
        fields.write(inner, value);
        number = known;
        bytes = inner.done;
      }
      writer.varint(number);
      writer.varint(bytes.length);
      writer.bytes(bytes);
    },
  );
};

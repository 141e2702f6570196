// Bytes in and out: varints, text and raw bytes, as postcard writes them.

/** Why bytes are not what they should be. */
export class BytesError extends Error {}

/** Largest whole number that a `number` holds exactly. */
const EXACT_MAX = Number.MAX_SAFE_INTEGER;
/** Bytes of a 64-bit varint whose value a `number` holds in any case (49 bits). */
const NARROW_BYTES = 7;

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

/** The UTF-8 form of a text. */
export const utf8 = (text: string): Uint8Array => encoder.encode(text);

/** Reads values one after the other. */
export class Reader {
  #at = 0;
  /** A number above 2^53 - 1 was read; it is a BigInt. */
  wide = false;
  readonly #data: Uint8Array;

  constructor(data: Uint8Array) {
    this.#data = data;
  }

  /** Bytes not read yet. */
  get left(): number {
    return this.#data.length - this.#at;
  }

  byte(): number {
    const value = this.#data[this.#at++];
    if (value === undefined) throw new BytesError('the data ends early');
    return value;
  }

  bytes(count: number): Uint8Array {
    if (count > this.left) throw new BytesError('the data ends early');
    this.#at += count;
    return this.#data.subarray(this.#at - count, this.#at);
  }

  /** A varint of at most `bits` (16 or 32) bits. */
  narrow(bits: number): number {
    let value = 0;
    for (let shift = 0; shift < bits; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) {
        if (value < 2 ** bits) return value;
        break;
      }
    }
    throw new BytesError(`not a number of ${bits} bits`);
  }

  /** A varint of 64 bits: a `number` where that is exact, else a `bigint` (see `wide`). */
  u64(): number {
    let low = 0;
    let high = 0n;
    for (let index = 0; index < 10; index++) {
      const byte = this.byte();
      if (index < NARROW_BYTES) low += (byte & 0x7f) * 2 ** (7 * index);
      else high |= BigInt(byte & 0x7f) << BigInt(7 * index);
      if (byte >= 0x80) continue;
      const value = high + BigInt(low);
      if (value >> 64n) break;
      if (value <= EXACT_MAX) return Number(value);
      this.wide = true;
      return value as unknown as number;
    }
    throw new BytesError('not a number of 64 bits');
  }

  text(): string {
    const bytes = this.bytes(this.narrow(32));
    try {
      return decoder.decode(bytes);
    } catch {
      throw new BytesError('not UTF-8');
    }
  }
}

/** Collects values one after the other. */
export class Writer {
  #data = new Uint8Array(256);
  #at = 0;

  /** What was written. */
  get done(): Uint8Array<ArrayBuffer> {
    return this.#data.slice(0, this.#at);
  }

  byte(value: number): void {
    this.#room(1);
    this.#data[this.#at++] = value;
  }

  bytes(value: Uint8Array): void {
    this.#room(value.length);
    this.#data.set(value, this.#at);
    this.#at += value.length;
  }

  /** A varint; any whole number from 0 to 2^64 - 1. */
  varint(value: number | bigint): void {
    if (value < 0 || (typeof value === 'number' ? !Number.isSafeInteger(value) : value >> 64n)) {
      throw new RangeError(`${value} is not a whole number from 0 to 2^64 - 1`);
    }
    let rest = BigInt(value);
    if (rest <= EXACT_MAX) {
      let low = Number(rest);
      for (; low >= 0x80; low = Math.floor(low / 0x80)) this.byte((low % 0x80) | 0x80);
      return this.byte(low);
    }
    for (; rest >= 0x80n; rest >>= 7n) this.byte(Number(rest & 0x7fn) | 0x80);
    this.byte(Number(rest));
  }

  text(value: string): void {
    const bytes = encoder.encode(value);
    this.varint(bytes.length);
    this.bytes(bytes);
  }

  #room(count: number): void {
    if (this.#at + count <= this.#data.length) return;
    const grown = new Uint8Array(Math.max(2 * this.#data.length, this.#at + count));
    grown.set(this.#data.subarray(0, this.#at));
    this.#data = grown;
  }
}

// Frames on the wire: varint length · varint type · flags · [varint request id] · body.
import { FRAME_TOO_LARGE, MALFORMED, UNKNOWN_CRITICAL } from '../generated/codes.js';
import { FRAMES, type Frame } from '../generated/frames.js';
import { FRAME_BYTES_MAX } from '../generated/limits.js';
import { BytesError, Reader, Writer } from './bytes.js';
import type { Codec } from './values.js';

/** A receiver that does not know the type must refuse the frame instead of skipping it. */
const CRITICAL = 1;
/** A request id follows the flags. */
const REQUEST = 2;
/** A varint of 32 bits has at most so many bytes. */
const LENGTH_BYTES_MAX = 5;
/** Frames that are not critical: lost or unknown, they are not missed. */
const OPTIONAL: readonly string[] = ['typing', 'user_typing', 'erased'];

/** A frame with the request it belongs to. */
export interface Envelope {
  readonly request: number | null;
  readonly frame: Frame;
}

/** What the decoder found: a frame, or the number of one of unknown type that may be skipped. */
export type Incoming = Envelope | { readonly skipped: number };

/** What is wrong with bytes that are not a frame. */
export type DecodeKind = 'too_large' | 'bad_length' | 'truncated' | 'header' | 'unknown_critical' | 'body';

/** Bytes are not a frame. */
export class DecodeError extends Error {
  readonly kind: DecodeKind;
  /** The request that the broken frame belongs to, where it could be read. */
  readonly request: number | null;

  constructor(kind: DecodeKind, message: string, request: number | null = null) {
    super(message);
    this.kind = kind;
    this.request = request;
  }

  /** After this the stream cannot be read any further. */
  get fatal(): boolean {
    return this.kind === 'too_large' || this.kind === 'bad_length' || this.kind === 'truncated';
  }

  get code(): number {
    if (this.kind === 'too_large') return FRAME_TOO_LARGE;
    return this.kind === 'unknown_critical' ? UNKNOWN_CRITICAL : MALFORMED;
  }
}

const BY_NUMBER = new Map<number, [Frame['type'], Codec<object>]>(
  Object.entries(FRAMES).map(([type, [number, body]]) => [number, [type as Frame['type'], body]]),
);

/** The binary form of a frame. */
export function encode({ request, frame }: Envelope): Uint8Array<ArrayBuffer> {
  const [number, body] = FRAMES[frame.type];
  const payload = new Writer();
  payload.varint(number);
  payload.byte((OPTIONAL.includes(frame.type) ? 0 : CRITICAL) | (request === null ? 0 : REQUEST));
  if (request !== null) payload.varint(request);
  body.write(payload, frame);
  const bytes = payload.done;
  const whole = new Writer();
  whole.varint(bytes.length);
  whole.bytes(bytes);
  return whole.done;
}

/** Cuts a byte stream into frames. Call `push`, then `next` until it gives `null`. */
export class Decoder {
  #data = new Uint8Array(0);
  #start = 0;
  #end = 0;
  readonly #wide: boolean;

  /** Numbers above 2^53 - 1 are refused, unless they are `wide`: then they come as BigInt. */
  constructor(wide = false) {
    this.#wide = wide;
  }

  push(chunk: Uint8Array): void {
    const used = this.#end - this.#start;
    if (this.#end + chunk.length > this.#data.length) {
      const room = used + chunk.length > this.#data.length ? 2 * used + chunk.length : this.#data.length;
      const grown = new Uint8Array(room);
      grown.set(this.#data.subarray(this.#start, this.#end));
      this.#data = grown;
      this.#start = 0;
      this.#end = used;
    }
    this.#data.set(chunk, this.#end);
    this.#end += chunk.length;
  }

  /** The stream has ended: an error if it ended inside a frame. */
  finish(): void {
    if (this.#end > this.#start) throw new DecodeError('truncated', 'the stream ended inside a frame');
  }

  /**
   * The next frame; `null` if more bytes are needed. After an error that is not fatal the next call
   * goes on with the next frame.
   */
  next(): Incoming | null {
    const head = new Reader(
      this.#data.subarray(this.#start, Math.min(this.#end, this.#start + LENGTH_BYTES_MAX)),
    );
    const available = head.left;
    let length: number;
    try {
      length = head.narrow(32);
    } catch {
      if (head.left > 0 || available === LENGTH_BYTES_MAX) {
        throw new DecodeError('bad_length', 'the frame length is not a varint of at most 5 bytes');
      }
      return null;
    }
    if (length > FRAME_BYTES_MAX) {
      throw new DecodeError('too_large', `frame of ${length} bytes, at most ${FRAME_BYTES_MAX} are allowed`);
    }
    const from = this.#start + available - head.left;
    if (from + length > this.#end) return null;
    this.#start = from + length;
    const payload = this.#data.subarray(from, this.#start);
    if (this.#start === this.#end) {
      // An idle connection keeps no buffer.
      this.#data = new Uint8Array(0);
      this.#start = this.#end = 0;
    }
    return decodePayload(payload, this.#wide);
  }
}

function decodePayload(payload: Uint8Array, wide: boolean): Incoming {
  const reader = new Reader(payload);
  let number: number;
  let flags: number;
  let request: number | null = null;
  try {
    number = reader.narrow(32);
    flags = reader.byte();
    if (flags & ~(CRITICAL | REQUEST)) throw new BytesError('a reserved flag is set');
    if (flags & REQUEST) request = reader.u64();
  } catch (error) {
    throw new DecodeError('header', `the frame header is malformed: ${(error as Error).message}`);
  }
  const known = BY_NUMBER.get(number);
  if (!known) {
    if (flags & CRITICAL) {
      throw new DecodeError('unknown_critical', `unknown frame type ${number} is marked critical`, request);
    }
    return { skipped: number };
  }
  const [type, body] = known;
  try {
    const frame = { type, ...body.read(reader) } as Frame;
    if (reader.left > 0) throw new BytesError(`${reader.left} bytes too many`);
    if (reader.wide && !wide) throw new BytesError('a number is above 2^53 - 1');
    return { request, frame };
  } catch (error) {
    throw new DecodeError('body', `malformed ${type}: ${(error as Error).message}`, request);
  }
}

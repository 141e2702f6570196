// Identifiers: their text and binary forms, their rules, and how those of conversations derive.
import { utf8 } from './codec/bytes.js';
import { DEVICE_ID_BYTES_MAX, USER_ID_BYTES_MAX } from './generated/limits.js';
import { sha256 } from './sha256.js';

/**
 * A user: 1–128 bytes of UTF-8 in composed form (NFC), without control characters, invisible ones and spaces
 * but ordinary ones inside, not starting with `c:` or `C:`.
 */
export type UserId = string;
/** One installation of a client: 1–64 bytes. */
export type DeviceId = string;
/** A conversation: `c:` and 26 characters of base32. */
export type ConversationId = string;
/** A UUID that the sender of a change makes up; the same change retried has the same one. */
export type TempId = string;
/** A UUID that the server gives an entry. */
export type EntryId = string;
/** A UUID that names one life of a message store. */
export type StoreId = string;
/** A user, or a conversation if it starts with `c:`. */
export type Target = string;

const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567';
const ID_BYTES = 16;

/** A text is not an identifier. */
export class IdError extends Error {}

const check = (what: string, max: number) => (text: string) => {
  const bytes = utf8(text).length;
  if (bytes < 1 || bytes > max) {
    throw new IdError(`${what} must be 1 to ${max} bytes of UTF-8, this one has ${bytes}`);
  }
  if (/\p{Cc}|\p{Cs}/u.test(text)) throw new IdError(`${what} must not contain control characters`);
  return text;
};

/** The device id, if it is one. */
export const checkDevice = check('a device id', DEVICE_ID_BYTES_MAX);

const checkUserText = check('a user id', USER_ID_BYTES_MAX);

/** What shows nothing, turns the direction of writing, or is a space where an id has none. */
const UNSEEN = /\p{Default_Ignorable_Code_Point}|[\u2028\u2029\u2800\ufff9-\ufffb]|(?! )\s|^ | $/u;

/** The user id in the form in which it is compared, if it is one. */
export function checkUser(text: string): UserId {
  if (isConversation(text)) {
    throw new IdError('a user id must not start with "c:" or "C:", which mark conversation ids');
  }
  const user = checkUserText(composed(text));
  if (UNSEEN.test(user)) {
    throw new IdError('a user id must not contain invisible characters, special spaces or spaces at an edge');
  }
  return user;
}

/** One of all the ways to write the same letters. */
const composed = (text: string): string => text.normalize('NFC');

/** The text is written like a conversation id, which a user id never is. */
export const isConversation = (text: string): boolean => /^c:/i.test(text);

/** The id stands for a user who was erased: nobody can be reached under it. */
export const isErased = (user: UserId): boolean => user.startsWith('erased:');

/** The target, in the form in which ids are compared. */
export const checkTarget = (text: string): Target =>
  isConversation(text) ? checkConversation(text) : checkUser(text);

/** The conversation id in small letters, if it is one. */
export const checkConversation = (text: string): ConversationId =>
  conversationOfBytes(bytesOfConversation(text));

export function conversationOfBytes(bytes: Uint8Array): ConversationId {
  let text = 'c:';
  let bits = 0;
  let value = 0;
  for (const byte of bytes) {
    value = ((value << 8) | byte) & 0xfff;
    for (bits += 8; bits >= 5; bits -= 5) text += BASE32[(value >> (bits - 5)) & 31];
  }
  return text + BASE32[(value << (5 - bits)) & 31];
}

export function bytesOfConversation(text: ConversationId): Uint8Array {
  const bytes = new Uint8Array(ID_BYTES);
  let at = 0;
  let bits = 0;
  let value = 0;
  for (const letter of text.slice(2).toLowerCase()) {
    value = ((value << 5) | BASE32.indexOf(letter)) & 0xfff;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      bytes[at++] = value >> bits;
    }
  }
  // Checks the letters and the two bits that do not count as well.
  if (text.length !== 28 || !isConversation(text) || conversationOfBytes(bytes) !== text.toLowerCase()) {
    throw new IdError('a conversation id must be "c:" and 26 base32 characters (a-z, 2-7)');
  }
  return bytes;
}

const hex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

export const uuidOfBytes = (bytes: Uint8Array): string =>
  hex(bytes).replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');

export function bytesOfUuid(text: string): Uint8Array {
  const digits = text.replaceAll('-', '');
  if (!/^[\da-f]{32}$/i.test(digits)) {
    throw new IdError('not a UUID such as 0190c7a2-5f2e-7c3d-9a41-3f6b2d8e1c05');
  }
  return Uint8Array.from({ length: ID_BYTES }, (_, at) =>
    Number.parseInt(digits.slice(2 * at, 2 * at + 2), 16),
  );
}

/** A fresh UUID of version 4. */
export function freshUuid(): string {
  // Not randomUUID, which exists in secure contexts only.
  const bytes = crypto.getRandomValues(new Uint8Array(ID_BYTES));
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
  return uuidOfBytes(bytes);
}

/** The conversation of two users, in either order; the same user twice: notes to oneself. */
export function pairOf(one: UserId, other: UserId): ConversationId {
  const [a, b] = [utf8(composed(one)), utf8(composed(other))];
  return derive('pair', ...(hex(a) <= hex(b) ? [a, b] : [b, a]));
}

/** The group that `creator` made with `tempId`. */
export const groupOf = (creator: UserId, tempId: TempId): ConversationId =>
  derive('group', utf8(composed(creator)), bytesOfUuid(tempId));

/** The conversation meant when `me` names this target. */
export const conversationOf = (target: Target, me: UserId): ConversationId =>
  isConversation(target) ? target : pairOf(me, target);

function derive(...parts: [string, ...Uint8Array[]]): ConversationId {
  const [domain, ...rest] = parts;
  const input: number[] = [];
  for (const part of [utf8(domain), ...rest]) input.push(0, 0, part.length >> 8, part.length & 0xff, ...part);
  return conversationOfBytes(sha256(Uint8Array.from(input)).subarray(0, ID_BYTES));
}

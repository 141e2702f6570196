// The changes a client can make to a conversation: frames that carry a tempId. Pure.

import { utf8 } from '../codec/bytes.js';
import { refused, type TernError } from '../errors.js';
import { GROUP_FULL, INVALID_ARGUMENT, TEXT_EMPTY, TEXT_TOO_LONG } from '../generated/codes.js';
import type { Frame, Send } from '../generated/frames.js';
import { GROUP_MEMBERS_MAX, NAME_BYTES_MAX, TEXT_BYTES_MAX } from '../generated/limits.js';
import {
  type ConversationId,
  checkTarget,
  checkUser,
  conversationOf,
  groupOf,
  type Target,
  type UserId,
} from '../ids.js';

/** A frame that changes a conversation. */
export type Change = Extract<
  Frame,
  {
    type:
      | 'send'
      | 'create_group'
      | 'add_members'
      | 'remove_members'
      | 'leave_group'
      | 'rename_group'
      | 'set_role';
  }
>;

/** Half of a surrogate pair as `JSON.stringify` writes it; other letters it writes as they are. */
const HALF_PAIR = /(?<!\\)(?:\\\\)*\\ud/;

/** What the server would refuse by its fixed limits, before it is queued; ids throw by themselves. */
export function problemOf(change: Change): TernError | null {
  if ('to' in change) checkTarget(change.to);
  if ('conversation' in change) checkTarget(change.conversation);
  if ('user' in change) checkUser(change.user);
  const users = 'members' in change ? change.members : 'users' in change ? change.users : [];
  if (users.length > GROUP_MEMBERS_MAX) {
    return refused(GROUP_FULL, `${users.length} users of at most ${GROUP_MEMBERS_MAX}`);
  }
  users.forEach(checkUser);
  if (change.type === 'send') return problemOfMessage(change);
  if (!('name' in change)) return null;
  if (change.name === '') return refused(INVALID_ARGUMENT, 'name: is empty');
  return problemOfText('name', change.name, NAME_BYTES_MAX, INVALID_ARGUMENT);
}

function problemOfMessage({ text, data, replyTo }: Send): TernError | null {
  const json = data === null ? '' : jsonOf(data);
  if (json === null) return refused(INVALID_ARGUMENT, 'data: is no JSON value');
  if (HALF_PAIR.test(json)) return refused(INVALID_ARGUMENT, 'data: half of a surrogate pair');
  if (replyTo !== null && !(Number.isSafeInteger(replyTo) && replyTo > 0)) {
    return refused(INVALID_ARGUMENT, `replyTo: ${replyTo} is not a seq`);
  }
  if (text + json === '') return refused(TEXT_EMPTY, 'text: is empty');
  return problemOfText('text', text, TEXT_BYTES_MAX - utf8(json).length, TEXT_TOO_LONG);
}

function problemOfText(what: string, text: string, max: number, tooLong: number): TernError | null {
  // Such text has no UTF-8 form: it would arrive as something else.
  if (/\p{Cs}/u.test(text)) return refused(INVALID_ARGUMENT, `${what}: half of a surrogate pair`);
  const bytes = utf8(text).length;
  return bytes > max ? refused(tooLong, `${what}: ${bytes} bytes of at most ${max}`) : null;
}

/** The JSON text of a value; null if it has none, or means nothing. */
function jsonOf(data: unknown): string | null {
  try {
    const text = JSON.stringify(data) as string | undefined;
    return text === undefined || text === 'null' ? null : text;
  } catch {
    return null;
  }
}

/** A change that stays as it is, whatever the application does with its `data` meanwhile. */
export function settled(change: Change): Change {
  if (change.type !== 'send' || change.data === null) return change;
  return { ...change, data: JSON.parse(JSON.stringify(change.data)) };
}

/** The conversation it changes. */
export function queueOf(change: Change, me: UserId): ConversationId {
  if (change.type === 'send') return conversationOf(change.to, me);
  return change.type === 'create_group' ? groupOf(me, change.tempId) : change.conversation;
}

/** Where it goes, as the application said it; a new group has no id before the user is known. */
export function targetOf(change: Change, me: UserId | null): Target | null {
  if (change.type === 'send') return change.to;
  if (change.type === 'create_group') return me === null ? null : groupOf(me, change.tempId);
  return change.conversation;
}

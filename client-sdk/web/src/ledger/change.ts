// The changes a client can make to a conversation: frames that carry a tempId. Pure.

import { utf8 } from '../codec/bytes.js';
import { refused, type TernError } from '../errors.js';
import { GROUP_FULL, INVALID_ARGUMENT, TEXT_EMPTY, TEXT_TOO_LONG } from '../generated/codes.js';
import type { Frame } from '../generated/frames.js';
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

/** What the server would refuse by its fixed limits, before it is queued; ids throw by themselves. */
export function problemOf(change: Change): TernError | null {
  const long = (what: string, text: string, max: number, empty: number, over: number) => {
    const bytes = utf8(text).length;
    // Such text has no UTF-8 form: it would arrive as something else.
    if (/\p{Cs}/u.test(text)) return refused(INVALID_ARGUMENT, `${what}: half of a surrogate pair`);
    if (!bytes) return refused(empty, `${what}: is empty`);
    return bytes > max ? refused(over, `${what}: ${bytes} bytes of at most ${max}`) : null;
  };
  if ('to' in change) checkTarget(change.to);
  if ('conversation' in change) checkTarget(change.conversation);
  if ('user' in change) checkUser(change.user);
  const users = 'members' in change ? change.members : 'users' in change ? change.users : [];
  if (users.length > GROUP_MEMBERS_MAX) {
    return refused(GROUP_FULL, `${users.length} users of at most ${GROUP_MEMBERS_MAX}`);
  }
  users.forEach(checkUser);
  if ('text' in change) return long('text', change.text, TEXT_BYTES_MAX, TEXT_EMPTY, TEXT_TOO_LONG);
  if ('name' in change) {
    return long('name', change.name, NAME_BYTES_MAX, INVALID_ARGUMENT, INVALID_ARGUMENT);
  }
  return null;
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

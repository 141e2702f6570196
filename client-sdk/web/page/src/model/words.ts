// Everything the page says in words: times, entries, states and errors. Pure.
import { Code, type Entry, type State, TernError, type UserId } from '../sdk.js';

const utf8 = new TextEncoder();
const count = new Intl.NumberFormat('en');

/** How many bytes a text takes as UTF-8. */
export const bytesOf = (text: string): number => utf8.encode(text).length;

/** A number with separators. */
export const number = (value: number): string => count.format(value);

/** "1 message", "2 messages". */
export const plural = (value: number, one: string, more = `${one}s`): string =>
  `${number(value)} ${value === 1 ? one : more}`;

/** What stands where no text is: it was erased with its sender, or the message is data for another application. */
export const ERASED_TEXT = 'This message was erased.';
export const NO_TEXT = 'This message has no text.';

/** What a user is called. */
export type NameOf = (user: UserId) => string;

const clock = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: 'long' });
const day = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });
const dayOfYear = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'long', year: 'numeric' });
const shortDay = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });

const DAY_MS = 24 * 3600 * 1000;
const midnight = (ms: number): number => new Date(ms).setHours(0, 0, 0, 0);
/** Days between two times by the calendar; rounded, since some days have 23 or 25 hours. */
const daysBetween = (ms: number, now: number): number => Math.round((midnight(now) - midnight(ms)) / DAY_MS);

export const timeOf = (ms: number): string => clock.format(ms);
export const fullTimeOf = (ms: number): string => full.format(ms);
export const sameDay = (a: number, b: number): boolean => midnight(a) === midnight(b);

/** The day above its messages. */
export function dayOf(ms: number, now: number): string {
  const days = daysBetween(ms, now);
  if (days === 0) return 'Today';
  if (days === 1) return 'Yesterday';
  return new Date(ms).getFullYear() === new Date(now).getFullYear() ? day.format(ms) : dayOfYear.format(ms);
}

/** When something was, in a few letters. */
export function briefly(ms: number, now: number): string {
  const days = daysBetween(ms, now);
  if (days <= 0) return clock.format(ms);
  if (days === 1) return 'Yesterday';
  if (days < 7) return weekday.format(ms);
  return shortDay.format(ms);
}

/** When somebody was last here. */
export function lastSeen(ms: number | null, now: number): string {
  if (ms === null) return 'offline';
  const minutes = Math.floor((now - ms) / 60_000);
  if (minutes < 1) return 'last seen just now';
  if (minutes < 60) return `last seen ${plural(minutes, 'minute')} ago`;
  if (sameDay(ms, now)) return `last seen at ${clock.format(ms)}`;
  return `last seen ${briefly(ms, now)}, ${clock.format(ms)}`;
}

/** "Ann", "Ann and Bo", "Ann, Bo and 3 others". */
export function listOf(users: readonly UserId[], nameOf: NameOf, most = 3): string {
  const shown = users.slice(0, users.length > most ? most - 1 : most).map(nameOf);
  const rest = users.length - shown.length;
  if (rest > 0) shown.push(plural(rest, 'other'));
  const last = shown.pop();
  return shown.length > 0 ? `${shown.join(', ')} and ${last}` : (last ?? 'nobody');
}

/** What an entry that is no message says; `me` is called "you". */
export function happened({ sender, body }: Entry, me: UserId, nameOf: NameOf): string {
  const name: NameOf = (user) => (user === me ? 'you' : nameOf(user));
  const who = sender === me ? 'You' : nameOf(sender);
  switch (body.kind) {
    case 'message':
      return body.text || NO_TEXT;
    case 'erased':
      return ERASED_TEXT;
    case 'opaque':
      return 'This app is too old to show this.';
    case 'created': {
      const others = body.members.filter((member) => member !== sender);
      return `${who} made the group “${body.name}”${others.length > 0 ? ` with ${listOf(others, name, 6)}` : ''}`;
    }
    case 'added':
      return `${who} added ${listOf(body.users, name, 6)}`;
    case 'removed':
      return `${who} removed ${listOf(body.users, name, 6)}`;
    case 'left':
      return `${body.user === me ? 'You' : nameOf(body.user)} left`;
    case 'renamed':
      return `${who} named the group “${body.name}”`;
    case 'roleChanged': {
      const role = body.role === 'member' ? 'a member' : body.role === 'admin' ? 'an admin' : 'an owner';
      return `${body.user === me ? 'You are' : `${nameOf(body.user)} is`} now ${role}`;
    }
  }
}

/** The one line about an entry in the list of conversations. */
export function preview(entry: Entry, me: UserId, group: boolean, nameOf: NameOf): string {
  const { body, sender } = entry;
  const said = happened(entry, me, nameOf);
  if (body.kind !== 'message' && body.kind !== 'erased') return said;
  const text = said.slice(0, 200).replace(/\s+/gu, ' ').trim();
  if (sender === me) return `You: ${text}`;
  return group ? `${nameOf(sender)}: ${text}` : text;
}

/** The state of the connection, in a word or two. */
export function brief(state: State): string {
  switch (state.state) {
    case 'connecting':
      return 'Connecting…';
    case 'online':
    case 'degraded':
      return 'Connected';
    case 'offline':
      return 'Offline';
    case 'draining':
      return 'Moving…';
    case 'closed':
      return 'Stopped';
  }
}

/** Why there is no connection: for people first, then as the client put it. */
export function cause(state: State, deviceOnline: boolean): { headline: string; detail: string } {
  const detail =
    state.state === 'offline' ? state.cause : state.state === 'closed' ? state.error.message : '';
  if (state.state === 'closed') return { headline: stopped(state.error), detail };
  if (!deviceOnline) return { headline: 'This device is offline.', detail };
  return { headline: lost(detail), detail };
}

function stopped(error: TernError): string {
  if (error.code === Code.SESSION_REPLACED)
    return 'This chat was opened too often: a newer tab took its place.';
  if (error.kind === 'token' || (error.code ?? 0) === Code.TOKEN_EXPIRED) return 'Your sign-in has ended.';
  if (error.code === Code.TOKEN_INVALID) return 'The server does not accept this sign-in.';
  return 'The chat has stopped.';
}

const CAUSES: readonly (readonly [RegExp, string])[] = [
  [/^the application cut the link/, 'You cut the link. It will heal by itself.'],
  [/^420\d/, 'The server is restarting.'],
  [/^4300/, 'Too many requests; the server asks for a pause.'],
  [/^4301/, 'The server is full at the moment.'],
  [/^4302/, 'This connection was too slow for what arrived.'],
  [/^4304/, 'The server cannot reach its store.'],
  [/^410\d|^no token/, 'A new sign-in is needed; asking for one.'],
  [/^nothing was heard/, 'The server does not answer any more.'],
  [/^no session within/, 'The server did not answer in time.'],
];

function lost(detail: string): string {
  return CAUSES.find(([pattern]) => pattern.test(detail))?.[1] ?? 'The server cannot be reached.';
}

/** Why something did not work. */
export function wentWrong(error: unknown): string {
  if (!(error instanceof TernError)) return error instanceof Error ? error.message : String(error);
  switch (error.code) {
    case Code.TEXT_TOO_LONG:
      return 'The message is too long.';
    case Code.TEXT_EMPTY:
      return 'The message is empty.';
    case Code.NOT_FOUND:
      return 'You are not a member of this conversation.';
    case Code.FORBIDDEN:
      return 'Your role in this group does not allow that.';
    case Code.BLOCKED:
      return 'You block this person. Unblock them first, in the details.';
    case Code.UNREACHABLE:
      return 'This person cannot be reached.';
    case Code.GROUP_FULL:
      return 'The group is full.';
    case Code.RATE_LIMITED:
      return 'Too fast. Try again in a moment.';
  }
  if (error.kind === 'closed') return 'The chat has stopped.';
  if (error.kind === 'expired') return 'It could not be sent for a day and was given up.';
  if (error.kind === 'full') return 'Too many messages are waiting to be sent.';
  if (error.kind === 'timeout') return 'The server did not answer in time.';
  return error.message;
}

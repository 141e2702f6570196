// What the application is told, in order.
import type { TernError } from './errors.js';
import type { ConversationSummary, Entry, SendAck, UserPresence } from './generated/frames.js';
import type { ConversationId, StoreId, Target, TempId, UserId } from './ids.js';

/** How a session reaches the server. */
export type Transport = 'webtransport' | 'websocket';

/** Whether there is a session, and what stands in the way if there is none. */
export type State =
  /** The first attempt since the start, or a reconnect that does not wait. */
  | { state: 'connecting' }
  /** A session is open. */
  | { state: 'online'; transport: Transport }
  /** A session is open over the fallback; `cause` says why, for people. */
  | { state: 'degraded'; transport: Transport; cause: string }
  /** No session; the next attempt starts at `retryAtMs` (Unix milliseconds). */
  | { state: 'offline'; cause: string; retryAtMs: number }
  /** The server is going away; the session is open and a new one is being prepared. */
  | { state: 'draining'; transport: Transport }
  /** The client has stopped for good. */
  | { state: 'closed'; error: TernError };

/** A message that was accepted for sending and is not resolved. */
export interface Echo {
  tempId: TempId;
  to: Target;
  text: string;
  /** The JSON value beside the text; null: none. */
  data: unknown;
  /** The seq of the entry it answers. */
  replyTo: number | null;
  /** When it was accepted, Unix milliseconds by the own clock. */
  createdMs: number;
  /** It was accepted by an earlier life of the application. */
  restored: boolean;
}

/** The events by name. */
export interface Events {
  /**
   * The next entry of a conversation: every entry once, in the order of its seq, own messages
   * included (those carry their `tempId`). When the listeners have returned it counts as confirmed,
   * unless `confirm` is `'manual'`.
   */
  entry: { conversation: ConversationId; entry: Entry };
  /**
   * Entries `from` to `to` are not handed out; the next one is `to + 1`. They were too many to send
   * (history has them), or the user was not a member then (history does not).
   */
  gap: { conversation: ConversationId; from: number; to: number };
  /**
   * A user was erased: their messages before `seq` have become entries of the kind `erased`, and their
   * id stands for nobody. Drop what is kept of the earlier entries and read what is shown again with
   * `history`. May come more than once.
   */
  erased: { conversation: ConversationId; seq: number };
  /** A message was accepted and is on its way: show it as pending. */
  echo: Echo;
  /** A message or change is durable. Its entry comes at its place in the log. */
  sent: SendAck;
  /** A message or change failed for good. `to` is null only for a group that was never made. */
  sendFailed: { tempId: TempId; to: Target | null; error: TernError };
  /** Presence of watched users: those that changed, or all of them after `watchPresence`. */
  presence: UserPresence[];
  /** A member is typing. Show it for some 5 s unless it is repeated. */
  typing: { conversation: ConversationId; user: UserId };
  /**
   * The user has read up to here, on another device or by writing (this client included). `messages` is
   * the number of messages in the log up to there: those of a later entry less these are unread.
   */
  read: { conversation: ConversationId; seq: number; messages: number };
  /** The user has blocked somebody on another device, or does not block them any more. */
  blockChanged: { user: UserId; blocked: boolean };
  /** Conversations that changed since this client was last here, most recently changed first. */
  conversations: ConversationSummary[];
  /** The state of the connection changed. */
  state: State;
  /** The server speaks for another store than before: its data was wiped or restored. Logs start anew. */
  storeChanged: { old: StoreId; new: StoreId };
  /**
   * The server's log of a conversation (null: of all) ends before the entries handed out. What the
   * server has is handed out anew.
   */
  resync: { conversation: ConversationId | null };
  /** State could not be saved, or was found damaged when it was loaded. */
  persistence: { problem: string };
  /** The server sent something that cannot be read or makes no sense. It had no effect. */
  problem: { detail: string; code: number };
}

/** One event with its name. */
export type Event = { [Name in keyof Events]: { name: Name; value: Events[Name] } }[keyof Events];

// The package: everything an application may use.
export { type Anchor, type Client, connect, type Sending, type Stats, start } from './client.js';
export type { Config } from './config.js';
export { type CodeClass, classOf, type ErrorKind, TernError } from './errors.js';
export type { Echo, Events, State, Transport } from './events.js';
export { Code } from './generated/codes.js';
export type {
  BlockedUser,
  ConversationKind,
  ConversationPage,
  ConversationSummary,
  Entry,
  EntryBody,
  GroupLeft,
  Limits,
  MemberInfo,
  Page,
  PresenceState,
  Role,
  SendAck,
  UserPresence,
  Welcome,
} from './generated/frames.js';
export {
  type ConversationId,
  type DeviceId,
  type EntryId,
  isErased,
  pairOf,
  type StoreId,
  type Target,
  type TempId,
  type UserId,
} from './ids.js';
export type { Persistence, SavedChange, SavedSend, SavedState, SavedTransport } from './saved.js';
export type { RenewToken, TokenReason } from './tokens.js';

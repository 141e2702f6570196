// What outlives a client, and the promises of whatever keeps it.
import type { Transport } from './events.js';
import type { ConversationId, DeviceId, StoreId, Target, TempId, UserId } from './ids.js';

/** A message that was accepted and is not resolved. */
export interface SavedSend {
  /** Its id, the same for every attempt. */
  tempId: TempId;
  to: Target;
  text: string;
  /** The JSON value beside the text; null: none. */
  data: unknown;
  /** The seq of the entry it answers. */
  replyTo: number | null;
  /** When it was accepted, Unix milliseconds. */
  createdMs: number;
}

/** Everything that is kept for one user. */
export interface SavedState {
  /** Whose state it is. */
  user: UserId | null;
  /** The store that the cursors belong to. */
  storeId: StoreId | null;
  device: DeviceId | null;
  /** The seq of the last confirmed entry of each conversation. */
  cursors: [ConversationId, number][];
  /** Unresolved messages in the order they were accepted. */
  sends: SavedSend[];
  /** The transport that won the last race on this network, and when (Unix milliseconds). */
  transport: SavedTransport | null;
}

/** The winner of a race, and why the preferred transport lost, if it did. */
export interface SavedTransport {
  network: string;
  transport: Transport;
  cause: string | null;
  timeMs: number;
}

/** One change of the saved state. */
export type SavedChange =
  | { kind: 'device'; device: DeviceId }
  /** Whose state it is and which store its cursors belong to. */
  | { kind: 'store'; user: UserId; storeId: StoreId }
  /** The last confirmed entry of a conversation; a lower one than is saved changes nothing. */
  | { kind: 'cursor'; conversation: ConversationId; seq: number }
  /** A conversation's cursor does not hold any more. */
  | { kind: 'cursorDropped'; conversation: ConversationId }
  /** A message was accepted. */
  | { kind: 'send'; send: SavedSend }
  /** A message is durable at the server, or failed for good. */
  | { kind: 'resolved'; tempId: TempId }
  /** A race was won. */
  | { kind: 'transport'; transport: SavedTransport };

/** Keeps the state of one user over restarts. Calls come one after the other. */
export interface Persistence {
  /**
   * Everything saved so far. Called once, first. `adopt` is called later with messages of clients
   * that are gone and left them unresolved; they are this client's from then on.
   */
  load(adopt: (sends: SavedSend[]) => void): Promise<SavedState>;
  /**
   * Applies changes in order, all or none. When it resolves they are kept: the client then counts
   * a message as accepted and an entry as confirmed.
   */
  save(changes: SavedChange[]): Promise<void>;
  /** The client stops and calls nothing any more. */
  close(): void;
}

/** The state of somebody who was never here. */
export const emptyState = (): SavedState => ({
  user: null,
  storeId: null,
  device: null,
  cursors: [],
  sends: [],
  transport: null,
});

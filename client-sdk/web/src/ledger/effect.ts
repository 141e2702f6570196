// What the ledger wants done; the driver does it in this order.
import type { Envelope } from '../codec/frames.js';
import type { TernError } from '../errors.js';
import type { Event } from '../events.js';
import type { ErrorFrame, Frame, SendAck } from '../generated/frames.js';
import type { ConversationId, TempId } from '../ids.js';
import type { SavedChange } from '../saved.js';

/** What came of a question: a frame, a refusal, or the end of its ledger. */
export type Answer = { frame: Frame } | { error: ErrorFrame } | 'offline';

/** One thing to do. */
export type Effect =
  /** Send this on the current link. */
  | { do: 'send'; envelope: Envelope }
  /** Tell the application. */
  | { do: 'emit'; event: Event }
  /** Drop queued entries and confirmations of this conversation (null: of all). */
  | { do: 'forget'; conversation: ConversationId | null }
  /** Tell whoever waits for this change. */
  | { do: 'resolved'; tempId: TempId; result: SendAck | TernError }
  | { do: 'save'; change: SavedChange }
  | { do: 'answer'; question: number; answer: Answer }
  /** The token of the live session was refused with this code. */
  | { do: 'reauth'; code: number }
  /** The sync was refused for good: the link is of no use. */
  | { do: 'syncRefused'; error: ErrorFrame }
  /** The sync of the current link is complete. */
  | { do: 'synced' };

// Unresolved changes: one queue per conversation, go-back-N within a queue. Pure.
//
// In a queue the first `sent` changes are in flight, in order. A temporary refusal of one takes it and
// everything after it back; after the wait they are sent again in the same order. So a later change
// never overtakes an unresolved one, whatever the server refuses.
import type { ErrorFrame, Fetch, Frame, Page, SendAck } from '../generated/frames.js';
import { PAGE_ENTRIES_MAX } from '../generated/limits.js';
import type { ConversationId, TempId, UserId } from '../ids.js';
import { type Change, queueOf } from './change.js';

/** Changes older than this are looked for in the log instead of being sent again: 24 h. */
const RESEND_AGE_MS_MAX = 24 * 3600 * 1000;
/** Wait after the first temporary refusal that has no hint; it doubles with each further one. */
const HOLD_MS_FIRST = 200;
/** Longest such wait. */
const HOLD_MS_MAX = 30_000;
/** Most pages read in one search; what is not in them counts as not there (10,000 entries). */
const PAGES_MAX = 50;
/** The clocks of client and server, and the way between them, may differ by this much: 15 min. */
const MARGIN_MS = 15 * 60 * 1000;

/** A change that is neither durable nor refused. */
interface Pending {
  readonly change: Change;
  readonly createdMs: number;
  /** Its conversation, once the user is known. */
  conversation: ConversationId | null;
  /** An attempt has been made, in this life or perhaps in one before. */
  tried: boolean;
  /** It may leave: it is saved, or nothing is ever saved. */
  saved: boolean;
  /** Request of the attempt in flight in this session. */
  attempt: number | null;
}

interface Queue {
  changes: Pending[];
  /** So many from the front are in flight. */
  sent: number;
  /** Most in flight: halved by a temporary refusal, plus one with each ack. */
  window: number;
  /** Temporary refusals since the last ack. */
  refusals: number;
  holdUntil: number;
  /** The search of the log for old changes: where it is, and the request of the page awaited. */
  lookup: { before: number | null; pages: number; request: number | null } | null;
}

/** Something to send now: an attempt of a change, or a page of the log to look for old ones. */
export type Step = { attempt: Change; frame: Frame } | { search: ConversationId; frame: Frame };

/** What a page of the search settled. */
export interface Searched {
  found: SendAck[];
  lost: Change[];
}

/** All unresolved changes of the client. */
export class Sends {
  #pending = new Map<TempId, Pending>();
  #queues = new Map<ConversationId, Queue>();
  #me: UserId | null = null;
  #inFlight = 0;
  #inFlightMax = 1;
  /** Server clock minus ours, in ms. */
  #skewMs = 0;

  has(tempId: TempId): boolean {
    return this.#pending.has(tempId);
  }

  get size(): number {
    return this.#pending.size;
  }

  get changes(): Change[] {
    return [...this.#pending.values()].map(({ change }) => change);
  }

  add(change: Change, createdMs: number, saved: boolean, tried: boolean): void {
    const pending = { change, createdMs, conversation: null, tried, saved, attempt: null };
    this.#pending.set(change.tempId, pending);
    if (this.#me !== null) this.#route(pending, this.#me);
  }

  #route(pending: Pending, me: UserId): void {
    pending.conversation = queueOf(pending.change, me);
    const queue = this.#queues.get(pending.conversation);
    if (queue) queue.changes.push(pending);
    else this.#queues.set(pending.conversation, this.#fresh([pending]));
  }

  #fresh(changes: Pending[]): Queue {
    return { changes, sent: 0, window: this.#inFlightMax, refusals: 0, holdUntil: 0, lookup: null };
  }

  saved(tempId: TempId): void {
    const pending = this.#pending.get(tempId);
    if (pending) pending.saved = true;
  }

  /** A session is open: everything is sent again from the front of each queue. */
  open(me: UserId, inFlightMax: number, skewMs: number): void {
    this.#inFlightMax = Math.max(1, inFlightMax);
    this.#skewMs = skewMs;
    if (this.#me === null) {
      this.#me = me;
      // Accepted before the user was known, in order.
      for (const pending of this.#pending.values()) this.#route(pending, me);
    }
    this.offline();
  }

  /** The session has ended: nothing is in flight. */
  offline(): void {
    this.#inFlight = 0;
    for (const pending of this.#pending.values()) pending.attempt = null;
    for (const [conversation, queue] of this.#queues)
      this.#queues.set(conversation, this.#fresh(queue.changes));
  }

  /** The next thing to send, if any, to be sent under this request id. */
  next(now: number, request: number): Step | null {
    for (const [conversation, queue] of this.#queues) {
      const step = this.#nextIn(conversation, queue, now, request);
      if (step) {
        // To the end: the others have their turn first.
        this.#queues.delete(conversation);
        this.#queues.set(conversation, queue);
        return step;
      }
    }
    return null;
  }

  #nextIn(conversation: ConversationId, queue: Queue, now: number, request: number): Step | null {
    if (queue.holdUntil > now) return null;
    queue.holdUntil = 0;
    const pending = queue.changes[queue.sent];
    if (!pending?.saved) return null;
    if (expired(pending, now)) {
      // Those ahead are resolved first; then the log is searched for all old ones at once.
      if (queue.sent > 0) return null;
      queue.lookup ??= { before: null, pages: 0, request: null };
      if (queue.lookup.request !== null) return null;
      queue.lookup.request = request;
      const { before } = queue.lookup;
      const fetch: Fetch = { conversation, before, after: null, around: null, limit: PAGE_ENTRIES_MAX };
      return { search: conversation, frame: { type: 'fetch', ...fetch } };
    }
    if (queue.sent >= queue.window || this.#inFlight >= this.#inFlightMax) return null;
    const ageMs = pending.tried ? Math.max(1, now - pending.createdMs) : 0;
    pending.tried = true;
    pending.attempt = request;
    queue.sent++;
    this.#inFlight++;
    const { change } = pending;
    return { attempt: change, frame: change.type === 'send' ? { ...change, ageMs } : change };
  }

  /** A change is durable; null if it was not pending (any more). */
  acked(tempId: TempId): Change | null {
    const queue = this.#queueFor(tempId);
    const change = this.remove(tempId);
    if (queue) {
      queue.refusals = 0;
      queue.window = Math.min(queue.window + 1, this.#inFlightMax);
    }
    return change;
  }

  /**
   * The server refused an attempt (`request` null: whichever is in flight). Gives the change if that
   * is final; null if it will be sent again, or if the answer is to an attempt that does not count any more.
   */
  refused(
    tempId: TempId,
    request: number | null,
    error: ErrorFrame,
    again: boolean,
    now: number,
  ): Change | null {
    const pending = this.#pending.get(tempId);
    const attempt = pending?.attempt ?? null;
    if (!pending || attempt === null || (request !== null && attempt !== request)) return null;
    if (!again) return this.remove(tempId);
    const queue = this.#queueFor(tempId);
    const index = queue?.changes.indexOf(pending) ?? -1;
    if (!queue || index < 0) return null;
    for (const later of queue.changes.slice(index, queue.sent)) {
      later.attempt = null;
      this.#inFlight--;
    }
    queue.sent = index;
    queue.window = Math.max(1, queue.window >> 1);
    hold(queue, error.retryAfterMs, now);
    return null;
  }

  #queueFor(tempId: TempId): Queue | undefined {
    const pending = this.#pending.get(tempId);
    return pending?.conversation ? this.#queues.get(pending.conversation) : undefined;
  }

  /** Takes a change out of its queue. */
  remove(tempId: TempId): Change | null {
    const pending = this.#pending.get(tempId);
    if (!pending) return null;
    const queue = this.#queueFor(tempId);
    this.#pending.delete(tempId);
    if (queue && pending.conversation) {
      const index = queue.changes.indexOf(pending);
      queue.changes.splice(index, 1);
      if (index < queue.sent) {
        queue.sent--;
        this.#inFlight--;
      }
      if (queue.changes.length === 0) this.#queues.delete(pending.conversation);
    }
    return pending.change;
  }

  /** A page of the search for old changes: those found, with their acks, and those given up. */
  searched(page: Page, request: number, now: number): Searched {
    const { conversation, entries, firstSeq } = page;
    const queue = this.#queues.get(conversation);
    const lookup = queue?.lookup;
    if (!queue || lookup?.request !== request) return { found: [], lost: [] };
    const found: SendAck[] = [];
    for (const { seq, id, timeMs, messages, sender, tempId } of entries) {
      if (tempId === null || sender !== this.#me || this.#queueFor(tempId) !== queue) continue;
      this.acked(tempId);
      found.push({
        tempId,
        conversation,
        seq,
        id,
        timeMs,
        messages,
        duplicate: true,
        recipientUnknown: false,
      });
    }
    lookup.request = null;
    lookup.pages++;
    const last = entries.at(-1);
    lookup.before = last?.seq ?? null;
    const old = queue.changes.filter((pending) => expired(pending, now)).map(({ createdMs }) => createdMs);
    const done =
      !last ||
      last.timeMs + MARGIN_MS < Math.min(...old) + this.#skewMs ||
      last.seq <= firstSeq ||
      lookup.pages >= PAGES_MAX;
    return { found, lost: done ? this.#giveUp(conversation, now) : [] };
  }

  /** The search was refused: waits, or gives up if it will always be refused. */
  searchRefused(conversation: ConversationId, error: ErrorFrame, again: boolean, now: number): Change[] {
    if (!again) return this.#giveUp(conversation, now);
    const queue = this.#queues.get(conversation);
    if (queue) {
      queue.lookup = null;
      hold(queue, error.retryAfterMs, now);
    }
    return [];
  }

  #giveUp(conversation: ConversationId, now: number): Change[] {
    const queue = this.#queues.get(conversation);
    if (!queue) return [];
    queue.lookup = null;
    const lost = queue.changes.filter((pending) => expired(pending, now)).map(({ change }) => change);
    for (const { tempId } of lost) this.remove(tempId);
    return lost;
  }

  /** When `next` may have something that it does not have now. */
  wakeAt(): number {
    return Math.min(...[...this.#queues.values()].map((queue) => queue.holdUntil || Infinity));
  }
}

const expired = ({ createdMs }: Pending, now: number): boolean => now - createdMs > RESEND_AGE_MS_MAX;

function hold(queue: Queue, hintMs: number | null, now: number): void {
  const doubled = Math.min(HOLD_MS_FIRST * 2 ** Math.min(queue.refusals, 10), HOLD_MS_MAX);
  queue.refusals++;
  queue.holdUntil = now + Math.max(1, hintMs ?? doubled);
}

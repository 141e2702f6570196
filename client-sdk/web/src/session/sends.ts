// Unresolved changes: one lane per conversation, go-back-N within a lane. Pure.
//
// In a lane the first `sent` changes are in flight, in order. A temporary refusal of one takes it and
// everything after it back; after the wait they are sent again in the same order. So a later change
// never overtakes an unresolved one, whatever the server refuses.
import type { ErrorFrame, Fetch, Frame, Page, SendAck } from '../generated/frames.js';
import { PAGE_ENTRIES_MAX } from '../generated/limits.js';
import type { ConversationId, TempId, UserId } from '../ids.js';
import { type Change, laneOf } from './change.js';

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
  lane: ConversationId | null;
  /** An attempt has been made, in this life or perhaps in one before. */
  tried: boolean;
  /** It may leave: it is saved, or nothing is ever saved. */
  saved: boolean;
  /** Request of the attempt in flight in this session. */
  attempt: number | null;
}

interface Lane {
  queue: Pending[];
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
  #lanes = new Map<ConversationId, Lane>();
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
    const pending = { change, createdMs, lane: null, tried, saved, attempt: null };
    this.#pending.set(change.tempId, pending);
    if (this.#me !== null) this.#route(pending, this.#me);
  }

  #route(pending: Pending, me: UserId): void {
    pending.lane = laneOf(pending.change, me);
    const lane = this.#lanes.get(pending.lane);
    if (lane) lane.queue.push(pending);
    else this.#lanes.set(pending.lane, this.#fresh([pending]));
  }

  #fresh(queue: Pending[]): Lane {
    return { queue, sent: 0, window: this.#inFlightMax, refusals: 0, holdUntil: 0, lookup: null };
  }

  saved(tempId: TempId): void {
    const pending = this.#pending.get(tempId);
    if (pending) pending.saved = true;
  }

  /** A session is open: everything is sent again from the front of each lane. */
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
    for (const [conversation, lane] of this.#lanes) this.#lanes.set(conversation, this.#fresh(lane.queue));
  }

  /** The next thing to send, if any, to be sent under this request id. */
  next(now: number, request: number): Step | null {
    for (const [conversation, lane] of this.#lanes) {
      const step = this.#nextIn(conversation, lane, now, request);
      if (step) {
        // To the end: the others have their turn first.
        this.#lanes.delete(conversation);
        this.#lanes.set(conversation, lane);
        return step;
      }
    }
    return null;
  }

  #nextIn(conversation: ConversationId, lane: Lane, now: number, request: number): Step | null {
    if (lane.holdUntil > now) return null;
    lane.holdUntil = 0;
    const pending = lane.queue[lane.sent];
    if (!pending?.saved) return null;
    if (expired(pending, now)) {
      // Those ahead are resolved first; then the log is searched for all old ones at once.
      if (lane.sent > 0) return null;
      lane.lookup ??= { before: null, pages: 0, request: null };
      if (lane.lookup.request !== null) return null;
      lane.lookup.request = request;
      const { before } = lane.lookup;
      const fetch: Fetch = { conversation, before, after: null, around: null, limit: PAGE_ENTRIES_MAX };
      return { search: conversation, frame: { type: 'fetch', ...fetch } };
    }
    if (lane.sent >= lane.window || this.#inFlight >= this.#inFlightMax) return null;
    const ageMs = pending.tried ? Math.max(1, now - pending.createdMs) : 0;
    pending.tried = true;
    pending.attempt = request;
    lane.sent++;
    this.#inFlight++;
    const { change } = pending;
    return { attempt: change, frame: change.type === 'send' ? { ...change, ageMs } : change };
  }

  /** A change is durable; null if it was not pending (any more). */
  acked(tempId: TempId): Change | null {
    const lane = this.#laneFor(tempId);
    const change = this.remove(tempId);
    if (lane) {
      lane.refusals = 0;
      lane.window = Math.min(lane.window + 1, this.#inFlightMax);
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
    const lane = this.#laneFor(tempId);
    const index = lane?.queue.indexOf(pending) ?? -1;
    if (!lane || index < 0) return null;
    for (const later of lane.queue.slice(index, lane.sent)) {
      later.attempt = null;
      this.#inFlight--;
    }
    lane.sent = index;
    lane.window = Math.max(1, lane.window >> 1);
    hold(lane, error.retryAfterMs, now);
    return null;
  }

  #laneFor(tempId: TempId): Lane | undefined {
    const pending = this.#pending.get(tempId);
    return pending?.lane ? this.#lanes.get(pending.lane) : undefined;
  }

  /** Takes a change out of its lane. */
  remove(tempId: TempId): Change | null {
    const pending = this.#pending.get(tempId);
    if (!pending) return null;
    const lane = this.#laneFor(tempId);
    this.#pending.delete(tempId);
    if (lane && pending.lane) {
      const index = lane.queue.indexOf(pending);
      lane.queue.splice(index, 1);
      if (index < lane.sent) {
        lane.sent--;
        this.#inFlight--;
      }
      if (lane.queue.length === 0) this.#lanes.delete(pending.lane);
    }
    return pending.change;
  }

  /** A page of the search for old changes: those found, with their acks, and those given up. */
  searched(page: Page, request: number, now: number): Searched {
    const { conversation, entries, firstSeq } = page;
    const lane = this.#lanes.get(conversation);
    const lookup = lane?.lookup;
    if (!lane || lookup?.request !== request) return { found: [], lost: [] };
    const found: SendAck[] = [];
    for (const { seq, id, timeMs, sender, tempId } of entries) {
      if (tempId === null || sender !== this.#me || this.#laneFor(tempId) !== lane) continue;
      this.acked(tempId);
      found.push({ tempId, conversation, seq, id, timeMs, duplicate: true, recipientUnknown: false });
    }
    lookup.request = null;
    lookup.pages++;
    const last = entries.at(-1);
    lookup.before = last?.seq ?? null;
    const old = lane.queue.filter((pending) => expired(pending, now)).map(({ createdMs }) => createdMs);
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
    const lane = this.#lanes.get(conversation);
    if (lane) {
      lane.lookup = null;
      hold(lane, error.retryAfterMs, now);
    }
    return [];
  }

  #giveUp(conversation: ConversationId, now: number): Change[] {
    const lane = this.#lanes.get(conversation);
    if (!lane) return [];
    lane.lookup = null;
    const lost = lane.queue.filter((pending) => expired(pending, now)).map(({ change }) => change);
    for (const { tempId } of lost) this.remove(tempId);
    return lost;
  }

  /** When `next` may have something that it does not have now. */
  wakeAt(): number {
    return Math.min(...[...this.#lanes.values()].map((lane) => lane.holdUntil || Infinity));
  }
}

const expired = ({ createdMs }: Pending, now: number): boolean => now - createdMs > RESEND_AGE_MS_MAX;

function hold(lane: Lane, hintMs: number | null, now: number): void {
  const doubled = Math.min(HOLD_MS_FIRST * 2 ** Math.min(lane.refusals, 10), HOLD_MS_MAX);
  lane.refusals++;
  lane.holdUntil = now + Math.max(1, hintMs ?? doubled);
}

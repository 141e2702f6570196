// All logs of the user: who has holes, when they are fetched, and what all logs share. Pure.
import type {
  ConversationSummary,
  Entry,
  ErrorFrame,
  Fetch,
  Page,
  Position,
  Sync,
} from '../generated/frames.js';
import { PAGE_ENTRIES_MAX, SYNC_CURSORS_MAX, SYNC_CURSORS_TOTAL_MAX } from '../generated/limits.js';
import type { ConversationId } from '../ids.js';
import { Log, type Out, type Room } from './log.js';

/** Entries that wait for earlier ones, over all conversations: at most 4 MiB; the rest is fetched in its turn. */
const EARLY_BYTES_MAX = 4 * 1024 * 1024;
/** A hole is given this long to close by itself: streams overtake each other all the time. */
const HOLE_WAIT_MS = 100;
/** Wait after a fetch that was refused without a hint or brought nothing. */
const FETCH_RETRY_MS = 500;
/** Most fetches of holes that are open at a time. */
const FETCHES_MAX = 4;
/** Fewest entries that a fetch asks for. */
const FETCH_ENTRIES_MIN = 16;

/** The logs. */
export class Logs {
  readonly logs = new Map<ConversationId, Log>();
  /** Conversations with something missing or waiting for room, and when to fetch it. */
  #holes = new Map<ConversationId, number>();
  readonly room: Room = { events: 0, earlyBytes: EARLY_BYTES_MAX };
  #fetchesOpen = 0;

  constructor(cursors: Iterable<readonly [ConversationId, number]>) {
    for (const [conversation, seq] of cursors) this.logs.set(conversation, new Log(this.room, seq));
  }

  /** Applies an input to one log and notes what is missing afterwards. */
  #apply(conversation: ConversationId, now: number, input: (log: Log, out: Out[]) => void): Out[] {
    const out: Out[] = [];
    let log = this.logs.get(conversation);
    if (!log) {
      log = new Log(this.room);
      this.logs.set(conversation, log);
    }
    log.touched = now;
    input(log, out);
    if (!log.wantsFetch) this.#holes.delete(conversation);
    else if (!this.#holes.has(conversation)) {
      // Nothing will say where a log starts that is new, unless a sync does.
      const wait = log.futile ? FETCH_RETRY_MS : log.handed === null ? 0 : HOLE_WAIT_MS;
      this.#holes.set(conversation, now + wait);
    }
    return out;
  }

  #due(conversation: ConversationId, at: number): void {
    if (this.#holes.has(conversation)) this.#holes.set(conversation, at);
  }

  offer(conversation: ConversationId, entries: Entry[], now: number): Out[] {
    return this.#apply(conversation, now, (log, out) => {
      for (const entry of entries) log.offer(entry, out);
    });
  }

  gap(conversation: ConversationId, from: number, to: number, now: number): Out[] {
    return this.#apply(conversation, now, (log, out) => log.gap(from, to, out));
  }

  /** The log reaches at least this far; `urgent`: what is missing does not come by itself. */
  hear(conversation: ConversationId, seq: number, urgent: boolean, now: number): void {
    this.#apply(conversation, now, (log) => log.hear(seq));
    if (urgent) this.#due(conversation, now);
  }

  /** A summary of the sync tells where the visible part starts and ends. */
  summary({ conversation, firstSeq, head, readSeq }: ConversationSummary, now: number): Out[] {
    return this.#apply(conversation, now, (log, out) => {
      log.readTo(readSeq);
      log.hear(head);
      log.startsAt(firstSeq, out);
    });
  }

  /** The page that a fetch asked for; false if the cursor does not hold. */
  page(page: Page, request: number, now: number): [Out[], boolean] {
    const { conversation } = page;
    let holds = true;
    this.#fetchesOpen = Math.max(0, this.#fetchesOpen - 1);
    this.#holes.delete(conversation);
    const out = this.#apply(conversation, now, (log, out) => {
      holds = log.page(page, request, out);
    });
    // More of the same hole does not come by itself.
    if (!this.logs.get(conversation)?.futile) this.#due(conversation, now);
    return [out, holds];
  }

  /** A fetch has no page. */
  fetchFailed(
    conversation: ConversationId,
    request: number,
    error: ErrorFrame,
    again: boolean,
    now: number,
  ): void {
    let ours = false;
    this.#fetchesOpen = Math.max(0, this.#fetchesOpen - 1);
    this.#apply(conversation, now, (log) => {
      ours = log.fetchFailed(request);
      if (ours && !again) log.forgetMissing();
    });
    if (ours) this.#due(conversation, now + (error.retryAfterMs ?? FETCH_RETRY_MS));
  }

  /** Something that waited for room and can be handed out now. */
  drain(now: number): [ConversationId, Out[]] | null {
    if (this.room.events > 0) {
      for (const conversation of this.#holes.keys()) {
        if (this.logs.get(conversation)?.ready) {
          return [conversation, this.#apply(conversation, now, (log, out) => log.drain(out))];
        }
      }
    }
    return null;
  }

  get #blocked(): boolean {
    return this.#fetchesOpen >= FETCHES_MAX || this.room.events <= 0;
  }

  /** The next fetch that is due, to be sent under this request id. */
  nextFetch(now: number, request: number): Fetch | null {
    if (this.#blocked) return null;
    for (const [conversation, due] of this.#holes) {
      const log = this.logs.get(conversation);
      if (due > now || !log?.wantsFetch) continue;
      this.#holes.delete(conversation);
      this.#fetchesOpen++;
      const limit = Math.min(Math.max(this.room.events, FETCH_ENTRIES_MIN), PAGE_ENTRIES_MAX);
      return { conversation, before: null, after: log.fetching(request), around: null, limit };
    }
    return null;
  }

  /** When `nextFetch` may have something that it does not have now. */
  wakeAt(): number {
    return this.#blocked ? Infinity : Math.min(...this.#holes.values());
  }

  /** The application confirmed; true if that is news about an entry that was handed out. */
  confirm({ conversation, seq }: Position): boolean {
    const log = this.logs.get(conversation);
    if (!log || (log.handed ?? -1) < seq || seq <= log.confirmed) return false;
    log.confirmed = seq;
    return true;
  }

  /** The session has ended. */
  offline(): void {
    this.#fetchesOpen = 0;
    for (const log of this.logs.values()) log.offline();
  }

  /** What this client has, in frames. */
  sync(): Sync[] {
    let known = [...this.logs].filter(([, { handed }]) => handed);
    if (known.length > SYNC_CURSORS_TOTAL_MAX) {
      // More are refused: those that changed last, as far as is known. Of the others the server tells anew.
      known = known.sort(([, a], [, b]) => b.touched - a.touched).slice(0, SYNC_CURSORS_TOTAL_MAX);
    }
    const cursors: Position[] = known.map(([conversation, { handed }]) => ({
      conversation,
      seq: handed as number,
    }));
    const frames: Sync[] = [];
    do {
      const part = cursors.splice(0, SYNC_CURSORS_MAX);
      frames.push({ cursors: part, more: cursors.length > 0 });
    } while (cursors.length > 0);
    return frames;
  }

  /** The cursor of one conversation does not hold: it starts from nothing. */
  reset(conversation: ConversationId, now: number): void {
    this.#apply(conversation, now, (log) => log.reset());
    this.#due(conversation, now);
  }

  /** No cursor holds: everything starts from nothing. Gives the conversations there were. */
  clear(): ConversationId[] {
    const gone = [...this.logs.keys()];
    for (const log of this.logs.values()) log.clearEarly();
    this.logs.clear();
    this.#holes.clear();
    this.#fetchesOpen = 0;
    return gone;
  }
}

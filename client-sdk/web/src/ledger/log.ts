// One conversation as this client has it: what was handed out, what waits, what is missing. Pure.
import type { Entry, Page } from '../generated/frames.js';
import { GAP_TAIL, GAP_WHOLE_MAX } from '../generated/limits.js';

/** Fetches in a row that find nothing of what was heard of, before it counts as not to be had. */
const FUTILE_MAX = 3;
/** What an entry costs in a buffer besides its texts, in bytes. */
const ENTRY_COST = 160;

/** What the application gets: an entry, or a part of the log that is left out. */
export type Out = { entry: Entry } | { from: number; to: number };

/** What is left of the limits that all logs share. */
export interface Room {
  /** Entries that the application has room for. */
  events: number;
  /** Bytes of entries that may wait for earlier ones. */
  earlyBytes: number;
}

/** A log. */
export class Log {
  /** Everything up to here was handed out or named in a gap; null: where the log starts is not known. */
  handed: number | null;
  /** The application confirmed everything up to here. */
  confirmed: number;
  /** The highest seq heard of. */
  heard: number;
  /** The user has read everything up to here, as far as is known. */
  #read = 0;
  /** When something was last heard of it; 0: not since the start. */
  touched = 0;
  /** Entries after the next one. */
  #early = new Map<number, Entry>();
  /** The open fetch, with `handed` and `heard` when it left: an older answer proves nothing newer. */
  #fetch: { request: number; handed: number; heard: number } | null = null;
  /** Fetches in a row that brought nothing. */
  futile = 0;
  /** The missing part found last is fetched whole up to here. */
  #until = 0;
  readonly #room: Room;

  constructor(room: Room, seq: number | null = null) {
    this.#room = room;
    this.handed = seq;
    this.confirmed = this.heard = seq ?? 0;
  }

  /** Something is missing, and no answer that may bring it is awaited. */
  get wantsFetch(): boolean {
    return !this.#fetch && this.heard > (this.handed ?? 0);
  }

  /** The next entry is here already and only waits for room. */
  get ready(): boolean {
    return this.handed !== null && this.#early.has(this.handed + 1);
  }

  hear(seq: number): void {
    this.heard = Math.max(this.heard, seq);
  }

  /** The user has read up to here; false if that is not news. */
  readTo(seq: number): boolean {
    if (seq <= this.#read) return false;
    this.#read = seq;
    return true;
  }

  /** The visible part starts here, as a summary says it. */
  startsAt(firstSeq: number, out: Out[]): void {
    if (this.handed !== null) return;
    this.#skipTo(Math.max(0, firstSeq - 1));
    this.drain(out);
  }

  /** An entry came, from wherever. */
  offer(entry: Entry, out: Out[]): void {
    this.hear(entry.seq);
    if (this.handed === null && entry.seq === 1) this.handed = 0;
    if (this.handed !== null && entry.seq <= this.handed) return;
    if (this.handed !== null && entry.seq === this.handed + 1 && this.#room.events > 0) {
      this.#handOut(entry, out);
      this.drain(out);
    } else if (!this.#early.has(entry.seq) && cost(entry) <= this.#room.earlyBytes) {
      this.#room.earlyBytes -= cost(entry);
      this.#early.set(entry.seq, entry);
    }
  }

  /** Hands out what waited for its turn or for room. */
  drain(out: Out[]): void {
    while (this.#room.events > 0 && this.handed !== null) {
      const entry = this.#early.get(this.handed + 1);
      if (!entry) return;
      this.#drop(entry);
      this.#handOut(entry, out);
    }
  }

  #handOut(entry: Entry, out: Out[]): void {
    this.#room.events--;
    this.#drop(entry);
    this.handed = entry.seq;
    out.push({ entry });
  }

  #drop(entry: Entry): void {
    const kept = this.#early.get(entry.seq);
    if (kept) this.#room.earlyBytes += cost(kept);
    this.#early.delete(entry.seq);
  }

  /**
   * The server left entries out. A gap that does not begin at the next entry only says how far the
   * log goes: what is before it must come first.
   */
  gap(from: number, to: number, out: Out[]): void {
    this.hear(to);
    if (this.handed !== null && (to <= this.handed || from > this.handed + 1)) return;
    out.push({ from: this.handed === null ? from : this.handed + 1, to });
    this.#skipTo(to);
    this.drain(out);
  }

  #skipTo(seq: number): void {
    this.handed = seq;
    for (const entry of this.#early.values()) if (entry.seq <= seq) this.#drop(entry);
  }

  /** A fetch of what is missing leaves, for entries after the given seq; see `page`. */
  fetching(request: number): number {
    const handed = this.handed ?? 0;
    this.#fetch = { request, handed, heard: this.heard };
    return handed;
  }

  /** The open fetch has no answer; false if it is not this one. */
  fetchFailed(request: number): boolean {
    if (this.#fetch?.request !== request) return false;
    this.#fetch = null;
    return true;
  }

  /** The session has ended; the next sync decides anew what is missing. */
  offline(): void {
    this.#fetch = null;
    this.#until = 0;
  }

  /** The answer to the open fetch; false if the server's log ends before what was handed out. */
  page(page: Page, request: number, out: Out[]): boolean {
    const open = this.#fetch;
    if (!open || !this.fetchFailed(request)) return true;
    if (page.head < open.handed) return false;
    this.hear(page.head);
    const before = this.handed;
    this.#bounds(page.firstSeq, page.head, out);
    for (const entry of [...page.entries].reverse()) this.offer(entry, out);
    this.drain(out);
    this.futile = this.handed === before && page.head < open.heard && !this.ready ? this.futile + 1 : 0;
    // Asked after the higher seq was heard of, the server still ends here: it is not for us.
    if (this.futile >= FUTILE_MAX) this.forgetMissing();
    return true;
  }

  /**
   * Decides by the rule of catching up what is skipped. A missing part that was once found small
   * enough is then fetched whole, however much the log grows meanwhile.
   */
  #bounds(firstSeq: number, head: number, out: Out[]): void {
    this.startsAt(firstSeq, out);
    const handed = this.handed ?? 0;
    if (handed < this.#until && firstSeq <= handed + 1) return;
    const from = Math.max(handed + 1, firstSeq);
    // Live entries have overtaken the page.
    if (from > head) return;
    this.#until = head;
    const skip = head - from < GAP_WHOLE_MAX ? from - 1 : head - GAP_TAIL;
    if (skip > handed) {
      out.push({ from: handed + 1, to: skip });
      this.#skipTo(skip);
      this.drain(out);
    }
  }

  /** What is missing is not to be had. */
  forgetMissing(): void {
    this.clearEarly();
    this.futile = 0;
    this.heard = this.handed ?? 0;
  }

  /** Starts from nothing. */
  reset(): void {
    this.clearEarly();
    this.handed = this.#fetch = null;
    this.confirmed = this.futile = this.#until = this.#read = 0;
  }

  clearEarly(): void {
    for (const entry of this.#early.values()) this.#drop(entry);
  }
}

function cost({ body }: Entry): number {
  if (body.kind === 'opaque') return ENTRY_COST + body.bytes.length;
  const texts =
    body.kind === 'message' ? body.text + JSON.stringify(body.data) : 'name' in body ? body.name : '';
  const users = 'members' in body ? body.members.length : 'users' in body ? body.users.length : 1;
  return ENTRY_COST + 3 * texts.length + 64 * users;
}

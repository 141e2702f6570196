// What the page holds of one conversation's log: some entries of many, and which to ask for next. Pure.
import type { Entry } from '../sdk.js';

/** Entries in one request. */
export const PAGE = 100;
/** Entries kept of one conversation; the ones farthest from the screen go first. */
export const KEPT_MAX = 4_000;
/** Newest entries that always stay: the list shows the last one, and "newest" is a jump away. */
const NEWEST_KEPT = 200;

/** A part of a log, both ends included. */
export interface Span {
  from: number;
  to: number;
}

/** Some entries of a log. Seqs are dense, so that a seq says where an entry stands. */
export class Log {
  private readonly entries = new Map<number, Entry>();
  /** First entry that this user may see. */
  first = 1;
  /** Newest entry heard of. */
  head = 0;

  get(seq: number): Entry | undefined {
    return this.entries.get(seq);
  }

  get size(): number {
    return this.entries.size;
  }

  /** Takes entries, in whatever order. */
  add(entries: readonly Entry[]): void {
    for (const entry of entries) {
      this.entries.set(entry.seq, entry);
      this.head = Math.max(this.head, entry.seq);
    }
  }

  /** Entries before this one have changed: they are asked for again. */
  forgetBefore(seq: number): void {
    for (const one of this.entries.keys()) if (one < seq) this.entries.delete(one);
  }

  /** Forgets everything: the log starts anew. */
  reset(): void {
    this.entries.clear();
    this.first = 1;
    this.head = 0;
  }

  /**
   * What to ask for so that everything in `seen` is there: the missing part nearest to its end
   * (`towards` 'old') or start ('new'), at most one page, in pages that are always the same ones.
   */
  missing(seen: Span): Span | null {
    const from = Math.max(seen.from, this.first);
    const to = Math.min(seen.to, this.head);
    for (let seq = to; seq >= from; seq--) {
      if (this.entries.has(seq)) continue;
      const page = Math.floor((seq - 1) / PAGE) * PAGE + 1;
      return { from: Math.max(page, this.first), to: Math.min(page + PAGE - 1, this.head) };
    }
    return null;
  }

  /** Forgets what is farthest from `middle`, if there is too much. */
  trim(middle: number): void {
    if (this.entries.size <= KEPT_MAX) return;
    const old = [...this.entries.keys()].filter((seq) => seq <= this.head - NEWEST_KEPT);
    old.sort((a, b) => Math.abs(b - middle) - Math.abs(a - middle));
    // A quarter at a time, so that this is rare.
    for (const seq of old.slice(0, KEPT_MAX / 4)) this.entries.delete(seq);
  }
}

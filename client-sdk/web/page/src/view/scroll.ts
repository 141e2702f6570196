// Where a long list stands: which rows are there, how high they are, and what holds still when that changes.
import type { Place } from '../model/conversation.js';
import { Heights } from '../model/heights.js';

/** What a row counts as before it was on the screen, in px. */
export const ROW_PX = 44;
/** How far beyond the screen rows are there, in px. */
const BEYOND_PX = 700;
/** Most rows that are there. */
export const ROWS_MAX = 200;
/** Without a scroll event for so long the scrolling has ended, in ms. */
const IDLE_MS = 150;
/** Closer to the end than this is at the end, in px. */
const END_PX = 8;

/** Rows by number, both ends included; empty if `last` is below `first`. */
export interface Range {
  first: number;
  last: number;
}

/**
 * A list of rows of unknown heights. One row is the anchor: it stays where it is on the screen
 * whatever becomes of the rows around it. At the end of the list the end is the anchor.
 */
export class Scroll {
  heights = new Heights(ROW_PX);
  /** The seq of row 0. */
  private base = 0;
  private atEnd = true;
  private anchor = { row: 0, offset: 0 };
  private scroller: HTMLElement | null = null;
  private rows: HTMLElement | null = null;
  private observer: ResizeObserver | null = null;
  /** Where the list was put last: a scroll event from there is no news. */
  private put = -1;
  /**
   * How much farther down the browser has scrolled than the heights say. Putting that right would
   * end a scrolling that goes on, so it waits until that has ended.
   */
  private drift = 0;
  private scrolledMs = Number.NEGATIVE_INFINITY;
  private idle: ReturnType<typeof setTimeout> | undefined;
  private readonly moved: () => void;

  /** `moved` is called when other rows are needed. */
  constructor(moved: () => void) {
    this.moved = moved;
  }

  attach(scroller: HTMLElement, rows: HTMLElement): void {
    this.scroller = scroller;
    this.rows = rows;
    this.observer = new ResizeObserver(() => this.settle());
    this.observer.observe(scroller);
    this.observer.observe(rows);
  }

  detach(): void {
    this.observer?.disconnect();
    clearTimeout(this.idle);
    this.scroller = this.rows = null;
  }

  get end(): boolean {
    return this.atEnd;
  }

  /** Where to go on another time; null: at the end. */
  get here(): Place | null {
    return this.atEnd ? null : { seq: this.base + this.anchor.row, offset: this.anchor.offset };
  }

  /** The list has so many rows, the first of them is entry `base`; the first time it goes to `place`. */
  shape(base: number, count: number, place: Place | null): void {
    if (base !== this.base && count > 0) {
      const here = this.base === 0 ? place : this.here;
      this.heights = new Heights(ROW_PX);
      this.base = base;
      this.atEnd = here === null;
      if (here) this.anchor = { row: Math.max(0, here.seq - base), offset: here.offset };
    }
    this.heights.resize(count);
  }

  toEnd(): void {
    this.atEnd = true;
    this.jump();
  }

  toStart(): void {
    this.atEnd = false;
    this.anchor = { row: 0, offset: 0 };
    this.jump();
  }

  private jump(): void {
    this.scrolledMs = Number.NEGATIVE_INFINITY;
    this.moved();
  }

  private get viewport(): number {
    return this.scroller?.clientHeight ?? 800;
  }

  /** Where the top of the screen is. */
  private get top(): number {
    const { heights, viewport, anchor } = this;
    const lowest = Math.max(0, heights.total - viewport);
    if (this.atEnd) return lowest;
    return Math.min(lowest, Math.max(0, heights.top(anchor.row) - anchor.offset));
  }

  /** The rows that must be there. */
  range(): Range {
    const { heights, top, viewport } = this;
    if (heights.count === 0) return { first: 0, last: -1 };
    const first = heights.at(top - BEYOND_PX);
    const last = heights.at(top + viewport + BEYOND_PX);
    return { first, last: Math.min(last, first + ROWS_MAX - 1) };
  }

  /** The rows on the screen. */
  visible(): Range {
    const { heights, top, viewport } = this;
    if (heights.count === 0) return { first: 0, last: -1 };
    return { first: heights.at(top), last: heights.at(Math.max(top, top + viewport - END_PX)) };
  }

  /** The user has scrolled. */
  scrolled(): void {
    const { scroller, heights } = this;
    if (!scroller || Math.abs(scroller.scrollTop - this.put) < 1) return;
    const top = Math.max(0, scroller.scrollTop - this.drift);
    const upwards = top < this.top;
    this.put = -1;
    this.scrolledMs = performance.now();
    clearTimeout(this.idle);
    this.idle = setTimeout(() => this.settle(), IDLE_MS + 10);
    this.atEnd = top + this.viewport >= heights.total - END_PX;
    const row = this.anchorAt(top, upwards);
    this.anchor = { row, offset: heights.top(row) - top };
    this.moved();
  }

  /**
   * The row to hold still: one that is really there, since a guess changes, and on the side where the
   * screen was before.
   */
  private anchorAt(top: number, upwards: boolean): number {
    const { heights } = this;
    const first = heights.at(top);
    const last = heights.at(top + this.viewport - 1);
    for (let step = 0; step <= last - first; step++) {
      const row = upwards ? last - step : first + step;
      if (heights.known(row)) return row;
    }
    return first;
  }

  /** Measures the rows that are there and puts everything in its place. */
  settle(): void {
    const { scroller, rows, heights } = this;
    if (!scroller || !rows || scroller.clientHeight === 0) return;
    // The browser has scrolled already and tells it later.
    if (this.put >= 0) this.scrolled();
    const list = [...rows.children] as HTMLElement[];
    for (const row of list) {
      if (row.dataset.absent === undefined) {
        heights.set(Number(row.dataset.row), row.getBoundingClientRect().height);
      }
    }
    const { total } = heights;
    const first = Number(list[0]?.dataset.row ?? 0);
    const { top } = this;
    if (top >= total - this.viewport - 1) this.atEnd = true;
    const scrolling = performance.now() - this.scrolledMs < IDLE_MS;
    this.drift = scrolling ? scroller.scrollTop - top : 0;
    const sizer = rows.parentElement as HTMLElement;
    sizer.style.height = `${Math.max(total, this.viewport) + this.drift}px`;
    // A short conversation lies at the bottom.
    rows.style.transform = `translateY(${Math.max(0, this.viewport - total) + heights.top(first) + this.drift}px)`;
    if (!scrolling && Math.abs(scroller.scrollTop - top) >= 1) scroller.scrollTop = top;
    this.put = scroller.scrollTop;
    const needed = this.range();
    const last = Number(list.at(-1)?.dataset.row ?? -1);
    const visible = this.visible();
    if (visible.first < first || visible.last > last || (last < 0 && needed.last >= 0)) this.moved();
  }
}

// The tabs of one user in one browser: each holds a lock while it lives, and one of them looks after what
// those that are gone left behind.
import { freshUuid } from '../ids.js';

/** What the names of locks and storage begin with. */
export interface Names {
  user: string;
  prefix: string;
}

/** A tab that is reloaded gets its own lock back within this time, in ms. */
const RELOAD_MS = 3_000;
/** How long a reloaded tab waits for the lock of its former self, in ms. */
const FORMER_MS = 1_000;

type Release = () => void;

/** This tab among the others. */
export class Tabs {
  /** Of this tab; a reload keeps it, so that its messages stay its own and in order. */
  id = '';
  readonly locks: LockManager | null = globalThis.navigator?.locks ?? null;
  readonly #prefix: string;
  readonly #leaving = new AbortController();
  readonly #channel: BroadcastChannel | null;
  #release: Release = () => {};
  readonly #watched = new Set<string>();

  constructor({ prefix }: Names) {
    this.#prefix = prefix;
    this.#channel = typeof BroadcastChannel === 'function' ? new BroadcastChannel(`${prefix}/tabs`) : null;
  }

  #lockOf(tab: string): string {
    return `${this.#prefix}/tab/${tab}`;
  }

  /** Takes the place of this tab. */
  async enter(): Promise<void> {
    const key = `${this.#prefix}/tab`;
    const storage = storageOfTab();
    const former = storage?.getItem(key);
    const held = former ? await this.#hold(this.#lockOf(former), { wait: FORMER_MS }) : null;
    // A tab that was duplicated has the storage of the first one, which lives.
    this.id = former && held ? former : freshUuid();
    this.#release = held ?? (await this.#hold(this.#lockOf(this.id), {})) ?? (() => {});
    storage?.setItem(key, this.id);
    this.#channel?.postMessage(this.id);
  }

  leave(): void {
    this.#leaving.abort();
    this.#channel?.close();
    this.#release();
  }

  /** Does `what` while it is certain that this tab is gone; not if it lives. */
  async ifGone(tab: string, what: () => Promise<unknown>): Promise<boolean> {
    const release = await this.#hold(this.#lockOf(tab), { wait: 0 });
    if (!release) return false;
    await what();
    release();
    return true;
  }

  /**
   * Waits, perhaps for long, to be the one that looks after the others; then `takeOver` is called for
   * each that goes. `owners` gives the tabs that have something to take over.
   */
  async lead(owners: () => Promise<string[]>, takeOver: (tab: string) => Promise<void>): Promise<void> {
    const release = await this.#hold(`${this.#prefix}/lead`, {});
    if (!release || !this.locks) return;
    this.#leaving.signal.addEventListener('abort', release);
    this.#channel?.addEventListener('message', ({ data }) => this.#watch(`${data}`, takeOver));
    const start = this.#lockOf('');
    const { held = [] } = await this.locks.query();
    const living = held.flatMap(({ name }) => (name?.startsWith(start) ? [name.slice(start.length)] : []));
    for (const tab of [...living, ...(await owners().catch(() => []))]) this.#watch(tab, takeOver);
  }

  async #watch(tab: string, takeOver: (tab: string) => Promise<void>): Promise<void> {
    if (tab === this.id || this.#watched.has(tab)) return;
    this.#watched.add(tab);
    for (let gone = false; !gone; ) {
      const release = await this.#hold(this.#lockOf(tab), {});
      if (!release) return;
      release();
      await new Promise((resolve) => setTimeout(resolve, RELOAD_MS));
      if (this.#leaving.signal.aborted) return;
      gone = await this.ifGone(tab, () => takeOver(tab)).catch(() => true);
    }
    this.#watched.delete(tab);
  }

  /** Gets a lock: at once (`wait` 0), within so many ms, or whenever. Null: not got. */
  #hold(name: string, { wait }: { wait?: number }): Promise<Release | null> {
    const { locks } = this;
    if (!locks || this.#leaving.signal.aborted) return Promise.resolve(null);
    return new Promise((resolve) => {
      const giveUp = new AbortController();
      const timer = wait ? setTimeout(() => giveUp.abort(), wait) : undefined;
      const abort = () => giveUp.abort();
      this.#leaving.signal.addEventListener('abort', abort);
      const granted = (lock: Lock | null) => {
        clearTimeout(timer);
        this.#leaving.signal.removeEventListener('abort', abort);
        if (!lock || this.#leaving.signal.aborted) return resolve(null);
        return new Promise<void>((release) => resolve(release));
      };
      const options = wait === 0 ? { ifAvailable: true } : { signal: giveUp.signal };
      locks.request(name, options, granted).catch(() => resolve(null));
    });
  }
}

/** Some settings forbid it. */
function storageOfTab(): Storage | null {
  try {
    return globalThis.sessionStorage ?? null;
  } catch {
    return null;
  }
}

// Saves changes one batch after the other, each with everything that gathered meanwhile.
import type { Persistence, SavedChange } from './saved.js';

/** Wait after the first save that failed, in ms; it doubles with each further one. */
const RETRY_MS_FIRST = 500;
/** Longest such wait. */
const RETRY_MS_MAX = 30_000;

/** What became of a batch: the messages in it that are kept, or those that could not be. */
export interface Outcome {
  saved: string[];
  notSaved: string[];
  problem: string | null;
}

/** The saver of one client. */
export class Saver {
  #queue: SavedChange[] = [];
  #running = false;
  #failures = 0;
  #retryAt = 0;
  #idle: (() => void)[] = [];
  readonly #persistence: Persistence | null;
  readonly #done: (outcome: Outcome) => void;

  constructor(persistence: Persistence | null, done: (outcome: Outcome) => void) {
    this.#persistence = persistence;
    this.#done = done;
  }

  get keeps(): boolean {
    return this.#persistence !== null;
  }

  push(change: SavedChange): void {
    if (this.#persistence) this.#queue.push(change);
  }

  /** Saves what waits, unless that goes on already. */
  start(now: number): void {
    if (!this.#persistence || this.#running || this.#queue.length === 0 || now < this.#retryAt) return;
    this.#running = true;
    const batch = this.#queue.splice(0);
    const sends = batch.flatMap((change) => (change.kind === 'send' ? [change.send.tempId] : []));
    this.#persistence.save(batch).then(
      () => {
        this.#failures = 0;
        this.#settle({ saved: sends, notSaved: [], problem: null });
      },
      (error) => {
        this.#retryAt = now + Math.min(RETRY_MS_MAX, RETRY_MS_FIRST * 2 ** Math.min(this.#failures++, 10));
        // A message that is not kept is not accepted; everything else is tried again.
        this.#queue.unshift(...batch.filter((change) => change.kind !== 'send'));
        this.#settle({
          saved: [],
          notSaved: sends,
          problem: `${error instanceof Error ? error.message : error}`,
        });
      },
    );
  }

  #settle(outcome: Outcome): void {
    this.#running = false;
    this.#done(outcome);
    if (!this.#running) for (const tell of this.#idle.splice(0)) tell();
  }

  wakeAt(): number {
    return this.#queue.length > 0 && !this.#running ? this.#retryAt : Infinity;
  }

  /** Everything that was pushed is kept, or a save has failed. */
  async flush(now: number): Promise<void> {
    for (let tries = 0; tries < 3; tries++) {
      this.start(now);
      if (!this.#running) return;
      await new Promise<void>((tell) => this.#idle.push(tell));
    }
  }
}

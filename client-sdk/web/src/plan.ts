// What to do when an attempt or a session has ended: the class of the code decides. Pure.
import { classOf, refused, TernError } from './errors.js';
import { HELLO_TIMEOUT, SESSION_REPLACED } from './generated/codes.js';
import type { TokenReason } from './tokens.js';

/** Refused tokens in a row after which the client stops. */
const TOKENS_REFUSED_MAX = 3;
/** A session that lived this long counts as a success: the back-off starts anew. In ms. */
const STABLE_MS = 10_000;
/** Longest hint of a server that is honoured, in ms: nobody means to send people away for days. */
const HINT_MS_MAX = 10 * 60 * 1000;

/** How an attempt or a session ended: the link broke, there was no token, or the server said why. */
export type Ending =
  | { lost: string }
  | { noToken: unknown }
  | { code: number; reason: string; retryAfterMs: number | null; target: string | null };

/** Another attempt, or the end of the client. */
export type Next =
  | { stop: TernError }
  | {
      waitMs: number;
      reason: TokenReason;
      /** Where the server sends us. */
      target: string | null;
      /** The cursors do not hold. */
      resync: boolean;
      /** For people. */
      cause: string;
    };

/** Counts failures. */
export class Plan {
  #failures = 0;
  #tokensRefused = 0;
  readonly #firstMs: number;
  readonly #maxMs: number;

  constructor(firstMs: number, maxMs: number) {
    this.#firstMs = firstMs;
    this.#maxMs = maxMs;
  }

  /** A session was opened. */
  opened(): void {
    this.#tokensRefused = 0;
  }

  /** What follows an ending, after a session of `livedMs` (0: there was none). `random` is in 0..1. */
  after(ending: Ending, livedMs: number, random: number): Next {
    if (livedMs >= STABLE_MS) this.#failures = 0;
    this.#failures++;
    const waitMs = this.#wait(random);
    const next = { waitMs, reason: { why: 'connect' } as TokenReason, target: null, resync: false };
    if ('lost' in ending) return { ...next, cause: ending.lost };
    if ('noToken' in ending) {
      const error = ending.noToken;
      if (error instanceof TernError && error.kind === 'token') return { stop: error };
      return { ...next, cause: `no token: ${error instanceof Error ? error.message : error}` };
    }
    const { code, reason, retryAfterMs, target } = ending;
    const hint = Math.min(retryAfterMs ?? 0, HINT_MS_MAX);
    const retry = { ...next, waitMs: hint + waitMs, target, cause: `${code}: ${reason}` };
    // "Now" is once: a server that closes each new session at once is not hammered.
    const soon = this.#failures > 1 ? retry.waitMs : hint;
    switch (classOf(code)) {
      case 'fix':
        // A stalled network makes a Hello late, not wrong.
        return code === HELLO_TIMEOUT ? retry : { stop: refused(code, reason) };
      case 'authenticate':
        // Coming back would drive out the session that drove out this one.
        if (code === SESSION_REPLACED || ++this.#tokensRefused >= TOKENS_REFUSED_MAX) {
          return { stop: refused(code, reason) };
        }
        return { ...retry, waitMs: soon, reason: { why: 'rejected', code } };
      case 'reconnect':
        return { ...retry, waitMs: soon };
      case 'resync':
        return { ...retry, waitMs: soon, resync: true };
      default:
        return retry;
    }
  }

  /** Full jitter: a random time below a ceiling that doubles with each failure. */
  #wait(random: number): number {
    return random * Math.min(this.#maxMs, this.#firstMs * 2 ** Math.min(this.#failures - 1, 31));
  }
}

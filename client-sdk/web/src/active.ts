// One open link as the driver has it: its pings, and when it counts as dead.
import { type Envelope, encode } from './codec/frames.js';
import type { Welcome } from './generated/frames.js';
import { FRAME_BYTES_MAX } from './generated/limits.js';
import type { Link } from './link/link.js';

/** Bytes that wait to be written; a link that gets there is stuck. */
const QUEUED_MAX = 16 * 1024 * 1024;
/** Above so many waiting bytes nothing optional is added (typing, acks). */
const QUEUED_BUSY = 64 * 1024;
/**
 * A link on which nothing was heard so long after something that has an answer is dead, in ms.
 * Browsers notice a dead server only after 15 to 21 s, and a lost network later still.
 */
const ANSWER_MS = 6_000;
/** While somebody looks at the page, pings go so many times as often as the server asks for. */
const WATCHED_PINGS = 4;

/** An open link. */
export class Active {
  readonly link: Link;
  readonly number: number;
  readonly welcome: Welcome;
  readonly openedMs: number;
  /** Requests for a token renewal on this link that were not granted. */
  reauths = 0;
  /** Time of the last ping and its answer, in ms. */
  rttMs: number | null = null;
  #sentMs: number;
  #heardMs: number;
  /** Since when an answer is owed. */
  #owedMs: number | null = null;
  /** A ping has left since something was heard. */
  #probed = false;
  #ping = { nonce: 0, atMs: 0 };

  constructor(link: Link, number: number, welcome: Welcome, now: number) {
    this.link = link;
    this.number = number;
    this.welcome = welcome;
    this.openedMs = this.#sentMs = this.#heardMs = now;
    this.probe(now);
  }

  /** Sends a frame; false if no link carries one that long. */
  send(envelope: Envelope, now: number): boolean {
    const lossy = envelope.frame.type === 'typing';
    if (lossy && this.busy) return true;
    const bytes = encode(envelope);
    if (bytes.length > FRAME_BYTES_MAX) return false;
    this.link.send(bytes, lossy);
    this.#sentMs = now;
    if (envelope.request !== null || envelope.frame.type === 'ping') this.#owedMs ??= now;
    return true;
  }

  /** Asks the other side for a sign of life. */
  probe(now: number): void {
    this.#probed = true;
    this.#ping = { nonce: this.#ping.nonce + 1, atMs: now };
    this.send({ request: null, frame: { type: 'ping', nonce: this.#ping.nonce } }, now);
  }

  heard(now: number): void {
    this.#heardMs = now;
    this.#owedMs = null;
    this.#probed = false;
  }

  ponged(nonce: number, now: number): void {
    if (nonce === this.#ping.nonce) this.rttMs = now - this.#ping.atMs;
  }

  get busy(): boolean {
    return this.link.queued > QUEUED_BUSY;
  }

  get #deadAt(): number {
    const deadAfter = Math.max(1, this.welcome.limits.deadAfterS) * 1000;
    return Math.min(this.#heardMs + deadAfter, this.#owedMs === null ? Infinity : this.#owedMs + ANSWER_MS);
  }

  get #pingAt(): number {
    const keepalive = Math.max(1, this.welcome.limits.keepaliveS) * 1000;
    const idle = this.#sentMs + keepalive / (watched() ? WATCHED_PINGS : 1);
    // A server that is slow with an answer is not dead: a ping it answers at once.
    return this.#owedMs === null || this.#probed ? idle : Math.min(idle, this.#owedMs + ANSWER_MS / 2);
  }

  /** Pings when it is time; says why, if the link is dead. */
  tick(now: number): string | null {
    if (now >= this.#deadAt)
      return `nothing was heard from the server for ${Math.round((now - this.#heardMs) / 1000)} s`;
    if (this.link.queued > QUEUED_MAX) return 'the connection takes no more data';
    if (now >= this.#pingAt) this.probe(now);
    return null;
  }

  wakeAt(): number {
    return Math.min(this.#deadAt, this.#pingAt);
  }

  /** Ends the link from this side. */
  goodbye(now: number): void {
    this.send(
      { request: null, frame: { type: 'close', code: 0, reason: '', retryAfterMs: null, target: null } },
      now,
    );
    this.link.close(0);
  }
}

/** Somebody looks at the page. */
const watched = (): boolean => globalThis.document?.visibilityState === 'visible';

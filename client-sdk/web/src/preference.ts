// Which transport is tried first: the one that won the last race on this network, for a while.
import type { Transport } from './events.js';
import type { SavedTransport } from './saved.js';

/** A fallback that won is preferred for this long; then the better transport is tried first again. In ms. */
const FALLBACK_MEMORY_MS = 10 * 60 * 1000;

/** Networks that a browser can tell from each other; most tell only that they are on some. */
const network = (): string =>
  (globalThis.navigator as { connection?: { type?: string } } | undefined)?.connection?.type ?? '';

/** What is remembered of the last race. */
export class Preference {
  #won: SavedTransport | null = null;

  /** What an earlier client remembered. */
  restore(saved: SavedTransport | null): void {
    this.#won = saved;
  }

  /** It may be another network, or what is remembered may not work any more. */
  forget(): void {
    this.#won = null;
  }

  first(now: number): Transport {
    const won = this.#won;
    return won && won.network === network() && now - won.timeMs < FALLBACK_MEMORY_MS
      ? won.transport
      : 'webtransport';
  }

  /**
   * A link is open; `fallback` says why a better transport lost to it, null if that was not tried.
   * Gives the reason to tell, if it is a fallback (`better`: there is a better one), and what to save.
   */
  opened(
    transport: Transport,
    fallback: string | null,
    better: boolean,
    now: number,
  ): { cause: string | null; save: SavedTransport | null } {
    const won = this.#won;
    const degraded = transport === 'websocket' && better;
    const known = won?.transport === transport && won.network === network() ? won : null;
    const cause = degraded ? (fallback ?? known?.cause ?? 'WebSocket was preferred') : null;
    // One that was only preferred, not tested, does not get younger.
    if (degraded && fallback === null && known) return { cause, save: null };
    this.#won = { network: network(), transport, cause, timeMs: now };
    return { cause, save: known?.cause !== cause || degraded || !known ? this.#won : null };
  }
}

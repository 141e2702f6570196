// A link: a WebTransport session or a WebSocket, as frames in and out.
import type { DecodeError, Envelope } from '../codec/frames.js';
import type { Transport } from '../events.js';

/** What a link brings. Nothing comes after `ended`. */
export interface Listener {
  frame(envelope: Envelope): void;
  /** One frame could not be read; the link goes on. */
  bad(error: DecodeError): void;
  /** The link has ended; the code is the peer's, if it gave one. */
  ended(code: number | null, reason: string): void;
}

/** An open link. */
export interface Link {
  readonly transport: Transport;
  /** Bytes that wait to be written. */
  readonly queued: number;
  /** Streams that are open; 1 where there are none. */
  readonly streams: number;
  /** Who is told from now on; null: what comes waits for the next one. */
  listen(listener: Listener | null): void;
  /** Writes a frame; `lossy`: it may be lost, so a datagram will do. */
  send(bytes: Uint8Array<ArrayBuffer>, lossy: boolean): void;
  /** Writes what waits, then ends the transport. */
  close(code: number): void;
}

/** Tells a listener, of what came before there was one as well, until the end. */
export class Inbox {
  #listener: Listener | null = null;
  #waiting: ((listener: Listener) => void)[] = [];
  #over = false;

  listen(listener: Listener | null): void {
    this.#listener = listener;
    // Any of them may make way for the next.
    while (this.#listener && this.#waiting.length > 0) this.#waiting.shift()?.(this.#listener);
  }

  tell(what: (listener: Listener) => void): void {
    if (this.#over) return;
    if (this.#listener) what(this.#listener);
    else this.#waiting.push(what);
  }

  end(code: number | null, reason: string): void {
    this.tell((listener) => listener.ended(code, reason));
    this.#over = true;
  }
}

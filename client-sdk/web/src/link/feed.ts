// From the bytes of a stream to the frames in it.
import { DecodeError, type Decoder } from '../codec/frames.js';
import type { Inbox } from './link.js';

/** Most frames of one link that cannot be read; then the other side is not worth listening to. */
const BAD_FRAMES_MAX = 20;

/** Reads the streams of one link. */
export class Feed {
  readonly #inbox: Inbox;
  #bad = 0;

  constructor(inbox: Inbox) {
    this.#inbox = inbox;
  }

  /** Bytes of a stream that has this decoder; `whole`: they end with a frame. False: the stream is over. */
  take(decoder: Decoder, bytes: Uint8Array, whole: boolean): boolean {
    decoder.push(bytes);
    for (;;) {
      try {
        const found = decoder.next();
        if (!found) {
          if (whole) decoder.finish();
          return true;
        }
        if ('frame' in found) this.#inbox.tell((listener) => listener.frame(found));
      } catch (error) {
        if (!(error instanceof DecodeError)) throw error;
        this.#inbox.tell((listener) => listener.bad(error));
        if (error.fatal || ++this.#bad >= BAD_FRAMES_MAX) {
          this.#inbox.end(null, `the server sent what cannot be read: ${error.message}`);
          return false;
        }
      }
    }
  }
}

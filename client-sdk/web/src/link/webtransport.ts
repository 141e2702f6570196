// A WebTransport session: a control stream, streams of the server, and datagrams.
import { Decoder } from '../codec/frames.js';
import { Feed } from './feed.js';
import { Inbox, type Link } from './link.js';

const SUBPROTOCOL = 'tern.v1';
/** First byte of a stream of the server, and the bytes of its header that follow. */
const KINDS: Record<number, number> = { 1: 16, 2: 0, 3: 0 };

/** Options and properties that not every browser and not every `lib.dom` has. */
type Options = WebTransportOptions & { protocols?: string[] };
type Session = WebTransport & {
  protocol?: string;
  datagrams: { createWritable?: () => WritableStream<Uint8Array>; writable?: WritableStream<Uint8Array> };
};

/** The browser has WebTransport. */
export const hasWebTransport = (): boolean => typeof WebTransport === 'function';

/** Opens a session, unless `signal` gives it up. */
export async function openWebTransport(
  url: URL,
  hashes: readonly Uint8Array<ArrayBuffer>[],
  signal: AbortSignal,
): Promise<Link> {
  const options: Options = { protocols: [SUBPROTOCOL] };
  if (hashes.length > 0) {
    options.serverCertificateHashes = hashes.map((value) => ({ algorithm: 'sha-256', value }));
  }
  const session = new WebTransport(url.href, options) as Session;
  const inbox = new Inbox();
  session.closed.then(
    ({ closeCode, reason }) =>
      inbox.end((closeCode ?? 0) >= 4000 ? (closeCode ?? 0) : null, reason || 'closed'),
    (error) => inbox.end(null, `the WebTransport session was lost: ${messageOf(error)}`),
  );
  const giveUp = () => session.close();
  signal.addEventListener('abort', giveUp);
  try {
    await session.ready;
    if (session.protocol) {
      if (session.protocol !== SUBPROTOCOL) throw new Error(`the server speaks ${session.protocol}`);
    }
    const control = await session.createBidirectionalStream();
    if (signal.aborted) throw new Error('given up');
    return new WebTransportLink(session, inbox, control);
  } catch (error) {
    giveUp();
    throw new Error(`WebTransport could not be opened: ${messageOf(error)}`);
  } finally {
    signal.removeEventListener('abort', giveUp);
  }
}

/** Without its full stop: it becomes a part of a sentence. */
const messageOf = (error: unknown): string =>
  ((error instanceof Error && error.message) || String(error)).replace(/\.$/, '');

class WebTransportLink implements Link {
  readonly transport = 'webtransport';
  queued = 0;
  streams = 1;
  readonly #session: Session;
  readonly #inbox: Inbox;
  readonly #feed: Feed;
  readonly #control: WritableStreamDefaultWriter<Uint8Array>;
  readonly #datagrams: WritableStreamDefaultWriter<Uint8Array> | null;

  constructor(session: Session, inbox: Inbox, control: WebTransportBidirectionalStream) {
    this.#session = session;
    this.#inbox = inbox;
    this.#feed = new Feed(inbox);
    this.#control = control.writable.getWriter();
    const { datagrams } = session;
    this.#datagrams = (datagrams.createWritable?.() ?? datagrams.writable)?.getWriter() ?? null;
    const decoder = new Decoder();
    this.#read(
      control.readable,
      (bytes) => this.#feed.take(decoder, bytes, false),
      () => inbox.end(null, 'the server ended the control stream'),
    );
    this.#read(session.incomingUnidirectionalStreams, (stream) => {
      this.#stream(stream);
      return true;
    });
    this.#read(datagrams.readable, (bytes) => {
      // Each is a whole frame, and says nothing of the next.
      this.#feed.take(new Decoder(), bytes, true);
      return true;
    });
  }

  listen(listener: Parameters<Link['listen']>[0]): void {
    this.#inbox.listen(listener);
  }

  send(bytes: Uint8Array<ArrayBuffer>, lossy: boolean): void {
    if (lossy && this.#datagrams) {
      this.#datagrams.write(bytes).catch(() => {});
      return;
    }
    this.queued += bytes.length;
    // The reading side says why a session has ended.
    this.#control.write(bytes).then(
      () => {
        this.queued -= bytes.length;
      },
      () => {},
    );
  }

  close(closeCode: number): void {
    const end = () => {
      // It may have ended by itself.
      try {
        this.#session.close({ closeCode, reason: '' });
      } catch {}
    };
    this.#control.ready.then(() => this.#control.close()).then(end, end);
  }

  /** A stream of the server: its kind, its header, then frames. */
  #stream(stream: ReadableStream<Uint8Array>): void {
    const decoder = new Decoder();
    let skip = -1;
    this.streams++;
    this.#read(
      stream,
      (bytes) => {
        let rest = bytes;
        if (skip < 0 && rest.length > 0) {
          const header = KINDS[rest[0] as number];
          // A stream of an unknown kind is of a later version: it is not read.
          if (header === undefined) return false;
          skip = header;
          rest = rest.subarray(1);
        }
        const head = Math.min(Math.max(0, skip), rest.length);
        skip -= head;
        return this.#feed.take(decoder, rest.subarray(head), false);
      },
      () => {
        this.streams--;
      },
    );
  }

  /** Reads a stream until it ends or `take` has enough of it. */
  async #read<T>(stream: ReadableStream<T>, take: (value: T) => boolean, ended = () => {}): Promise<void> {
    const reader = stream.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        if (!take(value)) {
          await reader.cancel();
          break;
        }
      }
    } catch {
      // What a lost stream held is fetched again; the end of the session is told by itself.
    }
    ended();
  }
}

// A server in the same process for clients in tests: a link whose other end the test holds.

import { Client } from '../../src/client.js';
import { Decoder, encode } from '../../src/codec/frames.js';
import { type Config, resolve } from '../../src/config.js';
import type { Frame, Welcome } from '../../src/generated/frames.js';
import { Feed } from '../../src/link/feed.js';
import { Inbox, type Link } from '../../src/link/link.js';
import { LIMITS } from './model.js';

/** The server's end of a link. */
export class Peer {
  readonly inbox = new Inbox();
  readonly got: (Frame & { request: number | null })[] = [];
  closed = false;
  private readonly feed = new Feed(this.inbox);
  private readonly decoder = new Decoder();

  get link(): Link {
    const incoming = new Decoder();
    return {
      transport: 'websocket',
      queued: 0,
      streams: 1,
      listen: (listener) => this.inbox.listen(listener),
      send: (bytes) => {
        incoming.push(bytes);
        for (let next = incoming.next(); next; next = incoming.next()) {
          if ('frame' in next) this.got.push({ request: next.request, ...next.frame });
        }
      },
      close: () => {
        this.closed = true;
      },
    };
  }

  send(frame: Frame, request: number | null = null): void {
    this.raw(encode({ request, frame }));
  }

  /** Bytes that need not be frames. */
  raw(bytes: Uint8Array): void {
    this.feed.take(this.decoder, bytes, true);
  }

  /** The last frame of this type that came. */
  last<Type extends Frame['type']>(
    type: Type,
  ): (Extract<Frame, { type: Type }> & { request: number | null }) | undefined {
    return this.got.filter((frame) => frame.type === type).at(-1) as never;
  }

  welcome(change: Partial<Welcome> = {}): void {
    this.send({
      type: 'welcome',
      session: 1,
      user: 'alice',
      name: null,
      device: 'd',
      storeId: '00000000-0000-7000-8000-000000000001',
      server: 'fake',
      features: 0,
      timeMs: Date.now(),
      tokenExpiresMs: Date.now() + 3_600_000,
      limits: LIMITS,
      ...change,
    });
  }

  /** Answers the last sync with nothing new. */
  synced(): void {
    this.send({ type: 'sync_end', changed: 0 }, this.last('sync')?.request ?? null);
  }
}

/** A client whose links end here; `peers` are the links it has opened. */
export function fakeClient(config: Partial<Config> = {}): { client: Client; peers: Peer[] } {
  const peers: Peer[] = [];
  const websocket = () => {
    const peer = new Peer();
    peers.push(peer);
    return Promise.resolve(peer.link);
  };
  const dialers = { websocket, webtransport: websocket, hasWebTransport: () => false };
  return { client: new Client(resolve({ url: 'http://fake', token: 't', ...config }), dialers), peers };
}

export const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

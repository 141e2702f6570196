// Who gets there first: the preferred transport has a head start, the first success wins.
import type { Addresses } from '../config.js';
import type { Transport } from '../events.js';
import type { Link } from './link.js';
import { openWebSocket } from './websocket.js';
import { hasWebTransport, openWebTransport } from './webtransport.js';

/** How transports are opened; tests have their own. */
export interface Dialers {
  webtransport(url: URL, signal: AbortSignal): Promise<Link>;
  websocket(url: URL, signal: AbortSignal): Promise<Link>;
  hasWebTransport(): boolean;
}

/** The real ones. */
export const dialers = (hashes: readonly Uint8Array<ArrayBuffer>[]): Dialers => ({
  webtransport: (url, signal) => openWebTransport(url, hashes, signal),
  websocket: openWebSocket,
  hasWebTransport,
});

/** An open link, and why the better transport was not used; null: it was, or was not tried. */
export interface Dialed {
  link: Link;
  fallback: string | null;
}

interface Runner {
  transport: Transport;
  open: (signal: AbortSignal) => Promise<Link>;
}

/** Opens a link; `first` has the head start. Losers are given up. */
export async function dial(
  dialers: Dialers,
  { webTransport, webSocket }: Addresses,
  first: Transport,
  headStartMs: number,
  signal: AbortSignal,
): Promise<Dialed> {
  const problems: string[] = [];
  const runners: Runner[] = [];
  if (webTransport && !dialers.hasWebTransport()) problems.push('this browser has no WebTransport');
  else if (webTransport) {
    runners.push({ transport: 'webtransport', open: (signal) => dialers.webtransport(webTransport, signal) });
  }
  if (webSocket)
    runners.push({ transport: 'websocket', open: (signal) => dialers.websocket(webSocket, signal) });
  if (first === 'websocket') runners.reverse();
  const link = await race(runners, headStartMs, signal, problems);
  const better =
    webTransport && link.transport === 'websocket' && (problems.length > 0 || first !== 'websocket');
  const late = `WebTransport was not there within ${headStartMs} ms, WebSocket was faster`;
  return { link, fallback: better ? (problems[0] ?? late) : null };
}

/** The first link that opens; the problems of those that failed before are collected. */
function race(
  runners: Runner[],
  headStartMs: number,
  signal: AbortSignal,
  problems: string[],
): Promise<Link> {
  return new Promise((resolve, reject) => {
    const givenUp = runners.map(() => new AbortController());
    let running = 0;
    let next = 0;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let over = false;
    const finish = (winner: number) => {
      over = true;
      clearTimeout(timer);
      givenUp.forEach((loser, index) => {
        if (index !== winner) loser.abort();
      });
    };
    const start = () => {
      clearTimeout(timer);
      const index = next++;
      const runner = runners[index];
      if (!runner) {
        if (running === 0) reject(new Error(problems.join('; ') || 'there is no transport to use'));
        return;
      }
      running++;
      if (next < runners.length) timer = setTimeout(start, headStartMs);
      runner.open((givenUp[index] as AbortController).signal).then(
        (link) => {
          if (over) return link.close(0);
          finish(index);
          resolve(link);
        },
        (error) => {
          running--;
          if (over) return;
          problems.push(error.message);
          if (running === 0) start();
        },
      );
    };
    signal.addEventListener('abort', () => {
      finish(-1);
      reject(new Error('given up'));
    });
    start();
  });
}

// What a client is told before it starts, checked and resolved.
import { TernError } from './errors.js';
import { checkDevice, type DeviceId, type IdError } from './ids.js';
import type { Persistence } from './saved.js';
import type { RenewToken } from './tokens.js';

/** Everything a client is told before it starts. */
export interface Config {
  /**
   * `https://host:port` of the server: WebTransport is tried there, WebSocket is the fallback.
   * `http://` means no TLS and therefore WebSocket only.
   */
  url?: string;
  /** `https://` URL for WebTransport, if it is not at `url`; null: WebTransport is not used. */
  webTransport?: string | null;
  /** `wss://` or `ws://` URL for WebSocket, if it is not at `url`; null: WebSocket is not used. */
  webSocket?: string | null;
  /**
   * SHA-256 of the server's certificate in DER form, as 64 hex digits (colons are allowed), for
   * WebTransport to a development server.
   */
  serverCertificateHashes?: readonly string[];
  /** A token. It is used until it expires or is refused; then `renewToken` is asked. */
  token?: string;
  /** Gives a new token. Without it the client stops when its token is refused. */
  renewToken?: RenewToken;
  /** This device. Default: the saved one, else a random one. */
  device?: DeviceId;
  /** Name and version of the application, for the server's logs; at most 128 bytes are kept. */
  agent?: string;
  /** Keeps cursors and pending sends over restarts, see `@tern/client/persist`. */
  persist?: Persistence;
  /** `'manual'`: entries count as confirmed only by `Client.confirm`. Default `'auto'`. */
  confirm?: 'auto' | 'manual';
  /** How long `connect` waits for the first session, in ms. Default 30,000. */
  connectTimeoutMs?: number;
  /** Longest time of one attempt, from the token to Welcome, in ms. Default 15,000. */
  attemptTimeoutMs?: number;
  /** Longest time of one question such as a page of history, retries included, in ms. Default 30,000. */
  requestTimeoutMs?: number;
  /** How long the preferred transport is tried alone, in ms. Default 250. */
  headStartMs?: number;
  /** Upper end of the first wait between attempts, in ms; it doubles with each. Default 250. */
  backoffFirstMs?: number;
  /** Upper end of the longest wait between attempts, in ms. Default 30,000. */
  backoffMaxMs?: number;
  /** Most changes that are neither durable nor refused. Default 1,000. */
  pendingMax?: number;
}

/** Where a server is. */
export interface Addresses {
  webTransport: URL | null;
  webSocket: URL | null;
}

/** The configuration with its defaults. */
export interface Resolved {
  addresses: Addresses;
  hashes: Uint8Array<ArrayBuffer>[];
  token: string | null;
  renewToken: RenewToken | null;
  device: DeviceId | null;
  agent: string;
  persist: Persistence | null;
  manual: boolean;
  connectTimeoutMs: number;
  attemptTimeoutMs: number;
  requestTimeoutMs: number;
  headStartMs: number;
  backoffFirstMs: number;
  backoffMaxMs: number;
  pendingMax: number;
}

const CONNECT_PATH = '/v1/connect';

const wrong = (problem: string): TernError => new TernError('config', problem);

/** The configuration with its defaults, or an error that says what is wrong with it. */
export function resolve(config: Config): Resolved {
  if (config.token === undefined && config.renewToken === undefined) {
    throw wrong('no token: set `token` or `renewToken`');
  }
  const numbers = {
    connectTimeoutMs: 30_000,
    attemptTimeoutMs: 15_000,
    requestTimeoutMs: 30_000,
    headStartMs: 250,
    backoffFirstMs: 250,
    backoffMaxMs: 30_000,
    pendingMax: 1_000,
  };
  for (const name of Object.keys(numbers) as (keyof typeof numbers)[]) {
    const value = config[name] ?? numbers[name];
    if (!(value > 0)) throw wrong(`${name}: must be a number above 0`);
    numbers[name] = value;
  }
  return {
    ...numbers,
    addresses: addressesOf(config),
    hashes: (config.serverCertificateHashes ?? []).map(hashOf),
    token: config.token ?? null,
    renewToken: config.renewToken ?? null,
    device: config.device === undefined ? null : named('device', () => checkDevice(config.device as string)),
    agent: config.agent ?? 'tern-web/0.1.0',
    persist: config.persist ?? null,
    manual: config.confirm === 'manual',
  };
}

function named<T>(name: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw wrong(`${name}: ${(error as IdError).message}`);
  }
}

function addressesOf({ url, webTransport, webSocket }: Config): Addresses {
  const base = url === undefined ? null : urlOf('url', url, ['https:', 'http:']);
  const secure = base?.protocol === 'https:' ? base.href : null;
  const socket = base?.href.replace(/^http/, 'ws') ?? null;
  const own = (name: string, text: string | null | undefined, fallback: string | null, schemes: string[]) => {
    const chosen = text === undefined ? fallback : text;
    return chosen === null ? null : urlOf(name, chosen, schemes);
  };
  const addresses = {
    webTransport: own('webTransport', webTransport, secure, ['https:']),
    webSocket: own('webSocket', webSocket, socket, ['wss:', 'ws:']),
  };
  if (!addresses.webTransport && !addresses.webSocket) throw wrong('no server address: set `url`');
  return addresses;
}

function urlOf(name: string, text: string, schemes: readonly string[]): URL {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw wrong(`${name} "${text}": is not a URL`);
  }
  if (!schemes.includes(url.protocol))
    throw wrong(`${name} "${text}": must begin with ${schemes.join('// or ')}//`);
  if (url.search) throw wrong(`${name}: must not have a query (tokens never go into URLs)`);
  if (url.pathname === '/') url.pathname = CONNECT_PATH;
  return url;
}

function hashOf(text: string): Uint8Array<ArrayBuffer> {
  const digits = text.trim().replaceAll(':', '');
  if (!/^[\da-f]{64}$/i.test(digits)) throw wrong('serverCertificateHashes: a SHA-256 is 64 hex digits');
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

/**
 * The same transports at the place that a server names: `host:port`, or the URL of a WebSocket.
 * Null if it cannot be read or would give up TLS.
 */
export function movedTo({ webTransport, webSocket }: Addresses, target: string): Addresses | null {
  try {
    if (target.includes('://')) {
      const url = urlOf('target', target, [webSocket?.protocol === 'ws:' ? 'ws:' : 'wss:', 'wss:']);
      return webSocket && { webTransport: null, webSocket: url };
    }
    if (!/^(\[[\da-f:]+\]|[\w.-]+):\d{1,5}$/i.test(target)) return null;
    const there = (url: URL | null) => url && new URL(`${url.protocol}//${target}${url.pathname}`);
    return { webTransport: there(webTransport), webSocket: there(webSocket) };
  } catch {
    return null;
  }
}

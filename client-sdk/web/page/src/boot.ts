// Where the server is and who the user is: what must be known before a chat starts.
import { type Client, type Config, indexedDb, start, type UserId } from './sdk.js';

/** What a node tells about itself, as far as the page uses it. */
interface Bootstrap {
  /** The best first. */
  endpoints: { transport: 'webtransport' | 'quic' | 'websocket'; url: string }[];
  /** Of a certificate made for development. */
  certificate_sha256: string | null;
}

async function answerOf(response: Response): Promise<unknown> {
  const body = await response.json().catch(() => null);
  if (response.ok) return body;
  const detail = (body as { detail?: string } | null)?.detail;
  throw new Error(detail ?? `the server answered ${response.status}`);
}

async function bootstrap(): Promise<Bootstrap> {
  return (await answerOf(await fetch('/v1/bootstrap'))) as Bootstrap;
}

/** A token of any user: development nodes give them out. */
export async function devToken(user: string): Promise<string> {
  const response = await fetch('/v1/dev/tokens', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ user, name: nameFor(user) }),
  });
  return ((await answerOf(response)) as { token: string }).token;
}

/** Whether this node gives out tokens. */
export async function isDev(): Promise<boolean> {
  // Without a body there is nothing to give; only a node that has the path says so.
  const response = await fetch('/v1/dev/tokens', { method: 'POST' }).catch(() => null);
  return response !== null && response.status !== 404;
}

const nameFor = (user: string): string => {
  const [first = '', ...rest] = user;
  return first.toLocaleUpperCase() + rest.join('');
};

/** The user of a token; null if it is none. The server is the one who checks it. */
export function userOf(token: string): string | null {
  try {
    const part = (token.split('.')[1] ?? '').replaceAll('-', '+').replaceAll('_', '/');
    const bytes = Uint8Array.from(atob(part), (letter) => letter.charCodeAt(0));
    const { sub } = JSON.parse(new TextDecoder().decode(bytes)) as { sub?: unknown };
    return typeof sub === 'string' && sub !== '' ? sub : null;
  } catch {
    return null;
  }
}

/** Tokens that were pasted stay in their tab and end with it. */
const KEPT = 'tern:token';

export const keptToken = (): string => sessionStorage.getItem(KEPT) ?? '';
export const keepToken = (token: string): void => sessionStorage.setItem(KEPT, token);
export const forgetToken = (): void => sessionStorage.removeItem(KEPT);

/**
 * Starts a client of this user, by their token or, where a node gives them out, without one. What is
 * pending is kept in this browser.
 */
export async function begin(user: UserId, token: string | null): Promise<Client> {
  const [{ endpoints, certificate_sha256 }, first] = await Promise.all([
    bootstrap(),
    token ?? devToken(user),
  ]);
  const renewal: Partial<Config> = token === null ? { renewToken: () => devToken(user) } : {};
  const urls = (wanted: string) =>
    endpoints.flatMap(({ transport, url }) => (transport === wanted ? [url] : []));
  // A browser takes a development certificate by its hash, which WebSocket has no way to name: without TLS then.
  const webSockets = urls('websocket');
  const plain = certificate_sha256 !== null ? webSockets.find((url) => url.startsWith('ws:')) : undefined;
  return start({
    ...renewal,
    token: first,
    webTransport: urls('webtransport')[0] ?? null,
    webSocket: plain ?? webSockets[0] ?? null,
    serverCertificateHashes: certificate_sha256 === null ? [] : [certificate_sha256],
    agent: 'tern-page',
    persist: indexedDb({ user }),
  });
}

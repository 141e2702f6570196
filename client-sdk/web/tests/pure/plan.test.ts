// What follows the end of a session, and who wins a race of transports.
import { expect, test, vi } from 'vitest';
import { movedTo, resolve } from '../../src/config.js';
import { TernError } from '../../src/errors.js';
import { Code } from '../../src/generated/codes.js';
import { type Dialers, dial } from '../../src/link/dial.js';
import type { Link } from '../../src/link/link.js';
import { type Ending, Plan } from '../../src/plan.js';

const closed = (code: number, retryAfterMs: number | null = null): Ending => ({
  code,
  reason: 'why',
  retryAfterMs,
  target: null,
});
const first = (ending: Ending) => new Plan(1_000, 8_000).after(ending, 0, 1);

test('the class of the code decides', () => {
  for (const code of [Code.UNSUPPORTED_VERSION, Code.MALFORMED, Code.SESSION_REPLACED]) {
    expect(first(closed(code))).toMatchObject({ stop: { kind: 'refused', code } });
  }
  expect(first(closed(Code.HELLO_TIMEOUT))).toMatchObject({ waitMs: 1_000 });
  expect(first(closed(Code.DRAINING))).toMatchObject({ waitMs: 0 });
  expect(first(closed(Code.OVER_CAPACITY, 5_000))).toMatchObject({ waitMs: 6_000 });
  expect(first(closed(4_999))).toMatchObject({ waitMs: 1_000 });
  expect(first(closed(Code.CURSOR_AHEAD))).toMatchObject({ waitMs: 0, resync: true });
  expect(first(closed(Code.TOKEN_EXPIRED))).toMatchObject({
    waitMs: 0,
    reason: { why: 'rejected', code: 4101 },
  });
});

test('a revoked token is replaced once its hint is over', () => {
  expect(first(closed(Code.TOKEN_REVOKED, 700))).toMatchObject({
    waitMs: 700,
    reason: { why: 'rejected', code: 4104 },
  });
  expect(first(closed(Code.SESSION_CLOSED))).toMatchObject({
    waitMs: 0,
    reason: { why: 'rejected', code: 4105 },
  });
});

test('a hostile hint does not send anybody away for days', () => {
  expect(first(closed(Code.OVER_CAPACITY, 2 ** 32 - 1))).toMatchObject({ waitMs: 601_000 });
});

test('refused tokens are replaced at once and only so often', () => {
  const plan = new Plan(1_000, 8_000);
  const next = () => plan.after(closed(Code.TOKEN_INVALID), 0, 1);
  expect([next(), next()]).toMatchObject([{ waitMs: 0 }, { waitMs: 2_000 }]);
  expect(next()).toMatchObject({ stop: { code: 4100 } });
});

test('the wait doubles up to the maximum, with full jitter, until a session was stable', () => {
  const plan = new Plan(1_000, 4_000);
  const wait = (livedMs: number, random = 1) => plan.after({ lost: 'x' }, livedMs, random);
  expect([wait(0), wait(100), wait(0), wait(0)]).toMatchObject(
    [1_000, 2_000, 4_000, 4_000].map((waitMs) => ({ waitMs })),
  );
  expect(wait(0, 0)).toMatchObject({ waitMs: 0 });
  expect(wait(10_000)).toMatchObject({ waitMs: 1_000 });
});

test('a source without tokens stops the client and a busy one does not', () => {
  expect(first({ noToken: new TernError('token', 'signed out') })).toMatchObject({ stop: { kind: 'token' } });
  expect(first({ noToken: new Error('away') })).toMatchObject({ waitMs: 1_000, cause: 'no token: away' });
});

test('a target moves every transport and never gives up TLS', () => {
  const { addresses } = resolve({ url: 'https://a:1', token: 't' });
  const at = (target: string) => {
    const there = movedTo(addresses, target);
    return there && [there.webTransport?.href ?? null, there.webSocket?.href ?? null];
  };
  expect(at('b:2')).toEqual(['https://b:2/v1/connect', 'wss://b:2/v1/connect']);
  expect(at('wss://b:2')).toEqual([null, 'wss://b:2/v1/connect']);
  for (const bad of ['ws://b:2', 'nonsense', 'b:2/x?y', 'https://b', 'a@b:2', ''])
    expect(at(bad), bad).toBeNull();
});

test('a configuration that cannot be used says why', () => {
  const problem = (config: object) => {
    try {
      resolve({ token: 't', ...config });
    } catch (error) {
      return (error as TernError).message;
    }
    return null;
  };
  expect(problem({ url: 'nonsense' })).toContain('not a URL');
  expect(problem({ url: 'https://a?token=x' })).toContain('query');
  expect(problem({ url: 'http://a', webSocket: null })).toContain('no server address');
  expect(problem({ url: 'http://a', serverCertificateHashes: ['ab'] })).toContain('64 hex');
  expect(problem({ url: 'http://a', pendingMax: 0 })).toContain('pendingMax');
  expect(problem({ url: 'http://a', device: '' })).toContain('device');
});

/** Transports that open or fail after so many ms. */
function fake(times: Partial<Record<'webtransport' | 'websocket', number>>): Dialers & { aborted: string[] } {
  const aborted: string[] = [];
  const open = (transport: 'webtransport' | 'websocket') => (_: URL, signal: AbortSignal) =>
    new Promise<Link>((resolve, reject) => {
      const wait = times[transport] ?? 0;
      signal.addEventListener('abort', () => aborted.push(transport));
      setTimeout(
        () =>
          wait < 0
            ? reject(new Error(`${transport} failed`))
            : resolve({ transport, close() {} } as unknown as Link),
        Math.abs(wait),
      );
    });
  return {
    webtransport: open('webtransport'),
    websocket: open('websocket'),
    hasWebTransport: () => true,
    aborted,
  };
}

async function race(
  times: Parameters<typeof fake>[0],
  preferred: 'webtransport' | 'websocket' = 'webtransport',
) {
  vi.useFakeTimers();
  const dialers = fake(times);
  const { addresses } = resolve({ url: 'https://a', token: 't' });
  const result = dial(dialers, addresses, preferred, 250, new AbortController().signal).then(
    ({ link, fallback }) => [link.transport, fallback, dialers.aborted],
    (error) => [error.message],
  );
  await vi.advanceTimersByTimeAsync(20_000);
  vi.useRealTimers();
  return result;
}

test('WebTransport wins within its head start, and WebSocket when it is late or fails', async () => {
  expect(await race({ webtransport: 200, websocket: 1 })).toEqual(['webtransport', null, []]);
  expect(await race({ webtransport: 9_000, websocket: 10 })).toEqual([
    'websocket',
    'WebTransport was not there within 250 ms, WebSocket was faster',
    ['webtransport'],
  ]);
  expect(await race({ webtransport: -5, websocket: 10 })).toEqual([
    'websocket',
    'webtransport failed',
    ['webtransport'],
  ]);
  expect(await race({ webtransport: -300, websocket: -1 })).toEqual([
    'websocket failed; webtransport failed',
  ]);
  expect(await race({ webtransport: 1, websocket: 100 }, 'websocket')).toEqual(['websocket', null, []]);
});

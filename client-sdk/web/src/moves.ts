// What the inputs of the driver mean: frames about the link, ends of links, the way to the next one,
// and tokens.
import { Active } from './active.js';
import type { Envelope } from './codec/frames.js';
import { movedTo } from './config.js';
import type { Driver } from './driver.js';
import { TernError } from './errors.js';
import type { State, Transport } from './events.js';
import type { GoAway } from './generated/frames.js';
import { type Opened, open } from './opening.js';
import type { Ending } from './plan.js';
import { receive } from './session/inbound.js';
import type { TokenReason } from './tokens.js';

/** A fallback that won is preferred for this long; then the better transport is tried first again. In ms. */
const FALLBACK_MEMORY_MS = 10 * 60 * 1000;
/** Token renewals of one link that may fail; then the server ends it, and the next connect asks again. */
const RENEWALS_MAX = 3;
/** Wait before a renewal is tried again, in ms. */
const RENEW_RETRY_MS = 5_000;

/** A frame came on a link that is the current one or the one being replaced. */
export function onFrame(driver: Driver, active: Active, envelope: Envelope, now: number): void {
  active.heard(now);
  const { frame } = envelope;
  const isCurrent = driver.current === active;
  switch (frame.type) {
    case 'ping':
      return driver.sendOn(active, { request: null, frame: { type: 'pong', nonce: frame.nonce } }, now);
    case 'pong':
      return active.ponged(frame.nonce, now);
    case 'close':
      return isCurrent ? end(driver, frame, now) : driver.dropOld();
    case 'go_away':
      return isCurrent ? onGoAway(driver, frame, now) : undefined;
    case 'token_expiring':
      return isCurrent ? renew(driver, { why: 'expiring' }) : undefined;
    case 'reauthed':
      active.reauths = 0;
      driver.tokens.expiresMs = frame.tokenExpiresMs - (active.welcome.timeMs - active.openedMs);
      return;
    default:
      receive(driver.session, active.number, envelope, now);
  }
}

function onGoAway(driver: Driver, { deadlineMs, spreadMs, target }: GoAway, now: number): void {
  if (driver.opening || driver.schedule || !driver.current) return;
  const at = now + Math.random() * Math.min(spreadMs, deadlineMs);
  driver.schedule = { at, reason: { why: 'connect' }, target };
  driver.setState({ state: 'draining', transport: driver.current.link.transport });
}

/** The current link has ended. */
export function end(driver: Driver, ending: Ending, now: number): void {
  const ended = driver.current;
  if (!ended) return;
  driver.current = null;
  ended.link.listen(null);
  ended.link.close(0);
  driver.session.disconnected(ended.number);
  driver.renewing = false;
  driver.renewAt = Infinity;
  // If the next one is on its way, this one was draining.
  if (driver.opening) driver.setState({ state: 'connecting' });
  else planNext(driver, ending, Math.max(1, now - ended.openedMs), now);
}

/** Decides what follows an ending. */
function planNext(driver: Driver, ending: Ending, livedMs: number, now: number): void {
  const next = driver.plan.after(ending, livedMs, Math.random());
  if ('stop' in next) {
    // If the current session still serves, its end will decide.
    if (!driver.current) driver.stop(next.stop);
    return;
  }
  if (next.resync) driver.session.resync();
  const at = now + next.waitMs;
  driver.schedule = { at, reason: next.reason, target: next.target };
  driver.trouble = next.cause;
  if (!driver.current) driver.setState({ state: 'offline', cause: next.cause, retryAtMs: at });
}

/** The next session is opened at once. */
export function scheduleNow(driver: Driver, reason: TokenReason): void {
  driver.schedule = { at: driver.clock.now(), reason, target: null };
}

/** Starts an attempt as scheduled. */
export function openNext(driver: Driver): void {
  const { schedule, config } = driver;
  if (!schedule) return;
  driver.schedule = null;
  const opening = new AbortController();
  driver.opening = opening;
  if (!driver.current) driver.setState({ state: 'connecting' });
  const moved = schedule.target === null ? config.addresses : movedTo(config.addresses, schedule.target);
  if (!moved) {
    const detail = `the server names a place that cannot be used: ${schedule.target}`;
    driver.hub.push({ name: 'problem', value: { detail, code: 0 } });
  }
  open({
    config,
    dialers: driver.dialers,
    addresses: moved ?? config.addresses,
    first: preferred(driver),
    device: driver.device,
    token: driver.tokens.take(schedule.reason, driver.clock.now()),
    signal: opening.signal,
  }).then((result) => {
    if (driver.stopped) return 'link' in result ? result.link.close(0) : undefined;
    driver.apply((now) => {
      driver.opening = null;
      if ('link' in result) return onOpened(driver, result, now);
      // The transport that is remembered may be the one that does not work any more.
      if ('lost' in result) driver.wonLast = null;
      planNext(driver, result, 0, now);
    });
  });
}

/** Networks that a browser can tell from each other; most tell only that they are on some. */
const network = (): string =>
  (globalThis.navigator as { connection?: { type?: string } } | undefined)?.connection?.type ?? '';

function preferred({ wonLast, clock }: Driver): Transport {
  const fresh = wonLast && wonLast.network === network() && clock.now() - wonLast.timeMs < FALLBACK_MEMORY_MS;
  return fresh ? wonLast.transport : 'webtransport';
}

function onOpened(driver: Driver, { link, welcome, fallback }: Opened, now: number): void {
  const number = ++driver.links;
  const active = new Active(link, number, welcome, now);
  const expected = driver.session.me;
  const { transport } = link;
  driver.tokens.expiresMs = welcome.tokenExpiresMs - (welcome.timeMs - now);
  const cause = remember(driver, transport, fallback, now);
  const state: State =
    cause === null ? { state: 'online', transport } : { state: 'degraded', transport, cause };
  if (!driver.session.connected(number, welcome, now)) {
    link.close(0);
    driver.stop(
      new TernError('wrongUser', `the token is for ${welcome.user}, this client belongs to ${expected}`),
    );
    return;
  }
  driver.plan.opened();
  driver.use(active, state);
}

/** Keeps who won, and why the better transport lost, for the next attempts. Gives that reason. */
function remember(driver: Driver, transport: Transport, fallback: string | null, now: number): string | null {
  const { wonLast, config } = driver;
  const degraded = transport === 'websocket' && config.addresses.webTransport !== null;
  const known = wonLast?.transport === transport && wonLast.network === network() ? wonLast : null;
  const cause = degraded ? (fallback ?? known?.cause ?? 'WebSocket was preferred') : null;
  // One that was only preferred, not tested, does not get younger.
  if (degraded && fallback === null && known) return cause;
  driver.wonLast = { network: network(), transport, cause, timeMs: now };
  if (known?.cause !== cause || degraded || !known)
    driver.saver.push({ kind: 'transport', transport: driver.wonLast });
  return cause;
}

/** Asks for a new token for the live session. */
export function renew(driver: Driver, reason: TokenReason): void {
  driver.renewAt = Infinity;
  const active = driver.current;
  if (!active || active.reauths >= RENEWALS_MAX || driver.renewing) return;
  active.reauths++;
  driver.renewing = true;
  driver.tokens.take(reason, driver.clock.now()).then(
    (token) =>
      driver.apply((now) => {
        if (driver.current !== active) return;
        driver.renewing = false;
        driver.sendOn(active, { request: null, frame: { type: 'reauth', token } }, now);
      }),
    (error) =>
      driver.apply((now) => {
        if (driver.current !== active) return;
        driver.renewing = false;
        // The session goes on while it may; without any more tokens the next connect stops the client.
        const none = error instanceof TernError && error.kind === 'token';
        if (!none) driver.renewAt = now + RENEW_RETRY_MS;
      }),
  );
}

// The links of a client: the current one, one that is being replaced, the way to the next one, and the
// tokens they need.
import { Active } from './active.js';
import type { Clock } from './clock.js';
import type { Envelope } from './codec/frames.js';
import { movedTo, type Resolved } from './config.js';
import type { Emitter } from './emitter.js';
import { TernError } from './errors.js';
import type { State } from './events.js';
import { FRAME_TOO_LARGE } from './generated/codes.js';
import type { GoAway, Welcome } from './generated/frames.js';
import { freshUuid } from './ids.js';
import { receive } from './ledger/inbound.js';
import type { Ledger } from './ledger/ledger.js';
import type { Dialers } from './link/dial.js';
import { type Opened, open } from './opening.js';
import { type Ending, Plan } from './plan.js';
import { Preference } from './preference.js';
import type { SavedState } from './saved.js';
import type { Saver } from './saver.js';
import { type TokenReason, Tokens } from './tokens.js';

/** Token renewals of one link that may fail; then the server ends it, and the next connect asks again. */
const RENEWALS_MAX = 3;
/** Wait before a renewal is tried again, in ms. */
const RENEW_RETRY_MS = 5_000;
/** When the network comes back, all clients of a place come within this time. In ms. */
const NUDGE_SPREAD_MS = 500;

/** What the links need of the client they belong to. */
export interface Host {
  readonly config: Resolved;
  readonly clock: Clock;
  readonly emitter: Emitter;
  readonly saver: Saver;
  /** What the client knows and owes. */
  readonly ledger: Ledger;
  /** Why the client has stopped. */
  readonly stopped: TernError | null;
  /** Applies an input, then does everything that is due. */
  apply(input: (now: number) => void): void;
  /** Ends the client. */
  stop(error: TernError): void;
}

/** The links of one client. */
export class Links {
  current: Active | null = null;
  /** Links so far. */
  count = 0;
  state: State = { state: 'connecting' };
  /** What stood in the way of the last attempt. */
  trouble = 'the first attempt has not ended';
  welcome: Welcome | null = null;
  readonly #host: Host;
  readonly #dialers: Dialers;
  readonly #plan: Plan;
  readonly #tokens: Tokens;
  readonly #preference = new Preference();
  #device: string;
  /** The link that is being replaced. */
  #old: Active | null = null;
  /** The attempt that goes on. */
  #opening: AbortController | null = null;
  /** When and where the next session is opened. */
  #schedule: { at: number; reason: TokenReason; target: string | null } | null = null;
  // Token renewal on the live session.
  #renewing = false;
  #renewAt = Infinity;
  readonly #watchers = new Set<(state: State) => void>();

  constructor(host: Host, dialers: Dialers) {
    const { config } = host;
    this.#host = host;
    this.#dialers = dialers;
    this.#plan = new Plan(config.backoffFirstMs, config.backoffMaxMs);
    this.#tokens = new Tokens(config.token, config.renewToken);
    this.#device = config.device ?? freshUuid();
  }

  /** Goes on with the device and the transport of an earlier client. */
  restore({ device, transport }: SavedState): void {
    if (this.#host.config.device === null && device !== null) this.#device = device;
    if (device !== this.#device) this.#host.saver.push({ kind: 'device', device: this.#device });
    this.#preference.restore(transport);
  }

  /** The first session is opened at once. */
  start(now: number): void {
    this.#schedule = { at: now, reason: { why: 'connect' }, target: null };
  }

  /** Does what is due. */
  tick(now: number): void {
    const dead = this.current?.tick(now);
    if (dead) this.end({ lost: dead }, now);
    if (this.#old?.tick(now)) this.dropOld(now);
    if (this.#renewAt <= now) this.renew({ why: 'expiring' });
    if (!this.#opening && this.#schedule && this.#schedule.at <= now) this.#openNext(now);
  }

  wakeAt(): number {
    return Math.min(
      this.current?.wakeAt() ?? Infinity,
      this.#old?.wakeAt() ?? Infinity,
      this.#renewAt,
      this.#opening ? Infinity : (this.#schedule?.at ?? Infinity),
    );
  }

  /** Sends a frame on a link. One that no link can carry is refused as the server would do it. */
  send(envelope: Envelope, now: number, active = this.current): void {
    if (!active || active.send(envelope, now)) return;
    const frame = {
      type: 'error',
      code: FRAME_TOO_LARGE,
      temporary: false,
      retryAfterMs: null,
      detail: 'the frame is too large',
      tempId: null,
      conversation: null,
    } as const;
    receive(this.#host.ledger, active.number, { request: envelope.request, frame }, now);
  }

  /** A frame came on a link that is the current one or the one being replaced. */
  #onFrame(active: Active, envelope: Envelope, now: number): void {
    active.heard(now);
    const { frame } = envelope;
    const isCurrent = this.current === active;
    switch (frame.type) {
      case 'ping':
        return this.send({ request: null, frame: { type: 'pong', nonce: frame.nonce } }, now, active);
      case 'pong':
        return active.ponged(frame.nonce, now);
      case 'close':
        return isCurrent ? this.end(frame, now) : this.dropOld(now);
      case 'go_away':
        return isCurrent ? this.#onGoAway(active, frame, now) : undefined;
      case 'token_expiring':
        return isCurrent ? this.renew({ why: 'expiring' }) : undefined;
      case 'reauthed':
        active.reauths = 0;
        this.#tokens.expiresMs = frame.tokenExpiresMs - (active.welcome.timeMs - active.openedMs);
        return;
      default:
        receive(this.#host.ledger, active.number, envelope, now);
    }
  }

  #onGoAway(active: Active, { deadlineMs, spreadMs, target }: GoAway, now: number): void {
    if (this.#opening || this.#schedule) return;
    const at = now + Math.random() * Math.min(spreadMs, deadlineMs);
    this.#schedule = { at, reason: { why: 'connect' }, target };
    this.#setState({ state: 'draining', transport: active.link.transport });
  }

  /** The current link has ended. */
  end(ending: Ending, now: number): void {
    const ended = this.current;
    if (!ended) return;
    this.current = null;
    ended.link.listen(null);
    ended.link.close(0);
    this.#host.ledger.disconnected(ended.number);
    this.#renewing = false;
    this.#renewAt = Infinity;
    // If the next one is on its way, this one was draining.
    if (this.#opening) this.#setState({ state: 'connecting' });
    else this.#planNext(ending, Math.max(1, now - ended.openedMs), now);
  }

  /** Decides what follows an ending. */
  #planNext(ending: Ending, livedMs: number, now: number): void {
    const next = this.#plan.after(ending, livedMs, Math.random());
    if ('stop' in next) {
      // If the current session still serves, its end will decide.
      if (!this.current) this.#host.stop(next.stop);
      return;
    }
    if (next.resync) this.#host.ledger.resync();
    const at = now + next.waitMs;
    this.#schedule = { at, reason: next.reason, target: next.target };
    this.trouble = next.cause;
    if (!this.current) this.#setState({ state: 'offline', cause: next.cause, retryAtMs: at });
  }

  /** Starts an attempt as scheduled. */
  #openNext(now: number): void {
    const { config, emitter } = this.#host;
    const schedule = this.#schedule;
    if (!schedule) return;
    this.#schedule = null;
    const opening = new AbortController();
    this.#opening = opening;
    if (!this.current) this.#setState({ state: 'connecting' });
    const moved = schedule.target === null ? config.addresses : movedTo(config.addresses, schedule.target);
    if (!moved) {
      const detail = `the server names a place that cannot be used: ${schedule.target}`;
      emitter.push({ name: 'problem', value: { detail, code: 0 } });
    }
    open({
      config,
      dialers: this.#dialers,
      addresses: moved ?? config.addresses,
      first: this.#preference.first(now),
      device: this.#device,
      token: this.#tokens.take(schedule.reason, now),
      signal: opening.signal,
    }).then((result) => {
      if (this.#host.stopped) return 'link' in result ? result.link.close(0) : undefined;
      this.#host.apply((now) => {
        this.#opening = null;
        if ('link' in result) return this.#onOpened(result, now);
        // The transport that is remembered may be the one that does not work any more.
        if ('lost' in result) this.#preference.forget();
        this.#planNext(result, 0, now);
      });
    });
  }

  #onOpened({ link, welcome, fallback }: Opened, now: number): void {
    const { ledger, config, saver } = this.#host;
    const active = new Active(link, ++this.count, welcome, now);
    const expected = ledger.me;
    const { transport } = link;
    this.#tokens.expiresMs = welcome.tokenExpiresMs - (welcome.timeMs - now);
    const better = config.addresses.webTransport !== null;
    const { cause, save } = this.#preference.opened(transport, fallback, better, now);
    if (save) saver.push({ kind: 'transport', transport: save });
    if (!ledger.connected(active.number, welcome, now)) {
      link.close(0);
      this.#host.stop(
        new TernError('wrongUser', `the token is for ${welcome.user}, this client belongs to ${expected}`),
      );
      return;
    }
    this.#plan.opened();
    this.#use(active, now);
    this.#setState(cause === null ? { state: 'online', transport } : { state: 'degraded', transport, cause });
  }

  /** A session is open. */
  #use(active: Active, now: number): void {
    // A third link would only follow a second drain during the first: that one waits no more.
    this.dropOld(now);
    this.#old = this.current;
    this.current = active;
    this.welcome = active.welcome;
    this.#renewing = false;
    this.#renewAt = Infinity;
    const { emitter } = this.#host;
    const apply: Host['apply'] = (input) => this.#host.apply(input);
    active.link.listen({
      frame: (envelope) => apply((now) => this.#onFrame(active, envelope, now)),
      bad: ({ message, code }) =>
        apply(() => emitter.push({ name: 'problem', value: { detail: message, code } })),
      ended: (code, reason) =>
        apply((now) => {
          const ending =
            code === null ? { lost: reason } : { code, reason, retryAfterMs: null, target: null };
          if (this.current === active) this.end(ending, now);
          else if (this.#old === active) this.dropOld(now);
        }),
    });
  }

  /** Ends the link that was replaced. */
  dropOld(now: number): void {
    const old = this.#old;
    if (!old) return;
    this.#old = null;
    this.#host.ledger.disconnected(old.number);
    old.goodbye(now);
  }

  #setState(state: State): void {
    if (JSON.stringify(state) === JSON.stringify(this.state)) return;
    this.state = state;
    this.#host.emitter.push({ name: 'state', value: state });
    for (const tell of this.#watchers) tell(state);
  }

  /** Tells the state now and every later one. Unlike a listener it makes no events flow. */
  watchState(tell: (state: State) => void): () => void {
    this.#watchers.add(tell);
    queueMicrotask(() => tell(this.state));
    return () => this.#watchers.delete(tell);
  }

  /** Asks for a new token for the live session. */
  renew(reason: TokenReason): void {
    this.#renewAt = Infinity;
    const active = this.current;
    if (!active || active.reauths >= RENEWALS_MAX || this.#renewing) return;
    active.reauths++;
    this.#renewing = true;
    const settle = (then: (now: number) => void) =>
      this.#host.apply((now) => {
        if (this.current !== active) return;
        this.#renewing = false;
        then(now);
      });
    this.#tokens.take(reason, this.#host.clock.now()).then(
      (token) => settle((now) => this.send({ request: null, frame: { type: 'reauth', token } }, now)),
      (error) =>
        settle((now) => {
          // The session goes on while it may; without any more tokens the next connect stops the client.
          const none = error instanceof TernError && error.kind === 'token';
          if (!none) this.#renewAt = now + RENEW_RETRY_MS;
        }),
    );
  }

  /** The network or the page came back: nothing waits for a timer that may be late. */
  nudge(networkChanged: boolean, now: number): void {
    // What won on the network before says nothing of this one.
    if (networkChanged) this.#preference.forget();
    const schedule = this.#schedule;
    if (schedule) schedule.at = Math.min(schedule.at, now + Math.random() * NUDGE_SPREAD_MS);
    this.current?.probe(now);
  }

  /** The client has stopped. */
  stop(error: TernError, now: number): void {
    this.#opening?.abort();
    this.dropOld(now);
    this.current?.link.listen(null);
    this.current?.goodbye(now);
    this.current = null;
    this.#setState({ state: 'closed', error });
  }
}

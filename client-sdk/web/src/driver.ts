// The driver: owns a client's session, links and timers. Every input goes through `apply`, which then
// does everything that is due. What single inputs mean is in `moves.ts`.
import type { Active } from './active.js';
import { Clock } from './clock.js';
import type { Resolved } from './config.js';
import { closed, TernError } from './errors.js';
import type { State } from './events.js';
import type { Welcome } from './generated/frames.js';
import { Hub } from './hub.js';
import { type DeviceId, freshUuid, type TempId } from './ids.js';
import type { Dialers } from './link/dial.js';
import { end, onFrame, openNext, renew, scheduleNow } from './moves.js';
import { Plan } from './plan.js';
import { emptyState, type SavedTransport } from './saved.js';
import { Saver } from './saver.js';
import type { Change } from './session/change.js';
import type { Answer, Effect } from './session/effect.js';
import { receive } from './session/inbound.js';
import { Session } from './session/session.js';
import { type TokenReason, Tokens } from './tokens.js';

/** Acks and cursors leave at most this often, in ms. */
const ACK_MS = 50;
/** The last save may take this long, in ms. */
const FLUSH_MS = 2_000;

/** Who waits for a change. */
export interface Waiter {
  resolve(ack: Extract<Effect, { do: 'resolved' }>['result']): void;
}

/** When and where the next session is opened. */
export interface Schedule {
  at: number;
  reason: TokenReason;
  target: string | null;
}

/** A running client. */
export class Driver {
  readonly config: Resolved;
  readonly dialers: Dialers;
  readonly hub: Hub;
  readonly clock = new Clock();
  readonly plan: Plan;
  readonly tokens: Tokens;
  readonly saver: Saver;
  session = new Session(emptyState());
  state: State = { state: 'connecting' };
  /** What stood in the way of the last attempt. */
  trouble = 'the first attempt has not ended';
  welcome: Welcome | null = null;
  device: DeviceId;
  // Links: the current one, one that is being replaced, and the way to the next.
  current: Active | null = null;
  old: Active | null = null;
  links = 0;
  opening: AbortController | null = null;
  schedule: Schedule | null = null;
  wonLast: SavedTransport | null = null;
  // Token renewal on the live session.
  renewing = false;
  renewAt = Infinity;
  readonly #waiters = new Map<TempId, Waiter>();
  readonly #questions = new Map<number, (answer: Answer) => void>();
  #syncs: (() => void)[] = [];
  readonly #stateWatchers = new Set<(state: State) => void>();
  /** Acks are not sent before. */
  #ackAt = 0;
  #loaded = false;
  /** Changes that were made before the saved state was there. */
  #early: ((now: number) => void)[] = [];
  #applying = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  stopped: TernError | null = null;

  constructor(config: Resolved, dialers: Dialers) {
    this.config = config;
    this.dialers = dialers;
    this.plan = new Plan(config.backoffFirstMs, config.backoffMaxMs);
    this.tokens = new Tokens(config.token, config.renewToken);
    this.device = config.device ?? freshUuid();
    this.hub = new Hub(config.manual, () => this.apply(() => {}));
    this.saver = new Saver(config.persist, ({ saved, notSaved, problem }) =>
      this.apply((now) => {
        this.session.saved(saved, now);
        for (const tempId of notSaved) this.session.notSaved(tempId, problem ?? '');
        if (problem !== null) this.hub.push({ name: 'persistence', value: { problem } });
      }),
    );
  }

  /** Loads what was saved and begins to connect. */
  async start(): Promise<void> {
    try {
      const saved = await this.config.persist?.load((sends) =>
        this.apply((now) => this.session.adopt(sends, now)),
      );
      if (this.stopped) return;
      if (saved) {
        if (this.config.device === null && saved.device !== null) this.device = saved.device;
        if (saved.device !== this.device) this.saver.push({ kind: 'device', device: this.device });
        this.wonLast = saved.transport;
        this.session = new Session(saved);
      }
    } catch (error) {
      return this.stop(
        new TernError('persistence', `saved state: ${error instanceof Error ? error.message : error}`),
      );
    }
    this.#loaded = true;
    this.apply(() => {
      for (const input of this.#early.splice(0)) this.apply(input);
      scheduleNow(this, { why: 'connect' });
    });
  }

  /** Applies an input, then does everything that is due. */
  apply(input: (now: number) => void): void {
    const now = this.clock.now();
    // A listener of the application may call back: the outer round does the rest.
    if (this.#applying || this.stopped) return input(now);
    this.#applying = true;
    try {
      this.session.setRoom(this.hub.room, now);
      input(now);
      this.#runEffects(now);
      this.#runDue(now);
      this.#runEffects(now);
      this.saver.start(now);
    } finally {
      this.#applying = false;
    }
    this.#arm();
  }

  #runDue(now: number): void {
    if (this.stopped) return;
    if (this.hub.anyConfirmed && this.#ackAt <= now && this.current?.busy !== true) {
      this.#ackAt = now + ACK_MS;
      this.session.confirm(this.hub.takeConfirmed());
    }
    const dead = this.current?.tick(now);
    if (dead) end(this, { lost: dead }, now);
    if (this.old?.tick(now)) this.dropOld();
    if (this.renewAt <= now) renew(this, { why: 'expiring' });
    if (!this.opening && this.schedule && this.schedule.at <= now) openNext(this);
    this.session.tick(now);
  }

  #arm(): void {
    clearTimeout(this.#timer);
    if (this.stopped) return;
    const at = Math.min(
      this.session.wakeAt(),
      this.saver.wakeAt(),
      this.current?.wakeAt() ?? Infinity,
      this.old?.wakeAt() ?? Infinity,
      this.renewAt,
      this.hub.anyConfirmed
        ? Math.max(this.#ackAt, this.clock.now() + (this.current?.busy ? ACK_MS : 0))
        : Infinity,
      this.opening ? Infinity : (this.schedule?.at ?? Infinity),
    );
    // Longer times do not fit into a timer; nothing is lost by looking once a day.
    const wait = Math.min(at - this.clock.now(), 24 * 3600 * 1000);
    if (at < Infinity) this.#timer = setTimeout(() => this.apply(() => {}), Math.max(0, wait));
  }

  /** Carries out what the session wants done. */
  #runEffects(now: number): void {
    for (let effect = this.session.pop(); effect; effect = this.session.pop()) {
      switch (effect.do) {
        case 'send':
          this.sendOn(this.current, effect.envelope, now);
          break;
        case 'emit':
          this.hub.push(effect.event);
          break;
        case 'forget':
          this.hub.forget(effect.conversation);
          break;
        case 'resolved':
          this.#waiters.get(effect.tempId)?.resolve(effect.result);
          this.#waiters.delete(effect.tempId);
          break;
        case 'save':
          this.saver.push(effect.change);
          break;
        case 'answer':
          this.#questions.get(effect.question)?.(effect.answer);
          this.#questions.delete(effect.question);
          break;
        case 'reauth':
          renew(this, { why: 'rejected', code: effect.code });
          break;
        case 'syncRefused':
          end(this, { ...effect.error, reason: effect.error.detail, target: null }, now);
          break;
        case 'synced':
          // Everything up to the heads came over the new link: the old one is not needed.
          this.dropOld();
          for (const tell of this.#syncs.splice(0)) tell();
      }
    }
  }

  /** Sends a frame on a link. One that no link can carry is refused as the server would do it. */
  sendOn(active: Active | null, envelope: Parameters<Active['send']>[0], now: number): void {
    if (!active || active.send(envelope, now)) return;
    const detail = 'the frame is too large';
    const frame = {
      type: 'error',
      code: 4002,
      temporary: false,
      retryAfterMs: null,
      detail,
      tempId: null,
    } as const;
    receive(this.session, active.number, { request: envelope.request, frame }, now);
  }

  /** A session is open. */
  use(active: Active, state: State): void {
    // A third link would only follow a second drain during the first: that one waits no more.
    this.dropOld();
    this.old = this.current;
    this.current = active;
    this.welcome = active.welcome;
    this.renewing = false;
    this.renewAt = Infinity;
    active.link.listen({
      frame: (envelope) => this.apply((now) => onFrame(this, active, envelope, now)),
      bad: ({ message, code }) =>
        this.apply(() => this.hub.push({ name: 'problem', value: { detail: message, code } })),
      ended: (code, reason) =>
        this.apply((now) => {
          const ending =
            code === null ? { lost: reason } : { code, reason, retryAfterMs: null, target: null };
          if (this.current === active) end(this, ending, now);
          else if (this.old === active) this.dropOld();
        }),
    });
    this.setState(state);
  }

  /** Ends the link that was replaced. */
  dropOld(): void {
    const { old } = this;
    if (!old) return;
    this.old = null;
    this.session.disconnected(old.number);
    old.goodbye(this.clock.now());
  }

  setState(state: State): void {
    if (JSON.stringify(state) === JSON.stringify(this.state)) return;
    this.state = state;
    this.hub.push({ name: 'state', value: state });
    for (const tell of this.#stateWatchers) tell(state);
  }

  /** Tells the state now and every later one. Unlike a listener it makes no events flow. */
  watchState(tell: (state: State) => void): () => void {
    this.#stateWatchers.add(tell);
    queueMicrotask(() => tell(this.state));
    return () => this.#stateWatchers.delete(tell);
  }

  /** Breaks the link as a lost network does. */
  cut(): void {
    end(this, { lost: 'the application cut the link' }, this.clock.now());
  }

  /** A change of the application. */
  submit(change: Change, waiter: Waiter): void {
    const { tempId } = change;
    this.#waiters.set(tempId, waiter);
    this.input((now) => {
      const kept = change.type === 'send' && this.saver.keeps;
      if (change.type === 'send') {
        const { to, text } = change;
        this.saver.push({ kind: 'send', send: { tempId, to, text, createdMs: now } });
      }
      this.session.submit(change, !kept, now);
    });
  }

  /** Something that the application wants of the session: it waits until the saved state is there. */
  input(input: (now: number) => void): void {
    if (this.#loaded) this.apply(input);
    else this.#early.push(input);
  }

  /** Changes that are neither durable nor refused. */
  get unresolved(): number {
    return this.session.sends.size + this.#early.length;
  }

  unresolvedHas(tempId: TempId): boolean {
    return this.session.sends.has(tempId) || this.#waiters.has(tempId);
  }

  /** A question to the server, asked once. */
  ask(frame: Parameters<Session['ask']>[0]): Promise<Answer | 'full'> {
    return new Promise((resolve) =>
      this.apply(() => {
        const question = this.session.ask(frame);
        if (typeof question === 'number') this.#questions.set(question, resolve);
        else resolve(question);
      }),
    );
  }

  /** Resolves when a sync that begins now, or the one that goes on, is complete. */
  sync(): Promise<void> {
    return new Promise((resolve) =>
      this.apply(() => {
        this.#syncs.push(resolve);
        if (this.session.link !== null && !this.session.syncing) this.session.sync();
      }),
    );
  }

  /** The network or the page came back: nothing waits for a timer that may be late. */
  nudge(networkChanged: boolean): void {
    this.apply((now) => {
      // What won on the network before says nothing of this one.
      if (networkChanged) this.wonLast = null;
      if (this.schedule) this.schedule.at = Math.min(this.schedule.at, now + Math.random() * 500);
      this.current?.probe(now);
    });
  }

  /** Ends the client: what was confirmed is acked and saved, the server is told, waiters are told. */
  async stop(error: TernError): Promise<void> {
    if (this.stopped) return;
    const now = this.clock.now();
    this.session.confirm(this.hub.takeConfirmed());
    this.session.close();
    this.#runEffects(now);
    this.stopped = error;
    clearTimeout(this.#timer);
    this.opening?.abort();
    this.dropOld();
    this.current?.link.listen(null);
    this.current?.goodbye(now);
    this.current = null;
    for (const waiter of this.#waiters.values()) waiter.resolve(closed());
    for (const answer of this.#questions.values()) answer('offline');
    this.setState({ state: 'closed', error });
    // Whatever does not get through in this time is retried after the next start.
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, FLUSH_MS);
    });
    await Promise.race([this.saver.flush(now), late]);
    clearTimeout(timer);
    this.config.persist?.close();
  }
}

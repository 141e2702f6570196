// The driver: owns what a client consists of and its timer. Every input goes through `apply`, which then
// does everything that is due.
import { Clock } from './clock.js';
import type { Resolved } from './config.js';
import { Emitter } from './emitter.js';
import { closed, TernError } from './errors.js';
import type { TempId } from './ids.js';
import type { Change } from './ledger/change.js';
import type { Answer, Effect } from './ledger/effect.js';
import { Ledger } from './ledger/ledger.js';
import type { Dialers } from './link/dial.js';
import { Links } from './links.js';
import { emptyState } from './saved.js';
import { Saver } from './saver.js';

/** Acks and cursors leave at most this often, in ms. */
const ACK_MS = 50;
/** The last save may take this long, in ms. */
const FLUSH_MS = 2_000;

/** Who waits for a change. */
export interface Waiter {
  resolve(ack: Extract<Effect, { do: 'resolved' }>['result']): void;
}

/** A running client. */
export class Driver {
  readonly config: Resolved;
  readonly emitter: Emitter;
  readonly clock = new Clock();
  readonly saver: Saver;
  readonly links: Links;
  ledger = new Ledger(emptyState());
  readonly #waiters = new Map<TempId, Waiter>();
  readonly #questions = new Map<number, (answer: Answer) => void>();
  #syncs: (() => void)[] = [];
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
    this.emitter = new Emitter(config.manual, () => this.apply(() => {}));
    this.saver = new Saver(config.persist, ({ saved, notSaved, problem }) =>
      this.apply((now) => {
        this.ledger.saved(saved, now);
        for (const tempId of notSaved) this.ledger.notSaved(tempId, problem ?? '');
        if (problem !== null) this.emitter.push({ name: 'persistence', value: { problem } });
      }),
    );
    this.links = new Links(this, dialers);
  }

  /** Loads what was saved and begins to connect. */
  async start(): Promise<void> {
    try {
      const saved = await this.config.persist?.load((sends) =>
        this.apply((now) => this.ledger.adopt(sends, now)),
      );
      if (this.stopped) return;
      if (saved) {
        this.links.restore(saved);
        this.ledger = new Ledger(saved);
      }
    } catch (error) {
      return this.stop(
        new TernError('persistence', `saved state: ${error instanceof Error ? error.message : error}`),
      );
    }
    this.#loaded = true;
    this.apply((now) => {
      for (const input of this.#early.splice(0)) this.apply(input);
      this.links.start(now);
    });
  }

  /** Applies an input, then does everything that is due. */
  apply(input: (now: number) => void): void {
    const now = this.clock.now();
    // A listener of the application may call back: the outer round does the rest.
    if (this.#applying || this.stopped) return input(now);
    this.#applying = true;
    try {
      this.ledger.setRoom(this.emitter.room, now);
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
    if (this.emitter.anyConfirmed && this.#ackAt <= now && this.links.current?.busy !== true) {
      this.#ackAt = now + ACK_MS;
      this.ledger.confirm(this.emitter.takeConfirmed());
    }
    this.links.tick(now);
    this.ledger.tick(now);
  }

  #arm(): void {
    clearTimeout(this.#timer);
    if (this.stopped) return;
    const at = Math.min(
      this.ledger.wakeAt(),
      this.saver.wakeAt(),
      this.links.wakeAt(),
      this.emitter.anyConfirmed
        ? Math.max(this.#ackAt, this.clock.now() + (this.links.current?.busy ? ACK_MS : 0))
        : Infinity,
    );
    // Longer times do not fit into a timer; nothing is lost by looking once a day.
    const wait = Math.min(at - this.clock.now(), 24 * 3600 * 1000);
    if (at < Infinity) this.#timer = setTimeout(() => this.apply(() => {}), Math.max(0, wait));
  }

  /** Carries out what the ledger wants done. */
  #runEffects(now: number): void {
    for (let effect = this.ledger.pop(); effect; effect = this.ledger.pop()) {
      switch (effect.do) {
        case 'send':
          this.links.send(effect.envelope, now);
          break;
        case 'emit':
          this.emitter.push(effect.event);
          break;
        case 'forget':
          this.emitter.forget(effect.conversation);
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
          this.links.renew({ why: 'rejected', code: effect.code });
          break;
        case 'syncRefused':
          this.links.end({ ...effect.error, reason: effect.error.detail, target: null }, now);
          break;
        case 'synced':
          // Everything up to the heads came over the new link: the old one is not needed.
          this.links.dropOld(now);
          for (const tell of this.#syncs.splice(0)) tell();
      }
    }
  }

  /** A change of the application. */
  submit(change: Change, waiter: Waiter): void {
    const { tempId } = change;
    this.#waiters.set(tempId, waiter);
    this.input((now) => {
      const kept = change.type === 'send' && this.saver.keeps;
      if (change.type === 'send') {
        const { to, text, data, replyTo } = change;
        this.saver.push({ kind: 'send', send: { tempId, to, text, data, replyTo, createdMs: now } });
      }
      this.ledger.submit(change, !kept, now);
    });
  }

  /** Something that the application wants of the session: it waits until the saved state is there. */
  input(input: (now: number) => void): void {
    if (this.#loaded) this.apply(input);
    else this.#early.push(input);
  }

  /** Changes that are neither durable nor refused. */
  get unresolved(): number {
    return this.ledger.sends.size + this.#early.length;
  }

  unresolvedHas(tempId: TempId): boolean {
    return this.ledger.sends.has(tempId) || this.#waiters.has(tempId);
  }

  /** A question to the server, asked once. */
  ask(frame: Parameters<Ledger['ask']>[0]): Promise<Answer | 'full'> {
    return new Promise((resolve) =>
      this.apply(() => {
        const question = this.ledger.ask(frame);
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
        if (this.ledger.link !== null && !this.ledger.syncing) this.ledger.sync();
      }),
    );
  }

  /** Ends the client: what was confirmed is acked and saved, the server is told, waiters are told. */
  async stop(error: TernError): Promise<void> {
    if (this.stopped) return;
    const now = this.clock.now();
    this.ledger.confirm(this.emitter.takeConfirmed());
    this.ledger.close();
    this.#runEffects(now);
    this.stopped = error;
    clearTimeout(this.#timer);
    this.links.stop(error, now);
    for (const waiter of this.#waiters.values()) waiter.resolve(closed());
    for (const answer of this.#questions.values()) answer('offline');
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

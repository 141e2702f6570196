// The pure ledger: what a client knows and owes, over reconnects. It does no I/O and reads no clock:
// inputs and the time (ms) go in, effects come out.
import { classOf, closed, TernError } from '../errors.js';
import type { Event } from '../events.js';
import type { Frame, Position, SendAck, Welcome } from '../generated/frames.js';
import { ACK_POSITIONS_MAX } from '../generated/limits.js';
import {
  type ConversationId,
  isErased,
  type StoreId,
  type Target,
  type TempId,
  type UserId,
} from '../ids.js';
import type { SavedSend, SavedState } from '../saved.js';
import { type Change, targetOf } from './change.js';
import type { Effect } from './effect.js';
import type { Out } from './log.js';
import { Logs } from './logs.js';
import { Sends } from './sends.js';

/** Most questions of the application that are open at a time. */
const QUESTIONS_MAX = 256;
/**
 * Read positions that are told again to a new session, the newest ones: the last of them may have
 * been lost with the old session, and nothing acks them.
 */
const READS_MAX = 64;

/** Why a request was made. */
export type Purpose =
  | { for: 'change'; tempId: TempId }
  | { for: 'hole' | 'search'; conversation: ConversationId }
  | { for: 'sync' | 'question' };

/** What a client knows and owes. What it makes of the server's frames is in `inbound.ts`. */
export class Ledger {
  me: UserId | null;
  name: string | null = null;
  #storeId: StoreId | null;
  /** The number of the current link, while there is one. */
  link: number | null = null;
  /** The sync of the current link is not complete. */
  syncing = false;
  /** When a sync that was refused for the moment is asked for again. */
  syncAt = Infinity;
  readonly sends = new Sends();
  readonly logs: Logs;
  /** Open requests, with the link that was asked: answers count only for that. */
  readonly requests = new Map<number, readonly [link: number, purpose: Purpose]>();
  #requestLast = 0;
  #watched: UserId[] | null = null;
  readonly #reads = new Map<ConversationId, number>();
  #effects: Effect[] = [];

  /** Goes on from what was saved. */
  constructor(saved: SavedState) {
    this.me = saved.user;
    this.#storeId = saved.storeId;
    this.logs = new Logs(saved.cursors);
    this.adopt(saved.sends, 0);
  }

  /** The next thing to do. */
  pop(): Effect | undefined {
    return this.#effects.shift();
  }

  do(effect: Effect): void {
    this.#effects.push(effect);
  }

  emit<Name extends Event['name']>(name: Name, value: Extract<Event, { name: Name }>['value']): void {
    this.do({ do: 'emit', event: { name, value } as Event });
  }

  /** Saved messages of an earlier life are this client's. */
  adopt(sends: SavedSend[], now: number): void {
    for (const { createdMs, ...send } of sends) {
      if (this.sends.has(send.tempId)) continue;
      this.sends.add({ type: 'send', ageMs: null, ...send }, createdMs, true, true);
      this.emit('echo', { ...send, createdMs, restored: true });
    }
    this.tick(now);
  }

  /**
   * A new link has its Welcome and becomes the current one; an older one may still bring answers.
   * False if the token is another user's.
   */
  connected(link: number, welcome: Welcome, now: number): boolean {
    if (this.me !== null && this.me !== welcome.user) return false;
    this.me = welcome.user;
    this.name = welcome.name;
    this.#checkStore(welcome.storeId);
    this.link = link;
    this.logs.offline();
    this.sends.open(welcome.user, welcome.limits.sendsInFlight, welcome.timeMs - now);
    this.sync();
    if (this.#watched?.length) this.send({ type: 'watch', users: this.#watched });
    for (const [conversation, seq] of this.#reads) this.send({ type: 'read', conversation, seq });
    this.tick(now);
    return true;
  }

  #checkStore(storeId: StoreId): void {
    if (this.#storeId === storeId) return;
    if (this.#storeId !== null) {
      this.logs.clear();
      this.#reads.clear();
      this.do({ do: 'forget', conversation: null });
      this.emit('storeChanged', { old: this.#storeId, new: storeId });
    }
    this.#storeId = storeId;
    if (this.me !== null) this.do({ do: 'save', change: { kind: 'store', user: this.me, storeId } });
  }

  /** Asks what changed, unless that is being asked. */
  sync(): void {
    this.syncing = true;
    this.syncAt = Infinity;
    for (const frame of this.logs.sync()) {
      if (frame.more) this.send({ type: 'sync', ...frame });
      else this.#request({ for: 'sync' }, { type: 'sync', ...frame });
    }
  }

  /** A link has ended. Only the end of the current one means being offline. */
  disconnected(link: number): void {
    for (const [question, [asked, purpose]] of this.requests) {
      if (asked !== link) continue;
      this.requests.delete(question);
      if (purpose.for === 'question') this.do({ do: 'answer', question, answer: 'offline' });
    }
    if (this.link !== link) return;
    this.link = null;
    this.syncing = false;
    this.syncAt = Infinity;
    this.sends.offline();
    this.logs.offline();
  }

  /** The application makes a change. It leaves when it is `saved`, now or later. */
  submit(change: Change, saved: boolean, now: number): void {
    const { tempId } = change;
    this.sends.add(change, now, saved, false);
    if (change.type === 'send') {
      const { to, text, data, replyTo } = change;
      this.emit('echo', { tempId, to, text, data, replyTo, createdMs: now, restored: false });
    }
    this.tick(now);
  }

  /** These changes are saved. */
  saved(tempIds: TempId[], now: number): void {
    for (const tempId of tempIds) this.sends.saved(tempId);
    this.tick(now);
  }

  /** A change could not be saved, so it is not accepted. */
  notSaved(tempId: TempId, problem: string): void {
    const change = this.sends.remove(tempId);
    if (change) this.fail(change, new TernError('notSaved', `could not be saved: ${problem}`));
  }

  /** The application confirmed entries. */
  confirm(positions: Position[]): void {
    const news = positions.filter((position) => this.logs.confirm(position));
    for (const position of news) this.do({ do: 'save', change: { kind: 'cursor', ...position } });
    while (this.link !== null && news.length > 0) {
      this.send({ type: 'ack', positions: news.splice(0, ACK_POSITIONS_MAX) });
    }
  }

  /** The application has room for so many entries. */
  setRoom(events: number, now: number): void {
    this.logs.room.events = events;
    for (let some = this.logs.drain(now); some; some = this.logs.drain(now)) this.handOut(...some);
    this.tick(now);
  }

  /**
   * The application asks something. Gives the number under which the answer comes, or why there
   * will be none.
   */
  ask(frame: Frame): number | 'offline' | 'full' {
    if (this.link === null) return 'offline';
    const open = [...this.requests.values()].filter(([, purpose]) => purpose.for === 'question');
    return open.length < QUESTIONS_MAX ? this.#request({ for: 'question' }, frame) : 'full';
  }

  read(conversation: ConversationId, position: number): void {
    // Above the head it would mean that this client knows more than the server.
    const log = this.logs.logs.get(conversation);
    const seq = Math.min(position, log?.heard ?? position);
    log?.readTo(seq);
    this.#reads.delete(conversation);
    this.#reads.set(conversation, seq);
    for (const oldest of this.#reads.keys()) {
      if (this.#reads.size <= READS_MAX) break;
      this.#reads.delete(oldest);
    }
    this.send({ type: 'read', conversation, seq });
  }

  /** The user has read up to here, by another word than this client's. */
  haveRead(conversation: ConversationId, seq: number, messages: number): void {
    if (this.logs.logs.get(conversation)?.readTo(seq) === false) return;
    this.emit('read', { conversation, seq, messages });
  }

  watch(users: UserId[]): void {
    this.#watched = users;
    this.send({ type: 'watch', users });
  }

  typing(to: Target): void {
    this.send({ type: 'typing', to });
  }

  /** Sends what may be sent now. */
  tick(now: number): void {
    if (this.link === null) return;
    for (;;) {
      const step = this.sends.next(now, this.#requestLast + 1);
      if (!step) break;
      this.#request(
        'attempt' in step
          ? { for: 'change', tempId: step.attempt.tempId }
          : { for: 'search', conversation: step.search },
        step.frame,
      );
    }
    if (this.syncAt <= now) this.sync();
    while (!this.syncing) {
      const fetch = this.logs.nextFetch(now, this.#requestLast + 1);
      if (!fetch) break;
      this.#request({ for: 'hole', conversation: fetch.conversation }, { type: 'fetch', ...fetch });
    }
  }

  /** When `tick` should be called without any other input. */
  wakeAt(): number {
    if (this.link === null) return Infinity;
    return Math.min(this.sends.wakeAt(), this.syncing ? Infinity : this.logs.wakeAt(), this.syncAt);
  }

  /** The client stops: everything unresolved ends so. What is saved is sent by the next client. */
  close(): void {
    for (const { tempId } of this.sends.changes) this.do({ do: 'resolved', tempId, result: closed() });
  }

  /** No cursor holds on this server: everything is synced anew. */
  resync(): void {
    for (const conversation of this.logs.clear()) {
      this.do({ do: 'save', change: { kind: 'cursorDropped', conversation } });
    }
    this.do({ do: 'forget', conversation: null });
    this.emit('resync', { conversation: null });
    if (this.link !== null) this.sync();
  }

  #request(purpose: Purpose, frame: Frame): number {
    const request = ++this.#requestLast;
    if (this.link !== null) this.requests.set(request, [this.link, purpose]);
    this.send(frame, request);
    return request;
  }

  /** Without a session nothing is sent. */
  send(frame: Frame, request: number | null = null): void {
    if (this.link !== null) this.do({ do: 'send', envelope: { request, frame } });
  }

  handOut(conversation: ConversationId, outs: Out[]): void {
    for (const out of outs) {
      if (!('entry' in out)) {
        this.emit('gap', { conversation, ...out });
        continue;
      }
      const { seq, body, sender, messages } = out.entry;
      if (body.kind === 'left' && isErased(body.user)) this.emit('erased', { conversation, seq });
      this.emit('entry', { conversation, entry: out.entry });
      // Whoever writes has read what is above.
      if (body.kind === 'message' && sender === this.me) this.haveRead(conversation, seq, messages);
    }
  }

  resolve(ack: SendAck): void {
    this.do({ do: 'save', change: { kind: 'resolved', tempId: ack.tempId } });
    this.do({ do: 'resolved', tempId: ack.tempId, result: ack });
    this.emit('sent', ack);
  }

  fail(change: Change, error: TernError): void {
    const { tempId } = change;
    this.do({ do: 'save', change: { kind: 'resolved', tempId } });
    this.do({ do: 'resolved', tempId, result: error });
    this.emit('sendFailed', { tempId, to: targetOf(change, this.me), error });
  }
}

/** The request may succeed later as it is, perhaps with another token. */
export const passing = (error: { code: number; temporary: boolean }): boolean =>
  error.temporary || /^(authenticate|reconnect|backOff)$/.test(classOf(error.code));

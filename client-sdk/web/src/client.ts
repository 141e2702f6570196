// The client: what an application can ask for. The work is done by the driver.
import { type Config, type Resolved, resolve } from './config.js';
import { Driver } from './driver.js';
import type { Handler } from './emitter.js';
import { closed, refused, TernError, temporary } from './errors.js';
import type { Events, State, Transport } from './events.js';
import { INVALID_ARGUMENT, LIMIT_EXCEEDED } from './generated/codes.js';
import type {
  BlockedUser,
  ConversationPage,
  Fetch,
  Frame,
  GroupLeft,
  ListConversations,
  MemberInfo,
  Page,
  Role,
  SendAck,
  Welcome,
} from './generated/frames.js';
import { WATCH_USERS_MAX } from './generated/limits.js';
import {
  type ConversationId,
  checkConversation,
  checkTarget,
  checkUser,
  freshUuid,
  IdError,
  type Target,
  type TempId,
  type UserId,
} from './ids.js';
import { type Change, problemOf, settled } from './ledger/change.js';
import { type Dialers, dialers } from './link/dial.js';

/** Wait before a question is asked again where the server gives no hint, in ms. */
const RETRY_MS = 250;

/** A change on its way: a promise of its ack. Ignoring it takes nothing back. */
export interface Sending extends Promise<SendAck> {
  /** Its id, which its entry in the log carries as well. */
  readonly tempId: TempId;
}

/** What a message may have besides its text. */
export interface SendOptions {
  /**
   * Any JSON value, for the application: at most 16 KiB together with the text, which may be empty
   * then. It arrives in the body of the entry.
   */
  data?: unknown;
  /** The seq of the earlier entry of the same conversation that this message answers. */
  replyTo?: number | null | undefined;
  /**
   * For applications that keep their own list of messages: the same id with the same content is the
   * same message.
   */
  tempId?: TempId | undefined;
}

/** Where in the log a page of history lies; nothing: at its end. At most one of them. */
export interface Anchor {
  /** Entries below this seq, the highest of them. */
  before?: number;
  /** Entries above this seq, the lowest of them. */
  after?: number;
  /** Entries on both sides of this seq, itself included. */
  around?: number;
  /** Most entries of the page, 1 to 200. Default 50. */
  limit?: number;
}

/** How the client is doing, for an inspector. */
export interface Stats {
  transport: Transport | null;
  /** Open streams of the link. */
  streams: number;
  /** Time of the last ping and its answer, in ms. */
  rttMs: number | null;
  /** Sessions so far; all but the first are resumes. */
  sessions: number;
  /** Changes that are neither durable nor refused. */
  pending: number;
  /** The seq up to which entries were handed out, by conversation. */
  cursors: Map<ConversationId, number>;
}

/**
 * A chat client. It keeps one session open, reconnects by itself, re-sends what is not acked, and
 * hands every entry of every conversation to the application once and in order.
 */
export class Client {
  readonly #driver: Driver;
  readonly #config: Resolved;
  readonly #unhook: () => void;

  /** @internal */
  constructor(config: Resolved, dialers: Dialers) {
    this.#config = config;
    this.#driver = new Driver(config, dialers);
    this.#unhook = hook((networkChanged) => this.#nudge(networkChanged));
    this.#driver.start();
  }

  /** The state of the connection now. */
  get state(): State {
    return this.#driver.links.state;
  }

  /** The newest session's Welcome: user, device, store, limits. Null before the first one. */
  get session(): Welcome | null {
    return this.#driver.links.welcome;
  }

  /** The user, once that is known: from the saved state, or from the first session. */
  get user(): UserId | null {
    return this.#driver.ledger.me;
  }

  get stats(): Stats {
    const { links, ledger } = this.#driver;
    const { current } = links;
    return {
      transport: current?.link.transport ?? null,
      streams: current?.link.streams ?? 0,
      rttMs: current?.rttMs ?? null,
      sessions: links.count,
      pending: this.#driver.unresolved,
      cursors: new Map([...ledger.logs.logs].map(([conversation, log]) => [conversation, log.handed ?? 0])),
    };
  }

  /** Resolves when there is a session; rejects if the client stops, or if there is none in time. */
  sessionOpen(): Promise<void> {
    const { links } = this.#driver;
    const config = this.#config;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        off();
        reject(
          new TernError('timeout', `no session within ${config.connectTimeoutMs / 1000} s: ${links.trouble}`),
        );
      }, config.connectTimeoutMs);
      const off = links.watchState((state) => {
        if (state.state === 'connecting' || state.state === 'offline') return;
        clearTimeout(timer);
        off();
        if (state.state === 'closed') reject(state.error);
        else resolve();
      });
    });
  }

  /** Tells `handler` of every event of this name. Gives the function that ends that. */
  on<Name extends keyof Events>(name: Name, handler: Handler<Name>): () => void {
    return this.#driver.emitter.on(name, handler);
  }

  /**
   * Sends a message to a user or a conversation. The promise gives its seq and id when it is durable,
   * over reconnects if need be. Messages to one conversation become durable in the order of the calls.
   */
  send(to: Target, text: string, { data, replyTo, tempId }: SendOptions = {}): Sending {
    return this.#change({
      type: 'send',
      to,
      text,
      tempId: tempId ?? freshUuid(),
      ageMs: null,
      data: data ?? null,
      replyTo: replyTo ?? null,
    });
  }

  /** Makes a group of these users and the own one, who becomes its owner. The ack names it. */
  createGroup(name: string, members: UserId[] = []): Sending {
    return this.#change({ type: 'create_group', name, members, tempId: freshUuid() });
  }

  /** Adds members to a group (admins and owners). */
  addMembers(conversation: ConversationId, users: UserId[]): Sending {
    return this.#change({ type: 'add_members', conversation, users, tempId: freshUuid() });
  }

  /** Removes members from a group (admins remove members, owners anyone). */
  removeMembers(conversation: ConversationId, users: UserId[]): Sending {
    return this.#change({ type: 'remove_members', conversation, users, tempId: freshUuid() });
  }

  /** Leaves a group. */
  leave(conversation: ConversationId): Sending {
    return this.#change({ type: 'leave_group', conversation, tempId: freshUuid() });
  }

  /** Renames a group (admins and owners). */
  rename(conversation: ConversationId, name: string): Sending {
    return this.#change({ type: 'rename_group', conversation, name, tempId: freshUuid() });
  }

  /** Changes a member's role (owners). */
  setRole(conversation: ConversationId, user: UserId, role: Role): Sending {
    return this.#change({ type: 'set_role', conversation, user, role, tempId: freshUuid() });
  }

  #change(change: Change): Sending {
    const driver = this.#driver;
    const promise = new Promise<SendAck>((resolve, reject) => {
      const problem = problemBefore(change);
      if (problem) return reject(problem);
      if (driver.stopped) return reject(closed());
      if (driver.unresolvedHas(change.tempId)) {
        return reject(new TernError('inUse', 'a send with this tempId is unresolved'));
      }
      if (driver.unresolved >= this.#config.pendingMax) {
        return reject(new TernError('full', 'too many unresolved sends'));
      }
      driver.submit(settled(change), {
        resolve: (result) => (result instanceof TernError ? reject(result) : resolve(result)),
      });
    });
    // Whoever wants to know listens to it or to `sendFailed`.
    promise.catch(() => {});
    return Object.assign(promise, { tempId: change.tempId });
  }

  /** A page of history: consecutive entries, newest first, with the bounds of what this member may see. */
  async history(conversation: ConversationId, anchor: Anchor = {}): Promise<Page> {
    const { before = null, after = null, around = null, limit = 50 } = anchor;
    const id = checked(() => checkConversation(conversation));
    const fetch: Fetch = { conversation: id, before, after, around, limit };
    const page = await this.#ask({ type: 'fetch', ...fetch }, 'page');
    return {
      conversation: page.conversation,
      entries: page.entries,
      firstSeq: page.firstSeq,
      head: page.head,
    };
  }

  /**
   * A page of the user's conversations, most recently changed first: from the start without a
   * `cursor`, else after the page whose `next` it was. `limit` is 1 to 200.
   */
  async conversations({
    cursor = null,
    limit = 50,
  }: Partial<ListConversations> = {}): Promise<ConversationPage> {
    const page = await this.#ask({ type: 'list_conversations', cursor, limit }, 'conversation_page');
    return { conversations: page.conversations, next: page.next };
  }

  /** The members of a conversation in the order they joined. */
  async members(conversation: ConversationId): Promise<MemberInfo[]> {
    const id = checked(() => checkConversation(conversation));
    return (await this.#ask({ type: 'list_members', conversation: id }, 'member_list')).members;
  }

  /**
   * Blocks a user, who is not told: between the two no messages in their 1-on-1 conversation, nobody of the
   * two puts the other in a group, and neither sees whether the other is there. Groups that both are in stay.
   */
  async block(user: UserId): Promise<void> {
    await this.#ask({ type: 'block', user: checked(() => checkUser(user)) }, 'block_changed');
  }

  /** Takes a block back. */
  async unblock(user: UserId): Promise<void> {
    await this.#ask({ type: 'unblock', user: checked(() => checkUser(user)) }, 'block_changed');
  }

  /** Everybody whom the user blocks, in the order of the bytes of the ids. */
  async blocks(): Promise<BlockedUser[]> {
    const blocks: BlockedUser[] = [];
    let after: UserId | null = null;
    do {
      const list: Extract<Frame, { type: 'block_list' }> = await this.#ask(
        { type: 'list_blocks', after },
        'block_list',
      );
      blocks.push(...list.users);
      after = list.next;
    } while (after !== null);
    return blocks;
  }

  /**
   * Stays in a group into which somebody else has put the user, without writing in it: it counts no more
   * towards how many that may be.
   */
  async keep(conversation: ConversationId): Promise<void> {
    const id = checked(() => checkConversation(conversation));
    await this.#ask({ type: 'keep_group', conversation: id }, 'group_kept');
  }

  /**
   * Leaves many groups, at most `limits.leaveGroups`: each by itself, and the answer says of each what became
   * of it, in their order.
   */
  async leaveMany(conversations: readonly ConversationId[]): Promise<GroupLeft[]> {
    const ids = checked(() => conversations.map(checkConversation));
    const left = await this.#ask(
      { type: 'leave_groups', conversations: ids, tempId: freshUuid() },
      'groups_left',
    );
    return left.groups;
  }

  /**
   * Asks what has changed, and resolves when all of that was handed out. Every new session does so
   * by itself; this is for those who want to wait for it.
   */
  sync(): Promise<void> {
    return this.#driver.stopped ? Promise.reject(closed()) : this.#driver.sync();
  }

  /** Tells the user's other devices, and every later one, that the user has read up to here. */
  markRead(conversation: ConversationId, seq: number): void {
    const id = checked(() => checkConversation(conversation));
    if (!Number.isSafeInteger(seq) || seq < 0) throw new TernError('config', `seq: ${seq} is not a seq`);
    this.#driver.input(() => this.#driver.ledger.read(id, seq));
  }

  /**
   * Watches the presence of these users (at most 200), and of these only, over reconnects.
   * Answered by `presence` events.
   */
  watchPresence(users: readonly UserId[]): void {
    if (users.length > WATCH_USERS_MAX) {
      throw refused(LIMIT_EXCEEDED, `watch_users: ${users.length} of at most ${WATCH_USERS_MAX}`);
    }
    const known = checked(() => users.map(checkUser));
    this.#driver.input(() => this.#driver.ledger.watch(known));
  }

  /** Shows the user as typing for some 5 s. May be lost. */
  typing(to: Target): void {
    const target = checked(() => checkTarget(to));
    this.#driver.apply(() => this.#driver.ledger.typing(target));
  }

  /**
   * With `confirm: 'manual'`: the application has handled every entry of this conversation up to
   * `seq`. It is saved and acked to the server within some 50 ms.
   */
  confirm(conversation: ConversationId, seq: number): void {
    this.#driver.emitter.confirm(conversation, seq);
  }

  /**
   * The network may be back: connects soon if it waits, else asks the server for a sign of life, which
   * measures `stats.rttMs` anew. Browsers that tell of the network do this by themselves.
   */
  nudge(): void {
    this.#nudge(false);
  }

  #nudge(networkChanged: boolean): void {
    this.#driver.apply((now) => this.#driver.links.nudge(networkChanged, now));
  }

  /** Breaks the link without a word, as a lost network does: to see that it heals. */
  dropLink(): void {
    this.#driver.apply((now) => this.#driver.links.end({ lost: 'the application cut the link' }, now));
  }

  /**
   * Stops the client: acks and saves what was confirmed, tells the server, closes. Unresolved sends
   * end with an error of kind `closed`; with `persist` the next client sends them. Takes at most 2 s.
   */
  async close(): Promise<void> {
    this.#unhook();
    await this.#driver.stop(closed());
  }

  async #ask<Type extends Frame['type']>(frame: Frame, type: Type): Promise<Extract<Frame, { type: Type }>> {
    const driver = this.#driver;
    const config = this.#config;
    const deadline = driver.clock.now() + config.requestTimeoutMs;
    let last = 'no answer';
    while (driver.clock.now() < deadline) {
      if (driver.stopped) throw closed();
      let wait = RETRY_MS;
      const answer = await within(driver.ask(frame), deadline - driver.clock.now());
      if (answer === 'full') throw new TernError('full', 'too many open requests');
      if (answer === 'offline') last = 'not connected';
      else if (answer && 'frame' in answer) {
        if (answer.frame.type === type) return answer.frame as Extract<Frame, { type: Type }>;
        last = 'the answer was of another kind';
      } else if (answer) {
        const { code, detail, retryAfterMs } = answer.error;
        if (!answer.error.temporary && !temporary(code)) throw refused(code, detail);
        last = `${code}: ${detail}`;
        wait = retryAfterMs ?? RETRY_MS;
      }
      const pause = Math.min(wait, deadline - driver.clock.now());
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    throw new TernError('timeout', `no answer within ${config.requestTimeoutMs / 1000} s: ${last}`);
  }
}

/** What cannot be used is an error of this package, whatever found it. */
function checked<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof IdError) throw refused(INVALID_ARGUMENT, error.message);
    throw error;
  }
}

function problemBefore(change: Change): TernError | null {
  try {
    return checked(() => problemOf(change));
  } catch (error) {
    return error as TernError;
  }
}

function within<T>(promise: Promise<T>, ms: number): Promise<T | null> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(null), ms);
    promise.then((value) => {
      clearTimeout(timer);
      resolve(value);
    });
  });
}

/** Calls back when the network or the page comes back; timers of hidden pages are late. */
function hook(nudge: (networkChanged: boolean) => void): () => void {
  const online = () => nudge(true);
  const shown = () => document.visibilityState === 'visible' && nudge(false);
  const scope = globalThis as unknown as Partial<Window>;
  scope.addEventListener?.('online', online);
  scope.document?.addEventListener('visibilitychange', shown);
  return () => {
    scope.removeEventListener?.('online', online);
    scope.document?.removeEventListener('visibilitychange', shown);
  };
}

/** Starts a client that connects in the background, and returns at once. Throws if `config` cannot be used. */
export function start(config: Config): Client {
  const resolved = resolve(config);
  return new Client(resolved, dialers(resolved.hashes));
}

/**
 * Starts a client and waits for its first session. Rejects if the configuration cannot be used, at
 * once after a refusal that trying again does not mend, or when there is no session in time; the
 * client is stopped then.
 */
export async function connect(config: Config): Promise<Client> {
  const client = start(config);
  try {
    await client.sessionOpen();
    return client;
  } catch (error) {
    await client.close();
    throw error;
  }
}

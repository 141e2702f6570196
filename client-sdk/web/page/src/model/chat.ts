// The chat of one user: everything the page shows, kept up to date by the events of the SDK.
import { batch, type Signal, signal } from '@preact/signals';
import {
  type Client,
  Code,
  type ConversationId,
  type Entry,
  isErased,
  type Page,
  pairOf,
  type State,
  type Target,
  type TempId,
  TernError,
  type UserId,
  type UserPresence,
} from '../sdk.js';
import { Conversation } from './conversation.js';
import { Filler } from './filler.js';
import { Journal } from './journal.js';
import { happened, wentWrong } from './words.js';

/** How long a typing notice is shown, in ms. */
const TYPING_MS = 5_000;
/** Typing notices leave at most this often, in ms. */
const TYPING_EVERY_MS = 3_000;
/** Conversations in one page of the list. */
const LIST_PAGE = 50;
/** The list is asked for again at most this often, in ms. */
const RELOAD_MS = 500;
/** The users on screen are told to the server at most this often, in ms. */
const WATCH_MS = 600;
/** Most users that one session may watch. */
const WATCH_MAX = 200;

/** A chat. */
export class Chat {
  readonly client: Client;
  readonly me: UserId;
  readonly state: Signal<State>;
  /** The open conversation. */
  readonly selected: Signal<Conversation | null> = signal(null);
  /** Changes with everything that the list of conversations shows. */
  readonly listed: Signal<number> = signal(0);
  /** Changes with names and presence. */
  readonly people: Signal<number> = signal(0);
  /** The list was loaded once. */
  readonly loaded: Signal<boolean> = signal(false);
  /** Whom the user blocks. */
  readonly blocked: Signal<ReadonlySet<UserId>> = signal(new Set());
  /** The last thing that a screen reader should say. */
  readonly said: Signal<string> = signal('');
  /** Something that did not work, to be shown until it is closed. */
  readonly alarm: Signal<string | null> = signal(null);
  readonly journal = new Journal();
  readonly filler: Filler;
  private readonly conversations = new Map<ConversationId, Conversation>();
  private readonly names = new Map<UserId, string>();
  private readonly presence = new Map<UserId, UserPresence>();
  private nextList: string | null = null;
  private listing = false;
  private reloadTimer: ReturnType<typeof setTimeout> | undefined;
  private watchTimer: ReturnType<typeof setTimeout> | undefined;
  private watched = '';
  private typedMs = 0;

  constructor(client: Client, me: UserId) {
    this.client = client;
    this.me = me;
    this.state = signal(client.state);
    this.filler = new Filler(client, (conversation, page) => this.paged(conversation, page));
    this.listen();
    void this.loadList();
    void this.loadBlocks();
  }

  private listen(): void {
    const { client } = this;
    client.on('state', (state) => this.stateChanged(state));
    client.on('entry', ({ conversation, entry }) => batch(() => this.arrived(conversation, entry)));
    client.on('gap', ({ conversation, to }) => this.conversations.get(conversation)?.skipped(to));
    client.on('conversations', (summaries) =>
      batch(() => {
        for (const summary of summaries) this.summarised(summary);
        this.listed.value++;
      }),
    );
    client.on('echo', ({ tempId, to, text, createdMs }) => {
      const conversation = this.at(to);
      conversation.pending = [...conversation.pending, { tempId, text, createdMs, seq: null, failed: null }];
      conversation.lastTimeMs = Math.max(conversation.lastTimeMs, createdMs);
      conversation.touch();
      this.listed.value++;
    });
    client.on('sent', ({ conversation: id, tempId, seq, recipientUnknown }) => {
      const conversation = this.conversations.get(id);
      if (!conversation) return;
      conversation.changePending(tempId, { seq });
      conversation.notice =
        recipientUnknown && conversation.peer !== null
          ? `Nobody called “${conversation.peer}” has ever been here. The message waits for them.`
          : null;
    });
    client.on('sendFailed', ({ tempId, to, error }) => {
      if (to !== null && error.kind !== 'closed')
        this.at(to).changePending(tempId, { failed: wentWrong(error) });
    });
    client.on('typing', ({ conversation, user }) => {
      if (user !== this.me) this.conversations.get(conversation)?.startTyping(user, TYPING_MS);
    });
    client.on('read', ({ conversation, seq, messages }) => {
      this.conversations.get(conversation)?.read(seq, messages);
      this.listed.value++;
    });
    client.on('presence', (users) => {
      for (const one of users) this.presence.set(one.user, one);
      this.people.value++;
    });
    client.on('blockChanged', ({ user, blocked }) => this.blockChanged(user, blocked));
    client.on('storeChanged', () =>
      this.startAnew('The server has another store than before: the chat starts anew.'),
    );
    client.on('resync', ({ conversation }) => {
      if (conversation === null)
        return this.startAnew('The server’s log was restored: the chat was loaded anew.');
      this.conversations.get(conversation)?.forget();
      this.reload();
    });
    client.on('erased', ({ conversation, seq }) => this.conversations.get(conversation)?.erasedBefore(seq));
    client.on('problem', ({ detail, code }) => this.journal.add(`Not understood (${code}): ${detail}`, true));
    client.on('persistence', ({ problem }) => {
      this.journal.add(`Not saved: ${problem}`, true);
      this.alarm.value = `This browser could not save: ${problem}`;
    });
  }

  private stateChanged(state: State): void {
    this.state.value = state;
    this.journal.state(state);
    const name = this.client.session?.name ?? null;
    if (name !== null && this.names.get(this.me) !== name) {
      this.names.set(this.me, name);
      this.people.value++;
    }
    if (state.state === 'offline' || state.state === 'closed') {
      // Whoever is not connected knows nothing of others; the next session tells it anew.
      this.presence.clear();
      this.people.value++;
    }
  }

  private arrived(id: ConversationId, entry: Entry): void {
    const { me } = this;
    this.learn(entry);
    let conversation = this.conversations.get(id);
    if (!conversation) {
      const pair = pairOf(me, entry.sender) === id;
      conversation = this.add(new Conversation(id, pair ? 'pair' : 'group', pair ? entry.sender : null));
    }
    // A summary says who the other one is, and where the log starts for us.
    if (!conversation.known || (entry.body.kind === 'added' && entry.body.users.includes(me))) this.reload();
    conversation.arrived(entry, me);
    this.listed.value++;
    if (conversation === this.selected.value && entry.sender !== me) {
      const { body } = entry;
      this.said.value =
        body.kind === 'message'
          ? `${this.nameOf(entry.sender)}: ${body.text}`
          : happened(entry, me, this.nameOf);
    }
  }

  private summarised(summary: Parameters<Conversation['summarised']>[0]): void {
    const { conversation: id, kind, peer, name } = summary;
    const conversation = this.conversations.get(id) ?? this.add(new Conversation(id, kind, peer));
    const news = !conversation.known;
    conversation.summarised(summary);
    // Whom one could not see before one may see now.
    if (news) this.watched = '';
    // It was opened before it was known what is unread in it.
    if (news && conversation === this.selected.value && conversation.unread > 0)
      conversation.marker = conversation.readSeq;
    if (peer !== null && name !== null && this.names.get(peer) !== name) {
      this.names.set(peer, name);
      this.people.value++;
    }
  }

  private add(conversation: Conversation): Conversation {
    this.conversations.set(conversation.id, conversation);
    this.listed.value++;
    return conversation;
  }

  /** The conversation with a user, or of this id. */
  at(target: Target): Conversation {
    const pair = !target.startsWith('c:');
    const id = pair ? pairOf(this.me, target) : target;
    return (
      this.conversations.get(id) ??
      this.add(new Conversation(id, pair ? 'pair' : 'group', pair ? target : null))
    );
  }

  private learn({ sender, senderName }: Entry): void {
    if (senderName === null || this.names.get(sender) === senderName) return;
    this.names.set(sender, senderName);
    this.people.value++;
  }

  private paged(conversation: Conversation, page: Page): void {
    batch(() => {
      for (const entry of page.entries) this.learn(entry);
      conversation.paged(page);
      this.listed.value++;
    });
  }

  private startAnew(why: string): void {
    this.alarm.value = why;
    for (const conversation of this.conversations.values()) conversation.forget();
    this.reload();
  }

  /** Asks for the newest part of the list again, soon. */
  private reload(): void {
    this.reloadTimer ??= setTimeout(() => {
      this.reloadTimer = undefined;
      void this.loadList();
    }, RELOAD_MS);
  }

  private async loadList(cursor: string | null = null): Promise<void> {
    try {
      const { conversations, next } = await this.client.conversations({ cursor, limit: LIST_PAGE });
      batch(() => {
        for (const summary of conversations) this.summarised(summary);
        if (cursor !== null || !this.loaded.value) this.nextList = next;
        this.loaded.value = true;
        this.listed.value++;
      });
      // What was opened by its id alone stands somewhere in the list.
      const open = this.selected.value;
      if (open && !open.known && open.peer === null && next !== null) await this.loadList(next);
    } catch (error) {
      if (error instanceof TernError && error.retryable) this.reload();
    }
  }

  private async loadBlocks(): Promise<void> {
    try {
      this.blocked.value = new Set((await this.client.blocks()).map(({ user }) => user));
    } catch (error) {
      this.journal.add(`Whom you block is not known: ${wentWrong(error)}`, true);
    }
  }

  private blockChanged(user: UserId, blocked: boolean): void {
    const now = new Set(this.blocked.value);
    if (blocked) now.add(user);
    else now.delete(user);
    this.blocked.value = now;
  }

  /** Blocks a user, or takes it back. */
  async setBlocked(user: UserId, blocked: boolean): Promise<void> {
    try {
      await (blocked ? this.client.block(user) : this.client.unblock(user));
      this.blockChanged(user, blocked);
    } catch (error) {
      this.alarm.value = wentWrong(error);
    }
  }

  /** The end of the list is on screen: its next page. */
  async loadMore(): Promise<void> {
    if (this.listing || this.nextList === null) return;
    this.listing = true;
    await this.loadList(this.nextList);
    this.listing = false;
  }

  /** Everything to show in the list, most recent first. */
  list(): Conversation[] {
    const shown = [...this.conversations.values()].filter(
      (one) => one.log.head > 0 || one.pending.length > 0 || one === this.selected.value,
    );
    return shown.sort((a, b) => b.lastTimeMs - a.lastTimeMs || (a.id < b.id ? -1 : 1));
  }

  get unread(): number {
    let sum = 0;
    for (const conversation of this.conversations.values()) sum += conversation.unread;
    return sum;
  }

  /** What a user is called: the name in their token, else their id. */
  readonly nameOf = (user: UserId): string =>
    isErased(user) ? 'Erased user' : (this.names.get(user) ?? user);

  titleOf({ kind, peer, name }: Conversation): string {
    if (kind === 'group') return name ?? 'Group';
    return peer === this.me ? 'Notes to myself' : this.nameOf(peer ?? 'erased:');
  }

  presenceOf(user: UserId): UserPresence | null {
    return this.presence.get(user) ?? null;
  }

  select(conversation: Conversation | null): void {
    if (conversation) {
      conversation.marker = conversation.unread > 0 ? conversation.readSeq : null;
      conversation.notice = null;
    }
    this.selected.value = conversation;
    this.listed.value++;
    if (conversation && !conversation.known) void this.filler.newest(conversation);
    if (conversation?.kind === 'group' && conversation.members === null) void this.loadMembers(conversation);
  }

  async loadMembers(conversation: Conversation): Promise<void> {
    try {
      const members = await this.client.members(conversation.id);
      for (const { user, name } of members) if (name !== null) this.names.set(user, name);
      conversation.members = members;
      conversation.touch();
      this.people.value++;
    } catch (error) {
      const gone = error instanceof TernError && error.code === Code.NOT_FOUND;
      if (gone) conversation.members = [];
      conversation.trouble = gone ? null : wentWrong(error);
      conversation.touch();
    }
  }

  /** Accepts a message for sending. */
  send(conversation: Conversation, text: string): void {
    const to =
      conversation.kind === 'pair' && conversation.peer !== null ? conversation.peer : conversation.id;
    conversation.marker = null;
    this.typedMs = 0;
    const sending = this.client.send(to, text);
    sending.catch((error: TernError) => {
      // What was accepted stands in the conversation and says there that it failed.
      const accepted = conversation.pending.some(({ tempId }) => tempId === sending.tempId);
      if (!accepted && error.kind !== 'closed') this.alarm.value = wentWrong(error);
    });
  }

  retry(conversation: Conversation, tempId: TempId, text: string): void {
    conversation.dropPending(tempId);
    this.send(conversation, text);
  }

  /** The user is typing. */
  typing(conversation: Conversation): void {
    const now = Date.now();
    if (now - this.typedMs < TYPING_EVERY_MS || conversation.role === null) return;
    this.typedMs = now;
    this.client.typing(conversation.peer ?? conversation.id);
  }

  /** Everything up to here was on the screen. */
  seen(conversation: Conversation, seq: number): void {
    const entry = conversation.log.get(seq);
    if (!entry || seq <= conversation.readSeq || !conversation.known) return;
    conversation.read(seq, entry.messages);
    this.client.markRead(conversation.id, seq);
    this.listed.value++;
  }

  /** These users are on the screen, the most important first. */
  watch(users: readonly UserId[]): void {
    const wanted = [...new Set(users)].filter((user) => user !== this.me).slice(0, WATCH_MAX);
    const key = JSON.stringify([...wanted].sort());
    clearTimeout(this.watchTimer);
    if (key === this.watched) return;
    this.watchTimer = setTimeout(() => {
      this.watched = key;
      this.client.watchPresence(wanted);
    }, WATCH_MS);
  }
}

// One conversation as the page shows it.
import { type Signal, signal } from '@preact/signals';
import type {
  ConversationId,
  ConversationSummary,
  Entry,
  MemberInfo,
  Page,
  Role,
  TempId,
  UserId,
} from '../sdk.js';
import { Log } from './log.js';

/** An own message that has no place in the log yet. */
export interface Pending {
  tempId: TempId;
  text: string;
  createdMs: number;
  /** Its seq, once it is durable. */
  seq: number | null;
  /** Why it failed for good, for people. */
  failed: string | null;
}

/** Where somebody was in a conversation when they left it: a row and how far it was from the top. */
export interface Place {
  seq: number;
  offset: number;
}

/** A conversation. Whoever shows it reads `changed` and is shown anew with every change. */
export class Conversation {
  readonly id: ConversationId;
  readonly changed: Signal<number> = signal(0);
  readonly log = new Log();
  kind: 'pair' | 'group';
  /** The other user of a pair. */
  peer: UserId | null;
  /** Name of a group. */
  name: string | null = null;
  role: Role | null = 'member';
  readSeq = 0;
  /** Messages in the log up to `readSeq`, and up to the newest entry. */
  private readMessages = 0;
  private headMessages = 0;
  lastTimeMs = 0;
  /** Own messages on their way, in order. */
  pending: Pending[] = [];
  /** Who is typing, and the timer that ends it. */
  readonly typing = new Map<UserId, ReturnType<typeof setTimeout>>();
  /** Members of a group; null: not asked for yet. */
  members: MemberInfo[] | null = null;
  /** A word about the last message, such as that nobody knows its recipient. */
  notice: string | null = null;
  /** Why entries are missing on the screen, for people. */
  trouble: string | null = null;
  /** The seq after which everything was new when the conversation was opened. */
  marker: number | null = null;
  /** Where to go on; null: at the newest entry. */
  place: Place | null = null;
  /** A summary or an entry has said what this is; before that it is only a wish to write. */
  known = false;

  constructor(id: ConversationId, kind: 'pair' | 'group', peer: UserId | null) {
    this.id = id;
    this.kind = kind;
    this.peer = peer;
  }

  touch(): void {
    this.changed.value++;
  }

  /** The newest entry, if it is here. */
  get last(): Entry | undefined {
    return this.log.get(this.log.head);
  }

  /** Messages that the user has not read. */
  get unread(): number {
    return Math.max(0, this.headMessages - this.readMessages);
  }

  summarised(summary: ConversationSummary): void {
    this.known = true;
    this.kind = summary.kind;
    this.peer = summary.peer;
    if (summary.kind === 'group') this.name = summary.name;
    this.role = summary.role;
    this.log.first = Math.max(1, summary.firstSeq);
    this.log.head = Math.max(this.log.head, summary.head);
    this.headMessages = Math.max(this.headMessages, summary.headMessages);
    this.read(summary.readSeq, summary.readMessages);
    this.lastTimeMs = Math.max(this.lastTimeMs, summary.lastTimeMs);
    this.touch();
  }

  /** The next entry of the log. */
  arrived(entry: Entry, me: UserId): void {
    const { body, sender, seq } = entry;
    if (seq === 1 && body.kind === 'created') this.kind = 'group';
    this.add([entry]);
    this.lastTimeMs = Math.max(this.lastTimeMs, entry.timeMs);
    this.settle((pending) => pending.tempId === entry.tempId);
    this.stopTyping(sender);
    this.changeMembers(entry, me);
    this.touch();
  }

  /** Some entries of the log, as a page of history brings them. */
  paged({ entries, firstSeq, head }: Page): void {
    this.log.first = Math.max(1, firstSeq);
    this.log.head = Math.max(this.log.head, head);
    this.add(entries);
    this.touch();
  }

  private add(entries: readonly Entry[]): void {
    this.log.add(entries);
    for (const { messages } of entries) this.headMessages = Math.max(this.headMessages, messages);
  }

  /** The log starts anew. */
  forget(): void {
    this.log.reset();
    this.readSeq = this.readMessages = this.headMessages = 0;
    this.known = false;
    this.touch();
  }

  /** Earlier entries may have become tombstones: they are read again when somebody looks. */
  erasedBefore(seq: number): void {
    this.log.forgetBefore(seq);
    this.touch();
  }

  private changeMembers({ body, sender }: Entry, me: UserId): void {
    switch (body.kind) {
      case 'created':
        this.name = body.name;
        if (sender === me) this.role = 'owner';
        break;
      case 'renamed':
        this.name = body.name;
        return;
      case 'added':
        if (body.users.includes(me)) this.role = 'member';
        break;
      case 'removed':
        if (body.users.includes(me)) this.role = null;
        break;
      case 'left':
        if (body.user === me) this.role = null;
        break;
      case 'roleChanged':
        if (body.user === me) this.role = body.role;
        break;
      default:
        return;
    }
    // Asked for again when somebody looks.
    this.members = null;
  }

  /** The user has read up to here, on this device or another; so many messages are up to there. */
  read(seq: number, messages: number): void {
    if (seq <= this.readSeq) return;
    this.readSeq = seq;
    this.readMessages = messages;
    this.touch();
  }

  /** Entries up to `seq` will not come by themselves: own messages among them are in the log as well. */
  skipped(seq: number): void {
    this.log.head = Math.max(this.log.head, seq);
    this.settle((pending) => pending.seq !== null && pending.seq <= seq);
    this.touch();
  }

  private settle(done: (pending: Pending) => boolean): void {
    if (this.pending.some(done)) this.pending = this.pending.filter((pending) => !done(pending));
  }

  changePending(tempId: TempId, change: Partial<Pending>): void {
    this.pending = this.pending.map((one) => (one.tempId === tempId ? { ...one, ...change } : one));
    this.touch();
  }

  dropPending(tempId: TempId): void {
    this.settle((pending) => pending.tempId === tempId);
    this.touch();
  }

  /** Somebody types, for so many milliseconds. */
  startTyping(user: UserId, ms: number): void {
    clearTimeout(this.typing.get(user));
    const timer = setTimeout(() => {
      this.stopTyping(user);
      this.touch();
    }, ms);
    this.typing.set(user, timer);
    this.touch();
  }

  private stopTyping(user: UserId): void {
    clearTimeout(this.typing.get(user));
    this.typing.delete(user);
  }
}

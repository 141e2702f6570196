// Asks for entries that somebody wants to see, the ones on the screen now first.
import { type Client, Code, type ConversationId, type Page, TernError } from '../sdk.js';
import type { Conversation } from './conversation.js';
import { PAGE, type Span } from './log.js';
import { wentWrong } from './words.js';

/** Requests of one conversation at a time. */
const OPEN_MAX = 2;
/** Requests for last entries at a time. */
const LAST_OPEN_MAX = 4;
/** Wait after a request that failed, in ms. */
const RETRY_MS = 2_000;

/** What one conversation waits for. */
interface Wish {
  span: Span;
  open: Set<number>;
  retry: ReturnType<typeof setTimeout> | undefined;
}

/** Fills logs with what is looked at. */
export class Filler {
  private readonly client: Client;
  private readonly wishes = new Map<ConversationId, Wish>();
  private readonly lasts = new Set<Conversation>();
  private lastsOpen = 0;
  /** Tells what a page brought. */
  private readonly got: (conversation: Conversation, page: Page) => void;

  constructor(client: Client, got: (conversation: Conversation, page: Page) => void) {
    this.client = client;
    this.got = got;
  }

  /** This part is on the screen; an earlier wish for the same conversation does not count any more. */
  want(conversation: Conversation, span: Span): void {
    let wish = this.wishes.get(conversation.id);
    if (!wish) {
      wish = { span, open: new Set(), retry: undefined };
      this.wishes.set(conversation.id, wish);
    }
    wish.span = span;
    this.go(conversation, wish);
  }

  private go(conversation: Conversation, wish: Wish): void {
    while (wish.open.size < OPEN_MAX && wish.retry === undefined) {
      const missing = this.nextMissing(conversation, wish);
      if (!missing) return;
      const { from, to } = missing;
      wish.open.add(from);
      this.client.history(conversation.id, { after: from - 1, limit: to - from + 1 }).then(
        (page) => {
          wish.open.delete(from);
          conversation.trouble = null;
          this.got(conversation, page);
          conversation.log.trim((wish.span.from + wish.span.to) / 2);
          // An answer without what was asked for would be asked for again for ever.
          if (page.entries.length > 0) this.go(conversation, wish);
        },
        (error) => {
          wish.open.delete(from);
          conversation.trouble = wentWrong(error);
          conversation.touch();
          clearTimeout(wish.retry);
          wish.retry = setTimeout(() => {
            wish.retry = undefined;
            this.go(conversation, wish);
          }, RETRY_MS);
        },
      );
    }
  }

  /** The first missing page of the wish that nobody has asked for. */
  private nextMissing({ log }: Conversation, { span, open }: Wish): Span | null {
    let { to } = span;
    while (to >= span.from) {
      const missing = log.missing({ from: span.from, to });
      if (!missing) return null;
      if (!open.has(missing.from)) return missing;
      to = missing.from - 1;
    }
    return null;
  }

  /** The newest entry is wanted, for the list of conversations. */
  wantLast(conversation: Conversation): void {
    if (!conversation.known || conversation.last || conversation.log.head === 0) return;
    this.lasts.add(conversation);
    this.goLasts();
  }

  private goLasts(): void {
    for (const conversation of this.lasts) {
      if (this.lastsOpen >= LAST_OPEN_MAX) return;
      this.lasts.delete(conversation);
      if (conversation.last) continue;
      this.lastsOpen++;
      this.client
        .history(conversation.id, { limit: 1 })
        .then((page) => this.got(conversation, page))
        // The row stays without its line; the next look at it asks again.
        .catch(() => {})
        .finally(() => {
          this.lastsOpen--;
          this.goLasts();
        });
    }
  }

  /** The newest page, of a conversation of which nothing is known yet. */
  async newest(conversation: Conversation): Promise<void> {
    try {
      this.got(conversation, await this.client.history(conversation.id, { limit: PAGE }));
    } catch (error) {
      // A pair is made by its first message.
      if (conversation.peer !== null && error instanceof TernError && error.code === Code.NOT_FOUND) return;
      conversation.trouble = wentWrong(error);
      conversation.touch();
    }
  }
}

// The event emitter: what waits for the listeners of the application, and what they confirmed.
import type { Event, Events } from './events.js';
import type { ConversationId } from './ids.js';

/** Most events that wait while nobody listens. */
const HELD_MAX = 1_024;

/** Tells one kind of event. */
export type Handler<Name extends keyof Events> = (value: Events[Name]) => void;

/**
 * Events reach the listeners at once, in order. Those that come while nobody listens to anything
 * wait, and entries wait for a listener to entries; what does not fit is fetched again.
 */
export class Emitter {
  readonly #listeners = new Map<string, Set<(value: never) => void>>();
  #held: Event[] = [];
  /** What has waited is about to be told. */
  #flushing = false;
  /** Positions that were handled and that the driver has not taken yet. */
  #confirmed = new Map<ConversationId, number>();
  readonly #manual: boolean;
  /** Wakes the driver: something was confirmed, or there is room. */
  readonly #wake: () => void;

  constructor(manual: boolean, wake: () => void) {
    this.#manual = manual;
    this.#wake = wake;
  }

  on<Name extends keyof Events>(name: Name, handler: Handler<Name>): () => void {
    let handlers = this.#listeners.get(name);
    if (!handlers) {
      handlers = new Set();
      this.#listeners.set(name, handlers);
    }
    handlers.add(handler);
    // All that are added in one go are told from the first event on.
    if (!this.#flushing) queueMicrotask(() => this.#flush());
    this.#flushing = true;
    return () => {
      handlers.delete(handler);
      if (handlers.size === 0) this.#listeners.delete(name);
    };
  }

  /** How many entries may be pushed. */
  get room(): number {
    return this.#listeners.has('entry') ? Infinity : Math.max(0, HELD_MAX - this.#held.length);
  }

  push(event: Event): void {
    if (!this.#flushing && this.#awaited(event)) return this.#tell(event);
    // Whoever listens so late asks for lists and for the state.
    if (isLog(event) || this.#held.length < HELD_MAX) this.#held.push(event);
  }

  /** Somebody listens to events of this kind. */
  #awaited(event: Event): boolean {
    return isLog(event) ? this.#listeners.has('entry') : this.#listeners.size > 0;
  }

  /** Tells what has waited; what comes meanwhile comes after it. */
  #flush(): void {
    const kept: Event[] = [];
    for (let event = this.#held.shift(); event; event = this.#held.shift()) {
      if (this.#awaited(event)) this.#tell(event);
      else kept.push(event);
    }
    this.#held = kept;
    this.#flushing = false;
    this.#wake();
  }

  #tell(event: Event): void {
    for (const handler of this.#listeners.get(event.name) ?? []) {
      try {
        handler(event.value as never);
      } catch (error) {
        // The application's own fault, told as such; the others go on.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
    if (!this.#manual && event.name === 'entry')
      this.confirm(event.value.conversation, event.value.entry.seq);
    if (!this.#manual && event.name === 'gap') this.confirm(event.value.conversation, event.value.to);
  }

  /** Drops entries and confirmations of logs that do not count any more. */
  forget(conversation: ConversationId | null): void {
    const gone = (id: ConversationId) => conversation === null || conversation === id;
    this.#held = this.#held.filter((event) => !isLog(event) || !gone(event.value.conversation));
    for (const id of this.#confirmed.keys()) if (gone(id)) this.#confirmed.delete(id);
  }

  /** Every entry up to `seq` was handled. */
  confirm(conversation: ConversationId, seq: number): void {
    if (seq <= (this.#confirmed.get(conversation) ?? 0)) return;
    this.#confirmed.set(conversation, seq);
    this.#wake();
  }

  get anyConfirmed(): boolean {
    return this.#confirmed.size > 0;
  }

  /** What was confirmed since the last call. */
  takeConfirmed(): { conversation: ConversationId; seq: number }[] {
    const taken = [...this.#confirmed].map(([conversation, seq]) => ({ conversation, seq }));
    this.#confirmed.clear();
    return taken;
  }
}

/** It is of a log, whose order and completeness are promised. */
const isLog = (event: Event): event is Extract<Event, { name: 'entry' | 'gap' | 'erased' }> =>
  ['entry', 'gap', 'erased'].includes(event.name);

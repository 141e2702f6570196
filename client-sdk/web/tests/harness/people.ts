// Clients as tests see them: what they were told, and ways to wait for more.
import type { Client, Entry, Events } from '../../src/index.js';

/** Waits until something is so; the deadline only ends a test that hangs. */
export async function until<T>(what: string, look: () => T | Promise<T>): Promise<NonNullable<T>> {
  for (const end = Date.now() + 30_000; ; ) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`hangs: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** A client with everything it was told. */
export class Person {
  readonly client: Client;
  readonly entries: (Entry & { conversation: string })[] = [];
  readonly events: { name: string; value: unknown }[] = [];

  constructor(client: Client) {
    this.client = client;
    client.on('entry', ({ conversation, entry }) => this.entries.push({ conversation, ...entry }));
    const names: (keyof Events)[] = [
      'gap',
      'echo',
      'sent',
      'sendFailed',
      'presence',
      'typing',
      'read',
      'blockChanged',
      'conversations',
      'state',
      'storeChanged',
      'resync',
      'persistence',
      'problem',
    ];
    for (const name of names) client.on(name, (value) => this.events.push({ name, value }));
  }

  told<Name extends keyof Events>(name: Name): Events[Name][] {
    return this.events.filter((event) => event.name === name).map(({ value }) => value as Events[Name]);
  }

  get states(): string[] {
    return this.told('state').map(({ state }) => state);
  }

  /** The texts of one conversation (or of all) in the order in which they came. */
  texts(conversation?: string): string[] {
    return this.entries.flatMap((entry) =>
      entry.body.kind === 'message' && (conversation ?? entry.conversation) === entry.conversation
        ? [entry.body.text]
        : [],
    );
  }

  seqs(conversation: string): number[] {
    return this.entries.filter((entry) => entry.conversation === conversation).map(({ seq }) => seq);
  }
}

/** 1 to n. */
export const upTo = (n: number): number[] => Array.from({ length: n }, (_, at) => at + 1);

// Pending sends and cursors in IndexedDB, one database for each user. Several tabs share it: each sends
// its own messages, and one of them, by a Web Lock, takes over what tabs that are gone left unsent.
import type { Persistence, SavedChange, SavedSend, SavedState } from '../saved.js';
import { type Names, Tabs } from './tabs.js';

export type { Persistence, SavedChange, SavedSend, SavedState, SavedTransport } from '../saved.js';

/** Where the state of a user is kept. */
export interface Options {
  /** Whose state it is: the `sub` of the tokens. */
  user: string;
  /** Begins the names of the database and the locks. Default `tern`. */
  name?: string;
}

/** A saved message, with the tab that sends it. */
interface Row extends SavedSend {
  tab: string;
}

const META = 'meta';
const CURSORS = 'cursors';
const SENDS = 'sends';

/** Keeps the state of one user in IndexedDB, for `Config.persist`. */
export function indexedDb({ user, name = 'tern' }: Options): Persistence {
  return new Database({ user, prefix: `${name}/${user}` });
}

class Database implements Persistence {
  readonly #names: Names;
  readonly #tabs: Tabs;
  #db: IDBDatabase | null = null;
  #storeId = '';
  #closed = false;

  constructor(names: Names) {
    this.#names = names;
    this.#tabs = new Tabs(names);
  }

  async load(adopt: (sends: SavedSend[]) => void): Promise<SavedState> {
    const db = await open(this.#names.prefix);
    if (this.#closed) db.close();
    else this.#db = db;
    await this.#tabs.enter();
    const { meta, cursors, rows } = await this.#read();
    this.#storeId = (meta.get('storeId') as string | undefined) ?? '';
    // What tabs left that are gone is taken over before anything new is sent.
    const foreign = new Set(rows.map(({ tab }) => tab).filter((tab) => tab !== this.#tabs.id));
    for (const tab of foreign) await this.#tabs.ifGone(tab, () => this.#takeOver(tab));
    const sends = await this.#sendsOf(this.#tabs.id);
    this.#tabs.lead(
      async () => (await this.#read()).rows.map(({ tab }) => tab),
      async (tab) => adopt(await this.#takeOver(tab)),
    );
    return {
      user: this.#names.user,
      storeId: this.#storeId || null,
      device: (meta.get('device') as string | undefined) ?? null,
      cursors: cursors.flatMap(([[store, conversation], seq]) =>
        store === this.#storeId ? [[conversation, seq]] : [],
      ),
      sends,
      transport: (meta.get('transport') as SavedState['transport'] | undefined) ?? null,
    };
  }

  async save(changes: SavedChange[]): Promise<void> {
    const { done, store } = this.#begin('readwrite');
    const [meta, cursors, sends] = [store(META), store(CURSORS), store(SENDS)];
    /** The last word on each cursor; null: dropped. */
    const moved = new Map<string, number | null>();
    for (const change of changes) {
      switch (change.kind) {
        case 'device':
          meta.put(change.device, 'device');
          break;
        case 'transport':
          meta.put(change.transport, 'transport');
          break;
        case 'store':
          this.#storeId = change.storeId;
          moved.clear();
          meta.put(change.storeId, 'storeId');
          // Cursors of other stores hold nowhere: an array is above every string.
          cursors.delete(IDBKeyRange.upperBound([change.storeId]));
          cursors.delete(IDBKeyRange.lowerBound([change.storeId, []]));
          break;
        case 'cursor':
          moved.set(change.conversation, change.seq);
          break;
        case 'cursorDropped':
          moved.set(change.conversation, null);
          break;
        case 'send': {
          const row: Row = { ...change.send, tab: this.#tabs.id };
          const old = sends.index('tempId').getKey(row.tempId);
          old.onsuccess = () => {
            if (old.result === undefined) sends.add(row);
          };
          break;
        }
        case 'resolved': {
          const found = sends.index('tempId').getKey(change.tempId);
          found.onsuccess = () => {
            if (found.result !== undefined) sends.delete(found.result);
          };
        }
      }
    }
    for (const [conversation, seq] of moved) {
      const key = [this.#storeId, conversation];
      const old = cursors.get(key);
      old.onsuccess = () => {
        if (seq === null) cursors.delete(key);
        // Another tab may be further.
        else if (!(old.result >= seq)) cursors.put(seq, key);
      };
    }
    await done;
  }

  close(): void {
    this.#closed = true;
    this.#tabs.leave();
    this.#db?.close();
    this.#db = null;
  }

  async #read() {
    const { done, store } = this.#begin('readonly');
    const meta = new Map<IDBValidKey, unknown>();
    const cursors: [[string, string], number][] = [];
    each(store(META), (key, value) => meta.set(key, value));
    each(store(CURSORS), (key, value) => cursors.push([key as [string, string], value as number]));
    const rows = store(SENDS).getAll() as IDBRequest<Row[]>;
    await done;
    return { meta, cursors, rows: rows.result };
  }

  async #sendsOf(tab: string): Promise<SavedSend[]> {
    const { rows } = await this.#read();
    return rows.filter((row) => row.tab === tab || !this.#tabs.locks).map(({ tab: _, ...send }) => send);
  }

  /** The messages of a tab that is gone are this one's. */
  async #takeOver(tab: string): Promise<SavedSend[]> {
    const { done, store } = this.#begin('readwrite');
    const taken: SavedSend[] = [];
    each(store(SENDS), (_, value, cursor) => {
      const { tab: owner, ...send } = value as Row;
      if (owner !== tab) return;
      taken.push(send);
      cursor.update({ ...send, tab: this.#tabs.id });
    });
    await done;
    return taken;
  }

  #begin(mode: IDBTransactionMode) {
    if (!this.#db) throw new Error('the database is closed');
    const transaction = this.#db.transaction([META, CURSORS, SENDS], mode);
    const done = new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error ?? new Error('the transaction was given up'));
    });
    return { done, store: (name: string) => transaction.objectStore(name) };
  }
}

function each(
  store: IDBObjectStore,
  tell: (key: IDBValidKey, value: unknown, cursor: IDBCursorWithValue) => void,
) {
  const request = store.openCursor();
  request.onsuccess = () => {
    const cursor = request.result;
    if (!cursor) return;
    tell(cursor.primaryKey, cursor.value, cursor);
    cursor.continue();
  };
}

function open(name: string): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => {
      const db = request.result;
      db.createObjectStore(META);
      db.createObjectStore(CURSORS);
      // The key is the order in which messages were accepted.
      db.createObjectStore(SENDS, { autoIncrement: true }).createIndex('tempId', 'tempId', { unique: true });
    };
    request.onerror = () => reject(request.error);
    request.onsuccess = () => {
      const db = request.result;
      // A later version of the package, or somebody who clears everything, is not held up.
      db.onversionchange = () => db.close();
      resolve(db);
    };
  });
}

// A server and a network for the pure ledger, both out of plain data: links lose, repeat and reorder as
// they may, the server refuses, crashes between commit and ack, and drops queued entries.
import type { Envelope } from '../../src/codec/frames.js';
import type { Entry, ErrorFrame, Frame, Limits, Send } from '../../src/generated/frames.js';
import { GAP_TAIL, GAP_WHOLE_MAX } from '../../src/generated/limits.js';
import { conversationOf } from '../../src/ids.js';
import { receive } from '../../src/ledger/inbound.js';
import { Ledger } from '../../src/ledger/ledger.js';
import { emptyState, type SavedChange, type SavedState } from '../../src/saved.js';

export const LIMITS: Limits = {
  frameBytes: 65536,
  textBytes: 16384,
  nameBytes: 128,
  groupMembers: 100,
  pageEntries: 200,
  watchUsers: 200,
  sendsInFlight: 8,
  syncCursors: 512,
  syncCursorsTotal: 10_000,
  ackPositions: 100,
  gapWhole: 500,
  gapTail: 50,
  dedupeWindowS: 604800,
  sessionsPerUser: 20,
  keepaliveS: 20,
  deadAfterS: 45,
  sendsPerSecond: 50,
  blocks: 1_000,
  leaveGroups: 100,
  addedGroups: 500,
};

/** A source of numbers below n that a seed determines (mulberry32). */
export function random(seed: number): (below: number) => number {
  let state = seed | 0;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const uuid = (number: number): string => `00000000-0000-7000-8000-${number.toString(16).padStart(12, '0')}`;

/** One open connection: frames on their way, in streams whose order among each other is free. */
interface Connection {
  number: number;
  device: Device;
  up: Envelope[];
  down: Map<string, Envelope[]>;
  /** The first unresolved send that was refused for the moment, by conversation. */
  blocked: Map<string, string>;
}

/** All the server knows. */
export class World {
  now = 1_000_000;
  readonly logs = new Map<string, Entry[]>();
  readonly devices: Device[] = [];
  private readonly markers = new Map<string, number>();
  private connections = 0;
  private ids = 0;
  readonly pick: (below: number) => number;
  /** How many of a hundred sends are refused for the moment. */
  refusals = 0;
  readonly limits: Limits = { ...LIMITS };

  constructor(seed: number) {
    this.pick = random(seed);
  }

  log(conversation: string): Entry[] {
    const log = this.logs.get(conversation) ?? [];
    this.logs.set(conversation, log);
    return log;
  }

  connect(device: Device): Connection {
    const number = ++this.connections;
    return { number, device, up: [], down: new Map(), blocked: new Map() };
  }

  /** The server takes one frame of a client. */
  take(connection: Connection, { request, frame }: Envelope): void {
    const answer = (stream: string, ...frames: Frame[]) => {
      const queue = connection.down.get(stream) ?? [];
      queue.push(...frames.map((frame) => ({ request, frame })));
      connection.down.set(stream, queue);
    };
    switch (frame.type) {
      case 'send':
        answer('control', this.onSend(connection, frame));
        break;
      case 'sync':
        answer('backlog', ...this.onSync(connection, frame.cursors));
        break;
      case 'fetch': {
        const log = this.log(frame.conversation);
        const from = (frame.after ?? 0) + 1;
        const entries = log
          .filter(({ seq }) => seq >= from)
          .slice(0, Math.min(frame.limit ?? 20, 1 + this.pick(20)));
        const { conversation } = frame;
        answer('backlog', {
          type: 'page',
          conversation,
          entries: entries.reverse(),
          firstSeq: 1,
          head: log.length,
        });
        break;
      }
      case 'ack':
        for (const { conversation, seq } of frame.positions) connection.device.acked(conversation, seq);
    }
  }

  private onSend(connection: Connection, frame: Send & Frame): Frame {
    const { device, blocked } = connection;
    const conversation = conversationOf(frame.to, device.user);
    const key = `${conversation} ${device.user} ${frame.tempId}`;
    const refuse = (code: number): ErrorFrame & { type: 'error' } => ({
      type: 'error',
      code,
      temporary: true,
      retryAfterMs: this.pick(2) ? this.pick(50) : null,
      detail: 'not now',
      tempId: frame.tempId,
      conversation: null,
    });
    const waits = blocked.get(conversation);
    if (waits !== undefined && waits !== frame.tempId) return refuse(4305);
    if (this.pick(100) < this.refusals) {
      blocked.set(conversation, frame.tempId);
      return refuse(4304);
    }
    blocked.delete(conversation);
    const log = this.log(conversation);
    const known = this.markers.get(key);
    const seq = known ?? log.length + 1;
    const entry: Entry = log[seq - 1] ?? {
      seq,
      id: uuid(++this.ids),
      timeMs: this.now,
      sender: device.user,
      senderName: null,
      tempId: frame.tempId,
      messages: seq,
      body: { kind: 'message', text: frame.text, data: frame.data, replyTo: frame.replyTo },
    };
    if (known === undefined) {
      this.markers.set(key, seq);
      log.push(entry);
    }
    for (const other of this.devices) {
      if (other.connection && other.connection !== connection)
        this.deliver(other.connection, conversation, entry);
    }
    const { tempId } = frame;
    const duplicate = known !== undefined;
    return {
      type: 'send_ack',
      tempId,
      conversation,
      seq,
      id: entry.id,
      timeMs: entry.timeMs,
      messages: entry.messages,
      duplicate,
      recipientUnknown: false,
    };
  }

  private deliver({ down }: Connection, conversation: string, entry: Entry): void {
    const queue = down.get(conversation) ?? [];
    queue.push({ request: null, frame: { type: 'deliver', conversation, entries: [entry] } });
    // The same once more is allowed at any time.
    if (this.pick(8) === 0)
      queue.push({ request: null, frame: { type: 'deliver', conversation, entries: [entry] } });
    down.set(conversation, queue);
  }

  private onSync(connection: Connection, cursors: { conversation: string; seq: number }[]): Frame[] {
    const frames: Frame[] = [];
    const known = new Map(cursors.map(({ conversation, seq }) => [conversation, seq]));
    for (const [conversation, log] of this.logs) {
      const cursor = known.get(conversation) ?? 0;
      const head = log.length;
      if (head <= cursor) continue;
      const peer = { kind: 'pair', name: null, peer: null, role: 'owner', addedBy: null } as const;
      const counts = { head, headMessages: head, firstSeq: 1, readSeq: 0, readMessages: 0, unread: head };
      frames.push({
        type: 'sync_page',
        conversations: [{ conversation, ...peer, ...counts, lastTimeMs: this.now }],
      });
      let from = cursor + 1;
      if (head - from >= GAP_WHOLE_MAX) {
        frames.push({ type: 'gap', conversation, from, to: head - GAP_TAIL });
        from = head - GAP_TAIL + 1;
      }
      for (let at = from; at <= head; at += 7) {
        frames.push({ type: 'deliver', conversation, entries: log.slice(at - 1, Math.min(head, at + 6)) });
      }
    }
    frames.push({ type: 'sync_end', changed: frames.length });
    // Those of a session that syncs are read one after the other, whoever connected.
    return connection.device.connection === connection ? frames : [];
  }

  /** Queued entries of one conversation of this connection are dropped, and the client is told. */
  lag({ down }: Connection): void {
    const streams = [...down].filter(([name, queue]) => name.startsWith('c:') && queue.length > 0);
    const stream = streams[this.pick(streams.length || 1)];
    if (!stream) return;
    const [conversation] = stream;
    const head = this.log(conversation).length;
    down.set(conversation, [{ request: null, frame: { type: 'lagged', conversation, head } }]);
  }
}

/** A client: the pure ledger, its saved state, and what it handed out. */
export class Device {
  readonly user: string;
  ledger = new Ledger(emptyState());
  connection: Connection | null = null;
  /** What the application was told, by conversation: seqs, and texts where there are any. */
  seen = new Map<string, { seq: number; text: string | null; tempId: string | null }[]>();
  /** The last seq that was handed out in this life or named in a gap. */
  readonly at = new Map<string, number>();
  readonly confirmed = new Map<string, number>();
  readonly sent: { conversation: string; tempId: string; text: string }[] = [];
  readonly resolved = new Set<string>();
  readonly faults: string[] = [];
  private readonly world: World;
  private saved: SavedState = emptyState();
  private made = 0;

  constructor(world: World, user: string) {
    this.world = world;
    this.user = user;
    this.ledger.logs.room.events = Infinity;
    world.devices.push(this);
  }

  open(): void {
    this.cut();
    const connection = this.world.connect(this);
    this.connection = connection;
    const welcome = {
      session: connection.number,
      user: this.user,
      name: null,
      device: this.user,
      storeId: uuid(1),
      server: 'model',
      features: 0,
      timeMs: this.world.now,
      tokenExpiresMs: this.world.now + 1e9,
      limits: this.world.limits,
    };
    this.ledger.connected(connection.number, welcome, this.world.now);
    this.run();
  }

  /** The link breaks: what is on its way in either direction is lost. */
  cut(): void {
    if (!this.connection) return;
    const { number } = this.connection;
    this.connection = null;
    this.ledger.disconnected(number);
    this.run();
  }

  /** The application is closed and starts again from what was saved. */
  reload(): void {
    this.cut();
    this.ledger = new Ledger(structuredClone(this.saved));
    this.ledger.logs.room.events = Infinity;
    for (const [conversation] of this.at) this.at.set(conversation, this.confirmed.get(conversation) ?? 0);
    for (const [conversation, seen] of this.seen) {
      const from = this.confirmed.get(conversation) ?? 0;
      this.seen.set(
        conversation,
        seen.filter(({ seq }) => seq <= from),
      );
    }
    this.run();
  }

  submit(to: string): void {
    const tempId = uuid(this.world.devices.indexOf(this) * 1e6 + ++this.made);
    const text = `${this.user} ${this.made}`;
    this.sent.push({ conversation: conversationOf(to, this.user), tempId, text });
    const message = { tempId, to, text, data: null, replyTo: null };
    this.saved.sends.push({ ...message, createdMs: this.world.now });
    this.ledger.submit({ type: 'send', ...message, ageMs: null }, true, this.world.now);
    this.run();
  }

  /** Takes the next frame of one stream of the server. */
  receive(): boolean {
    const { connection } = this;
    const streams = [...(connection?.down ?? [])].filter(([, queue]) => queue.length > 0);
    const envelope = streams[this.world.pick(streams.length || 1)]?.[1].shift();
    if (!connection || !envelope) return false;
    receive(this.ledger, connection.number, envelope, this.world.now);
    this.run();
    return true;
  }

  /** The server takes the next frame of this client. */
  transmit(): boolean {
    const envelope = this.connection?.up.shift();
    if (!this.connection || !envelope) return false;
    this.world.take(this.connection, envelope);
    return true;
  }

  tick(): void {
    this.ledger.tick(this.world.now);
    this.run();
  }

  /** The application confirms some of what it has. */
  confirm(): void {
    const positions = [...this.at].map(([conversation, seq]) => ({
      conversation,
      seq: this.world.pick(seq + 1),
    }));
    for (const { conversation, seq } of positions) {
      if (seq > (this.confirmed.get(conversation) ?? 0)) this.confirmed.set(conversation, seq);
    }
    this.ledger.confirm(positions);
    this.run();
  }

  /** The server heard of an ack. */
  acked(conversation: string, seq: number): void {
    if (seq > (this.confirmed.get(conversation) ?? 0)) this.faults.push(`${this.user} acked ${seq} unasked`);
  }

  private run(): void {
    for (let effect = this.ledger.pop(); effect; effect = this.ledger.pop()) {
      if (effect.do === 'send') this.connection?.up.push(effect.envelope);
      if (effect.do === 'resolved') this.resolved.add(effect.tempId);
      if (effect.do === 'save') this.save(effect.change);
      if (effect.do === 'emit' && effect.event.name === 'problem')
        this.faults.push(effect.event.value.detail);
      if (effect.do === 'emit' && effect.event.name === 'sendFailed') this.faults.push('a send failed');
      if (effect.do === 'emit' && effect.event.name === 'gap') {
        const { conversation, from, to } = effect.event.value;
        this.advance(conversation, from);
        this.at.set(conversation, to);
      }
      if (effect.do === 'emit' && effect.event.name === 'entry') {
        const { conversation, entry } = effect.event.value;
        this.advance(conversation, entry.seq);
        const text = entry.body.kind === 'message' ? entry.body.text : null;
        const seen = this.seen.get(conversation) ?? [];
        seen.push({ seq: entry.seq, text, tempId: entry.tempId });
        this.seen.set(conversation, seen);
      }
    }
  }

  private advance(conversation: string, seq: number): void {
    const expected = (this.at.get(conversation) ?? 0) + 1;
    if (seq !== expected) this.faults.push(`${this.user} got ${seq} instead of ${expected}`);
    this.at.set(conversation, seq);
  }

  private save(change: SavedChange): void {
    const { saved } = this;
    if (change.kind === 'store') Object.assign(saved, { user: change.user, storeId: change.storeId });
    if (change.kind === 'resolved')
      saved.sends = saved.sends.filter(({ tempId }) => tempId !== change.tempId);
    if (change.kind === 'cursor') {
      saved.cursors = saved.cursors.filter(([id]) => id !== change.conversation);
      saved.cursors.push([change.conversation, change.seq]);
    }
  }
}

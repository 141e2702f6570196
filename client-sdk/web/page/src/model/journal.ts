// What happened to the connection, for the inspector.
import { type Signal, signal } from '@preact/signals';
import type { State } from '../sdk.js';

/** Lines that are kept. */
const LINES_MAX = 100;

const CONNECTING = 'Connecting';

/** A line. */
export interface Line {
  number: number;
  timeMs: number;
  text: string;
  bad: boolean;
  /** Connecting failed so often for the same reason. */
  tries: number;
}

/** The journal, newest line first. */
export class Journal {
  readonly lines: Signal<Line[]> = signal([]);
  private count = 0;

  add(text: string, bad = false): void {
    const line = { number: this.count++, timeMs: Date.now(), text, bad, tries: 1 };
    this.lines.value = [line, ...this.lines.value].slice(0, LINES_MAX);
  }

  /** The same failure again and again is one line. */
  private lost(text: string): void {
    const [attempt, before, ...rest] = this.lines.value;
    if (attempt?.text === CONNECTING && before?.text === text) {
      this.lines.value = [{ ...before, timeMs: Date.now(), tries: before.tries + 1 }, ...rest];
    } else this.add(text, true);
  }

  state(state: State): void {
    switch (state.state) {
      case 'connecting':
        return this.add(CONNECTING);
      case 'online':
        return this.add(`Connected over ${nameOf(state.transport)}`);
      case 'degraded':
        return this.add(`Connected over ${nameOf(state.transport)}, the fallback: ${state.cause}`);
      case 'offline':
        return this.lost(`Not connected: ${state.cause}`);
      case 'draining':
        return this.add('The server is going away; a new session is being opened');
      case 'closed':
        return this.add(`Stopped: ${state.error.message}`, true);
    }
  }
}

/** The transport as people write it. */
export const nameOf = (transport: string | null): string =>
  transport === 'webtransport' ? 'WebTransport' : transport === 'websocket' ? 'WebSocket' : 'none';

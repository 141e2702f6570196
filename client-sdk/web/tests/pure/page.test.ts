// The pure parts of the chat page: heights of rows, parts of logs, addresses in texts, words.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Conversation } from '../../page/src/model/conversation.js';
import { Heights } from '../../page/src/model/heights.js';
import { pieces } from '../../page/src/model/links.js';
import { KEPT_MAX, Log, PAGE } from '../../page/src/model/log.js';
import {
  bytesOf,
  cause,
  dayOf,
  happened,
  lastSeen,
  listOf,
  preview,
  wentWrong,
} from '../../page/src/model/words.js';
import { Code, type ConversationSummary, type Entry, type EntryBody, TernError } from '../../src/index.js';

const ESTIMATE = 40;

test('heights add up like a plain list of them, whatever is measured in whatever order', () => {
  const change = fc.oneof(
    fc.record({
      do: fc.constant('measure' as const),
      row: fc.nat(400),
      height: fc.integer({ min: 1, max: 900 }),
    }),
    fc.record({ do: fc.constant('resize' as const), row: fc.nat(400), height: fc.constant(0) }),
  );
  fc.assert(
    fc.property(fc.array(change, { maxLength: 60 }), (changes) => {
      const heights = new Heights(ESTIMATE);
      const plain: number[] = [];
      for (const { do: what, row, height } of changes) {
        if (what === 'resize') {
          heights.resize(row);
          while (plain.length < row) plain.push(ESTIMATE);
          plain.length = row;
        } else if (row < plain.length) {
          heights.set(row, height);
          plain[row] = height;
        }
      }
      let top = 0;
      for (const [row, height] of plain.entries()) {
        expect(heights.top(row)).toBeCloseTo(top, 3);
        expect(heights.at(top + 0.5)).toBe(row);
        expect(heights.at(top + height - 0.5)).toBe(row);
        top += height;
      }
      expect(heights.total).toBeCloseTo(top, 3);
      if (plain.length > 0) {
        expect(heights.at(-5)).toBe(0);
        expect(heights.at(top + 5)).toBe(plain.length - 1);
      }
    }),
  );
});

const message = (text: string): EntryBody => ({ kind: 'message', text, data: null, replyTo: null });
const entry = (seq: number, body: EntryBody = message(`${seq}`), sender = 'ann'): Entry => ({
  seq,
  id: '',
  timeMs: seq,
  sender,
  senderName: null,
  tempId: null,
  messages: seq,
  body,
});

test('asking for what is missing ends with everything that is seen, in whole pages', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 50 }),
      fc.integer({ min: 0, max: 700 }),
      fc.nat(700),
      fc.nat(700),
      (first, more, a, b) => {
        const log = new Log();
        log.first = first;
        log.head = first + more;
        const seen = { from: Math.min(a, b), to: Math.max(a, b) };
        for (let asked = 0; ; asked++) {
          const missing = log.missing(seen);
          if (!missing) break;
          expect(asked).toBeLessThanOrEqual(Math.ceil((seen.to - seen.from) / PAGE) + 2);
          expect(missing.to - missing.from).toBeLessThan(PAGE);
          expect(missing.from).toBeGreaterThanOrEqual(first);
          expect(missing.to).toBeLessThanOrEqual(log.head);
          log.add(Array.from({ length: missing.to - missing.from + 1 }, (_, at) => entry(missing.from + at)));
        }
        for (let seq = Math.max(first, seen.from); seq <= Math.min(log.head, seen.to); seq++) {
          expect(log.get(seq)?.seq).toBe(seq);
        }
      },
    ),
  );
});

test('a log that was scrolled through does not grow without end, and keeps what is looked at', () => {
  const log = new Log();
  for (let seq = 20_000; seq > 0; seq--) {
    log.add([entry(seq)]);
    if (seq % 100 === 0) log.trim(seq);
  }
  expect(log.size).toBeLessThanOrEqual(KEPT_MAX + 100);
  for (let seq = 1; seq <= 500; seq++) expect(log.get(seq)).toBeDefined();
  for (let seq = 19_900; seq <= 20_000; seq++) expect(log.get(seq)).toBeDefined();
});

test('the pieces of a text give the text', () => {
  const piece = fc.oneof(
    fc.string({ unit: 'grapheme' }),
    fc.webUrl(),
    fc.constantFrom('https://', 'http://a', ' ', '(', ')', '\u202e', '<b>'),
  );
  fc.assert(
    fc.property(fc.array(piece), (texts) => {
      const text = texts.join('');
      const all = pieces(text);
      expect(all.map((part) => part.text).join('')).toBe(text);
      for (const { href } of all) if (href !== null) expect(href).toMatch(/^https?:\/\//);
    }),
  );
});

test('only what leads where it says is an address', () => {
  const hrefs = (text: string) => pieces(text).flatMap(({ text, href }) => (href === null ? [] : [text]));
  expect(hrefs('see https://a.example/x_(y), and (http://b.example/).')).toEqual([
    'https://a.example/x_(y)',
    'http://b.example/',
  ]);
  expect(
    hrefs('https://bank.example@evil.example/ javascript:alert(1) data:text/html,x //a.example a.example'),
  ).toEqual([]);
  expect(hrefs('https://a.example/\u202egnp.exe')).toEqual(['https://a.example/']);
});

test('what happened in a group is said in words', () => {
  const nameOf = (user: string) => ({ ann: 'Ann', bo: 'Bo' })[user] ?? user;
  const said = (body: EntryBody, sender = 'ann') => happened(entry(1, body, sender), 'me', nameOf);
  expect(said({ kind: 'created', name: 'Crew', members: ['ann', 'bo', 'me'] })).toBe(
    'Ann made the group “Crew” with Bo and you',
  );
  expect(said({ kind: 'added', users: ['bo'] }, 'me')).toBe('You added Bo');
  expect(said({ kind: 'removed', users: ['me'] })).toBe('Ann removed you');
  expect(said({ kind: 'left', user: 'ann' })).toBe('Ann left');
  expect(said({ kind: 'roleChanged', user: 'bo', role: 'admin' })).toBe('Bo is now an admin');
  expect(listOf(['ann', 'bo', 'x', 'y'], nameOf)).toBe('Ann, Bo and 2 others');
  expect(preview(entry(1, message('a\n b\t c')), 'me', true, nameOf)).toBe('Ann: a b c');
  expect(preview(entry(1, { kind: 'erased' }), 'me', true, nameOf)).toBe('Ann: This message was erased.');
  const later: EntryBody = { kind: 'opaque', number: 200, bytes: Uint8Array.of(1) };
  expect(preview(entry(1, later), 'me', true, nameOf)).toBe('This app is too old to show this.');
  const order: EntryBody = { kind: 'message', text: '', data: { order: 7 }, replyTo: 1 };
  expect(preview(entry(1, order), 'me', true, nameOf)).toBe('Ann: This message has no text.');
});

test('times are said as people say them', () => {
  const now = new Date(2026, 4, 20, 12).getTime();
  const before = (days: number, hours = 0) => now - days * 24 * 3600_000 - hours * 3600_000;
  expect(dayOf(before(0, 11), now)).toBe('Today');
  expect(dayOf(before(0, 13), now)).toBe('Yesterday');
  expect(lastSeen(now - 30_000, now)).toBe('last seen just now');
  expect(lastSeen(now - 5 * 60_000, now)).toBe('last seen 5 minutes ago');
  expect(lastSeen(null, now)).toBe('offline');
});

test('why there is no connection is said to people, and the cause as it is', () => {
  const offline = (cause: string) => ({ state: 'offline', cause, retryAtMs: 0 }) as const;
  expect(cause(offline('4202 SHUTDOWN: this node stops'), true).headline).toBe('The server is restarting.');
  expect(cause(offline('the WebSocket could not be opened'), true)).toEqual({
    headline: 'The server cannot be reached.',
    detail: 'the WebSocket could not be opened',
  });
  expect(cause(offline('whatever'), false).headline).toBe('This device is offline.');
  const replaced = new TernError('refused', 'x', Code.SESSION_REPLACED);
  expect(cause({ state: 'closed', error: replaced }, true).headline).toMatch(/newer tab/);
  expect(wentWrong(new TernError('refused', 'x', Code.FORBIDDEN))).toBe(
    'Your role in this group does not allow that.',
  );
  expect(bytesOf('é👍')).toBe(6);
});

test('what is unread is a difference, whatever told of it and in whichever order', () => {
  const one = new Conversation('c', 'group', null);
  const read = (seq: number) => one.read(seq, one.log.get(seq)?.messages ?? 0);
  const summary: ConversationSummary = {
    conversation: 'c',
    kind: 'group',
    name: 'crew',
    peer: null,
    head: 2_000,
    headMessages: 1_900,
    firstSeq: 1,
    readSeq: 10,
    readMessages: 8,
    unread: 1_892,
    lastTimeMs: 1,
    role: 'member',
    addedBy: null,
  };
  one.summarised(summary);
  expect(one.unread).toBe(1_892);
  one.arrived({ ...entry(2_001), messages: 1_901 }, 'me');
  one.arrived({ ...entry(2_002, { kind: 'renamed', name: 'x' }), messages: 1_901 }, 'me');
  expect(one.unread).toBe(1_893);
  one.summarised(summary);
  expect(one.unread).toBe(1_893);
  one.paged({ conversation: 'c', entries: [{ ...entry(2_003), messages: 1_902 }], firstSeq: 1, head: 2_003 });
  expect(one.unread).toBe(1_894);
  read(2_001);
  expect(one.unread).toBe(1);
  one.read(1_000, 950);
  expect(one.unread).toBe(1);
  read(2_003);
  expect(one.unread).toBe(0);
  one.forget();
  expect(one.unread).toBe(0);
});

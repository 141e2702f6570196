// What the ledger makes of the server's frames, one arm per frame. Pure.
import type { Envelope } from '../codec/frames.js';
import { classOf, refused, TernError } from '../errors.js';
import { UNEXPECTED_FRAME } from '../generated/codes.js';
import type { ErrorFrame, Frame, Page, SendAck, SyncPage } from '../generated/frames.js';
import type { ConversationId, TempId } from '../ids.js';
import { type Change, targetOf } from './change.js';
import { type Ledger, passing } from './ledger.js';

/** Wait before a sync is asked for again where the server gives no hint. */
const SYNC_RETRY_MS = 1_000;

/**
 * A frame came on a link. Frames about the link itself (ping, go_away, close, tokens) are not the
 * ledger's.
 */
export function receive(ledger: Ledger, link: number, { request, frame }: Envelope, now: number): void {
  const { logs } = ledger;
  switch (frame.type) {
    case 'send_ack':
      onAck(ledger, request, frame, now);
      break;
    case 'error':
      onError(ledger, request, frame, now);
      break;
    case 'deliver':
      ledger.handOut(frame.conversation, logs.offer(frame.conversation, frame.entries, now));
      break;
    case 'gap': {
      const { conversation, from, to } = frame;
      if (from < 1 || to < from) return nonsense(ledger, `a gap from ${from} to ${to}`);
      ledger.handOut(conversation, logs.gap(conversation, from, to, now));
      break;
    }
    case 'erased':
      ledger.emit('erased', { conversation: frame.conversation, seq: frame.seq });
      break;
    case 'lagged':
      logs.hear(frame.conversation, frame.head, true, now);
      break;
    case 'sync_page':
      onSyncPage(ledger, frame, now);
      break;
    case 'sync_end':
      if (ledger.link !== link) break;
      if (request !== null) ledger.requests.delete(request);
      ledger.syncing = false;
      ledger.do({ do: 'synced' });
      break;
    case 'page':
      onPage(ledger, request, frame, now);
      break;
    case 'block_changed':
      if (request !== null) onAnswer(ledger, request, frame);
      else ledger.emit('blockChanged', { user: frame.user, blocked: frame.blocked });
      break;
    case 'group_kept':
      if (request !== null) onAnswer(ledger, request, frame);
      break;
    case 'conversation_page':
    case 'member_list':
    case 'block_list':
    case 'groups_left':
      onAnswer(ledger, request, frame);
      break;
    case 'have_read':
      ledger.haveRead(frame.conversation, frame.seq, frame.messages);
      break;
    case 'presence':
      ledger.emit('presence', frame.users);
      break;
    case 'user_typing':
      ledger.emit('typing', { conversation: frame.conversation, user: frame.user });
      break;
    default:
      return nonsense(ledger, `the frame ${frame.type} came where it may not`);
  }
  ledger.tick(now);
}

/** It has no effect, but somebody may want to know. */
function nonsense(ledger: Ledger, detail: string): void {
  ledger.emit('problem', { detail, code: UNEXPECTED_FRAME });
}

function onAck(ledger: Ledger, request: number | null, ack: SendAck, now: number): void {
  if (request !== null) ledger.requests.delete(request);
  const { conversation, seq, id, timeMs, messages, tempId } = ack;
  const change = ledger.sends.acked(tempId);
  if (change) ledger.resolve(plain(ack));
  if (change?.type === 'send' && ledger.me !== null) {
    // This session gets no Deliver for its own message: the ack stands for the entry.
    const { text, data, replyTo } = change;
    const body = { kind: 'message', text, data, replyTo } as const;
    const entry = { seq, id, timeMs, sender: ledger.me, senderName: ledger.name, tempId, messages, body };
    ledger.handOut(conversation, ledger.logs.offer(conversation, [entry], now));
  } else {
    ledger.logs.hear(conversation, seq, false, now);
  }
}

/** The ack without the name of its frame. */
function plain(ack: SendAck): SendAck {
  const { tempId, conversation, seq, id, timeMs, messages, duplicate, recipientUnknown } = ack;
  return { tempId, conversation, seq, id, timeMs, messages, duplicate, recipientUnknown };
}

function onSyncPage(ledger: Ledger, { conversations }: SyncPage, now: number): void {
  for (const summary of conversations) {
    ledger.handOut(summary.conversation, ledger.logs.summary(summary, now));
  }
  if (conversations.length > 0) ledger.emit('conversations', conversations);
}

function onPage(ledger: Ledger, request: number | null, page: Page & Frame, now: number): void {
  const { conversation } = page;
  const purpose = ledger.requests.get(request ?? 0)?.[1];
  if (request === null || !purpose || !('conversation' in purpose)) return onAnswer(ledger, request, page);
  if (purpose.conversation !== conversation) {
    return nonsense(ledger, 'a page of another conversation than was asked for');
  }
  ledger.requests.delete(request);
  if (purpose.for === 'hole') {
    const [outs, holds] = ledger.logs.page(page, request, now);
    ledger.handOut(conversation, outs);
    if (!holds) reset(ledger, conversation, now);
  } else {
    const { found, lost } = ledger.sends.searched(page, request, now);
    for (const ack of found) {
      // The server may wait for this one before it takes later ones.
      ledger.send({ type: 'abandon', to: conversation, tempId: ack.tempId });
      ledger.resolve(ack);
    }
    giveUp(ledger, lost);
  }
}

function onAnswer(ledger: Ledger, question: number | null, frame: Frame): void {
  const purpose = ledger.requests.get(question ?? 0)?.[1];
  if (question === null || purpose?.for !== 'question') {
    return nonsense(ledger, `the frame ${frame.type} answers nothing`);
  }
  ledger.requests.delete(question);
  ledger.do({ do: 'answer', question, answer: { frame } });
}

function onError(ledger: Ledger, request: number | null, error: ErrorFrame, now: number): void {
  const kind = classOf(error.code);
  if (kind === 'authenticate') ledger.do({ do: 'reauth', code: error.code });
  const again = passing(error);
  const purpose = ledger.requests.get(request ?? 0)?.[1];
  if (request !== null) ledger.requests.delete(request);
  if (!purpose || request === null) {
    if (error.tempId !== null && request === null) onRefusal(ledger, error.tempId, null, error, again, now);
    else if (kind === 'resync' && !dropCursor(ledger, error, now)) ledger.resync();
    return;
  }
  switch (purpose.for) {
    case 'change':
      return onRefusal(ledger, purpose.tempId, request, error, again, now);
    case 'hole':
      if (kind === 'resync') reset(ledger, purpose.conversation, now);
      return ledger.logs.fetchFailed(purpose.conversation, request, error, again || kind === 'resync', now);
    case 'search':
      return giveUp(ledger, ledger.sends.searchRefused(purpose.conversation, error, again, now));
    case 'question':
      return ledger.do({ do: 'answer', question: request, answer: { error } });
    case 'sync':
      if (kind === 'resync') {
        if (dropCursor(ledger, error, now)) ledger.sync();
        else ledger.resync();
      } else if (again) ledger.syncAt = now + (error.retryAfterMs ?? SYNC_RETRY_MS);
      else ledger.do({ do: 'syncRefused', error });
  }
}

function onRefusal(
  ledger: Ledger,
  tempId: TempId,
  request: number | null,
  error: ErrorFrame,
  again: boolean,
  now: number,
): void {
  const change = ledger.sends.refused(tempId, request, error, again, now);
  if (change) ledger.fail(change, refused(error.code, error.detail));
}

function giveUp(ledger: Ledger, lost: Change[]): void {
  for (const change of lost) {
    const to = targetOf(change, ledger.me);
    // The server may wait for this one before it takes later ones.
    if (to !== null) ledger.send({ type: 'abandon', to, tempId: change.tempId });
    ledger.fail(change, new TernError('expired', 'not sent within 24 hours, given up'));
  }
}

/** A cursor does not hold, of the conversation that is named; false if none is, so that no cursor counts. */
function dropCursor(ledger: Ledger, { conversation }: ErrorFrame, now: number): boolean {
  const known = conversation !== null && ledger.logs.logs.has(conversation);
  if (known) reset(ledger, conversation, now);
  return known;
}

function reset(ledger: Ledger, conversation: ConversationId, now: number): void {
  ledger.logs.reset(conversation, now);
  ledger.do({ do: 'save', change: { kind: 'cursorDropped', conversation } });
  ledger.do({ do: 'forget', conversation });
  ledger.emit('resync', { conversation });
}

// What the session makes of the server's frames, one arm per frame. Pure.
import type { Envelope } from '../codec/frames.js';
import { classOf, refused, TernError } from '../errors.js';
import { UNEXPECTED_FRAME } from '../generated/codes.js';
import type { ErrorFrame, Frame, Page, SendAck, SyncPage } from '../generated/frames.js';
import type { ConversationId, TempId } from '../ids.js';
import { type Change, targetOf } from './change.js';
import { passing, type Session } from './session.js';

/** Wait before a sync is asked for again where the server gives no hint. */
const SYNC_RETRY_MS = 1_000;

/**
 * A frame came on a link. Frames about the link itself (ping, go_away, close, tokens) are not the
 * session's.
 */
export function receive(session: Session, link: number, { request, frame }: Envelope, now: number): void {
  const { logs } = session;
  switch (frame.type) {
    case 'send_ack':
      onAck(session, request, frame, now);
      break;
    case 'error':
      onError(session, request, frame, now);
      break;
    case 'deliver':
      session.handOut(frame.conversation, logs.offer(frame.conversation, frame.entries, now));
      break;
    case 'gap': {
      const { conversation, from, to } = frame;
      if (from < 1 || to < from) return nonsense(session, `a gap from ${from} to ${to}`);
      session.handOut(conversation, logs.gap(conversation, from, to, now));
      break;
    }
    case 'erased':
      session.emit('erased', { conversation: frame.conversation, seq: frame.seq });
      break;
    case 'lagged':
      logs.hear(frame.conversation, frame.head, true, now);
      break;
    case 'sync_page':
      onSyncPage(session, frame, now);
      break;
    case 'sync_end':
      if (session.link !== link) break;
      if (request !== null) session.requests.delete(request);
      session.syncing = false;
      session.do({ do: 'synced' });
      break;
    case 'page':
      onPage(session, request, frame, now);
      break;
    case 'conversation_page':
    case 'member_list':
      onAnswer(session, request, frame);
      break;
    case 'read':
      session.emit('read', { conversation: frame.conversation, seq: frame.seq });
      break;
    case 'presence':
      session.emit('presence', frame.users);
      break;
    case 'user_typing':
      session.emit('typing', { conversation: frame.conversation, user: frame.user });
      break;
    default:
      return nonsense(session, `the frame ${frame.type} came where it may not`);
  }
  session.tick(now);
}

/** It has no effect, but somebody may want to know. */
function nonsense(session: Session, detail: string): void {
  session.emit('problem', { detail, code: UNEXPECTED_FRAME });
}

function onAck(session: Session, request: number | null, ack: SendAck, now: number): void {
  if (request !== null) session.requests.delete(request);
  const { conversation, seq, id, timeMs, tempId } = ack;
  const change = session.sends.acked(tempId);
  if (change) session.resolve(plain(ack));
  if (change?.type === 'send' && session.me !== null) {
    // This session gets no Deliver for its own message: the ack stands for the entry.
    const body = { kind: 'message', text: change.text } as const;
    const entry = { seq, id, timeMs, sender: session.me, senderName: session.name, tempId, body };
    session.handOut(conversation, session.logs.offer(conversation, [entry], now));
  } else {
    session.logs.hear(conversation, seq, false, now);
  }
}

/** The ack without the name of its frame. */
const plain = ({ tempId, conversation, seq, id, timeMs, duplicate, recipientUnknown }: SendAck): SendAck => ({
  tempId,
  conversation,
  seq,
  id,
  timeMs,
  duplicate,
  recipientUnknown,
});

function onSyncPage(session: Session, { conversations }: SyncPage, now: number): void {
  for (const { conversation, firstSeq, head } of conversations) {
    session.handOut(conversation, session.logs.summary(conversation, firstSeq, head, now));
  }
  if (conversations.length > 0) session.emit('conversations', conversations);
}

function onPage(session: Session, request: number | null, page: Page & Frame, now: number): void {
  const { conversation } = page;
  const purpose = session.requests.get(request ?? 0)?.[1];
  if (request === null || !purpose || !('conversation' in purpose)) return onAnswer(session, request, page);
  if (purpose.conversation !== conversation) {
    return nonsense(session, 'a page of another conversation than was asked for');
  }
  session.requests.delete(request);
  if (purpose.for === 'hole') {
    const [outs, holds] = session.logs.page(page, request, now);
    session.handOut(conversation, outs);
    if (!holds) reset(session, conversation, now);
  } else {
    const { found, lost } = session.sends.searched(page, request, now);
    for (const ack of found) {
      // The server may wait for this one before it takes later ones.
      session.send({ type: 'abandon', to: conversation, tempId: ack.tempId });
      session.resolve(ack);
    }
    giveUp(session, lost);
  }
}

function onAnswer(session: Session, question: number | null, frame: Frame): void {
  const purpose = session.requests.get(question ?? 0)?.[1];
  if (question === null || purpose?.for !== 'question') {
    return nonsense(session, `the frame ${frame.type} answers nothing`);
  }
  session.requests.delete(question);
  session.do({ do: 'answer', question, answer: { frame } });
}

function onError(session: Session, request: number | null, error: ErrorFrame, now: number): void {
  const kind = classOf(error.code);
  if (kind === 'authenticate') session.do({ do: 'reauth', code: error.code });
  const again = passing(error);
  const purpose = session.requests.get(request ?? 0)?.[1];
  if (request !== null) session.requests.delete(request);
  if (!purpose || request === null) {
    if (error.tempId !== null && request === null) onRefusal(session, error.tempId, null, error, again, now);
    else if (kind === 'resync') session.resync();
    return;
  }
  switch (purpose.for) {
    case 'change':
      return onRefusal(session, purpose.tempId, request, error, again, now);
    case 'hole':
      if (kind === 'resync') reset(session, purpose.conversation, now);
      return session.logs.fetchFailed(purpose.conversation, request, error, again || kind === 'resync', now);
    case 'search':
      return giveUp(session, session.sends.searchRefused(purpose.conversation, error, again, now));
    case 'question':
      return session.do({ do: 'answer', question: request, answer: { error } });
    case 'sync':
      if (kind === 'resync') session.resync();
      else if (again) session.syncAt = now + (error.retryAfterMs ?? SYNC_RETRY_MS);
      else session.do({ do: 'syncRefused', error });
  }
}

function onRefusal(
  session: Session,
  tempId: TempId,
  request: number | null,
  error: ErrorFrame,
  again: boolean,
  now: number,
): void {
  const change = session.sends.refused(tempId, request, error, again, now);
  if (change) session.fail(change, refused(error.code, error.detail));
}

function giveUp(session: Session, lost: Change[]): void {
  for (const change of lost) {
    const to = targetOf(change, session.me);
    // The server may wait for this one before it takes later ones.
    if (to !== null) session.send({ type: 'abandon', to, tempId: change.tempId });
    session.fail(change, new TernError('expired', 'not sent within 24 hours, given up'));
  }
}

function reset(session: Session, conversation: ConversationId, now: number): void {
  session.logs.reset(conversation, now);
  session.do({ do: 'save', change: { kind: 'cursorDropped', conversation } });
  session.do({ do: 'forget', conversation });
  session.emit('resync', { conversation });
}

// One row of a conversation: a message, something that happened, or a message on its way.
import type { ComponentChildren, JSX } from 'preact';
import { memo } from 'preact/compat';
import { useState } from 'preact/hooks';
import type { Chat } from '../model/chat.js';
import type { Conversation, Pending } from '../model/conversation.js';
import { pieces } from '../model/links.js';
import { dayOf, ERASED_TEXT, fullTimeOf, happened, NO_TEXT, sameDay, timeOf } from '../model/words.js';
import type { Entry } from '../sdk.js';
import { Avatar, Icon, Name } from './parts.js';

/** Messages of one sender this close together stand under one name, in ms. */
const TOGETHER_MS = 5 * 60_000;
/** A longer text is folded, in characters or lines. */
const FOLD_CHARACTERS = 2_000;
const FOLD_LINES = 24;

interface EntryProps {
  row: number;
  chat: Chat;
  conversation: Conversation;
  entry: Entry;
  above: Entry | undefined;
}

/** Somebody wrote it, and it stands in a bubble. */
const isWritten = ({ body }: Entry): boolean => body.kind === 'message' || body.kind === 'erased';

/** The day and the mark that stand above a row. */
function Separators(props: { timeMs: number; aboveMs: number | null; fresh: boolean }): JSX.Element {
  const { timeMs, aboveMs, fresh } = props;
  return (
    <>
      {(aboveMs === null || !sameDay(aboveMs, timeMs)) && (
        <p class="day">
          <span>{dayOf(timeMs, Date.now())}</span>
        </p>
      )}
      {fresh && (
        <p class="fresh-mark">
          <span>New</span>
        </p>
      )}
    </>
  );
}

export function EntryRow({ row, chat, conversation, entry, above }: EntryProps): JSX.Element {
  const { log, marker, kind } = conversation;
  const { seq, sender, body, timeMs } = entry;
  const own = sender === chat.me;
  const fresh = marker !== null && seq === marker + 1;
  const first = seq === log.first;
  const aboveMs = first ? null : (above?.timeMs ?? null);
  const together =
    !fresh &&
    above !== undefined &&
    isWritten(above) &&
    above.sender === sender &&
    timeMs - above.timeMs < TOGETHER_MS &&
    sameDay(above.timeMs, timeMs);
  return (
    <li class="row" data-row={row} data-seq={seq} aria-setsize={log.head} aria-posinset={seq}>
      {first && <Beginning chat={chat} conversation={conversation} />}
      <Separators timeMs={timeMs} aboveMs={aboveMs} fresh={fresh} />
      {isWritten(entry) ? (
        <Bubble
          own={own}
          together={together}
          sender={sender}
          name={kind === 'group' && !own ? chat.nameOf(sender) : null}
          pictured={kind === 'group' && !own}
          text={body.kind === 'message' ? body.text : null}
          timeMs={timeMs}
          status={own ? 'sent' : null}
        />
      ) : (
        <p class="event" dir="auto">
          {happened(entry, chat.me, chat.nameOf)} <time title={fullTimeOf(timeMs)}>{timeOf(timeMs)}</time>
        </p>
      )}
    </li>
  );
}

function Beginning({ chat, conversation }: { chat: Chat; conversation: Conversation }): JSX.Element {
  const title = chat.titleOf(conversation);
  const group = conversation.kind === 'group';
  return (
    <div class="beginning">
      <Avatar id={conversation.peer ?? conversation.id} name={title} group={group} />
      <p>
        {conversation.log.first > 1 ? 'From here on you are in ' : 'This is the beginning of '}
        {group ? (
          <Name text={title} />
        ) : (
          <>
            your chat with <Name text={title} />
          </>
        )}
      </p>
    </div>
  );
}

export function PendingRow(props: {
  row: number;
  chat: Chat;
  conversation: Conversation;
  pending: Pending;
  above: number | null;
}): JSX.Element {
  const { row, chat, conversation, pending, above } = props;
  const { tempId, text, createdMs, failed, seq } = pending;
  const status = failed !== null ? 'failed' : seq !== null ? 'sent' : 'pending';
  return (
    <li class="row" data-row={row} data-temp={tempId}>
      <Separators timeMs={createdMs} aboveMs={above} fresh={false} />
      <Bubble
        own
        together={above !== null}
        sender={chat.me}
        name={null}
        pictured={false}
        text={text}
        timeMs={createdMs}
        status={status}
      >
        {failed !== null && (
          <div class="failure" role="alert">
            <span>
              <Icon name="warn" /> Not sent. {failed}
            </span>
            <button type="button" class="link" onClick={() => chat.retry(conversation, tempId, text)}>
              Try again
            </button>
            <button type="button" class="link" onClick={() => conversation.dropPending(tempId)}>
              Discard
            </button>
          </div>
        )}
      </Bubble>
    </li>
  );
}

const STATUS = {
  pending: ['clock', 'on its way'],
  sent: ['check', 'sent'],
  failed: ['warn', 'not sent'],
} as const;

interface BubbleProps {
  own: boolean;
  together: boolean;
  sender: string;
  name: string | null;
  pictured: boolean;
  /** Null: it was erased. */
  text: string | null;
  timeMs: number;
  status: keyof typeof STATUS | null;
  children?: ComponentChildren;
}

function Bubble(props: BubbleProps): JSX.Element {
  const { own, together, sender, name, pictured, text, timeMs, status } = props;
  const shape = `message${own ? ' own' : ''}${together ? ' together' : ''}${status ? ` ${status}` : ''}`;
  return (
    <article class={shape}>
      {pictured &&
        (together ? <span class="avatar-space" /> : <Avatar id={sender} name={name ?? sender} small />)}
      <div class="bubble">
        {own ? (
          <span class="unseen">You: </span>
        ) : (
          name !== null && (
            <span class={together ? 'unseen' : 'sender'}>
              <Name text={name} />
            </span>
          )
        )}
        <div class="line">
          <Text text={text} />
          <span class="meta">
            <time title={fullTimeOf(timeMs)}>{timeOf(timeMs)}</time>
            {status && (
              <span class="tick" title={STATUS[status][1]}>
                <Icon name={STATUS[status][0]} />
                <span class="unseen">{STATUS[status][1]}</span>
              </span>
            )}
          </span>
        </div>
        {props.children}
      </div>
    </article>
  );
}

/** Exactly the text; nothing in it is more than text, but for addresses that can be followed. */
const Text = memo(({ text }: { text: string | null }): JSX.Element => {
  if (!text) return <p class="text no-text">{text === null ? ERASED_TEXT : NO_TEXT}</p>;
  return <Written text={text} />;
});

function Written({ text }: { text: string }): JSX.Element {
  const long = text.length > FOLD_CHARACTERS || text.split('\n', FOLD_LINES + 1).length > FOLD_LINES;
  const [open, setOpen] = useState(false);
  return (
    <>
      <p class={`text${long && !open ? ' folded' : ''}`} dir="auto">
        {pieces(text).map((part) =>
          part.href === null ? (
            part.text
          ) : (
            <a href={part.href} target="_blank" rel="noopener noreferrer nofollow">
              {part.text}
            </a>
          ),
        )}
      </p>
      {long && (
        <button type="button" class="link" aria-expanded={open} onClick={() => setOpen(!open)}>
          {open ? 'Show less' : 'Show all of it'}
        </button>
      )}
    </>
  );
}

// The list of conversations, and the field that finds one or begins one.
import { useSignal } from '@preact/signals';
import type { JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Chat } from '../model/chat.js';
import type { Conversation } from '../model/conversation.js';
import { brief, briefly, bytesOf, fullTimeOf, number, preview } from '../model/words.js';
import { Avatar, Icon, IconButton, Mark, Name } from './parts.js';

/** Height of a row, in px; the style sheet has the same. */
const ROW_PX = 64;
/** Rows beyond the screen, so that scrolling finds them there. */
const SPARE_ROWS = 6;
/** Longest user id, in bytes. */
const USER_BYTES_MAX = 128;

interface Props {
  chat: Chat;
  onInspect: () => void;
  onNewGroup: () => void;
}

export function Sidebar({ chat, onInspect, onNewGroup }: Props): JSX.Element {
  const words = useSignal('');
  chat.people.value;
  const own = chat.nameOf(chat.me);
  const state = chat.state.value;
  return (
    <nav class="sidebar" aria-label="Conversations">
      <header class="sidebar-head">
        <Mark />
        <p class="self">
          <Name text={own} />
        </p>
        <button type="button" class={`status ${state.state}`} onClick={onInspect} title="Show the connection">
          <span class="status-dot" />
          {brief(state)}
        </button>
        <IconButton icon="group" label="New group" onClick={onNewGroup} />
      </header>
      <Find chat={chat} words={words.value} onWords={(text) => (words.value = text)} />
      <List chat={chat} words={words.value} onChosen={() => (words.value = '')} />
    </nav>
  );
}

function Find(props: { chat: Chat; words: string; onWords: (text: string) => void }): JSX.Element {
  const { chat, words, onWords } = props;
  const begin = () => {
    const user = words.trim();
    if (user === '' || wrongUser(user) !== null) return;
    const [best] = matching(chat, user);
    chat.select(best && titleIs(chat, best, user) ? best : chat.at(user));
    onWords('');
    focusComposer();
  };
  return (
    <form
      class="find"
      onSubmit={(event) => {
        event.preventDefault();
        begin();
      }}
    >
      <input
        id="find"
        type="search"
        aria-label="Find a conversation, or name a user to write to"
        placeholder="Find or write to…"
        autocomplete="off"
        spellcheck={false}
        dir="auto"
        value={words}
        onInput={(event) => onWords(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === 'Escape' && words !== '') {
            event.preventDefault();
            onWords('');
          }
          if (event.key === 'ArrowDown') {
            event.preventDefault();
            document.querySelector<HTMLElement>('.conversation')?.focus();
          }
        }}
      />
      {words.trim() !== '' && <Begin words={words.trim()} wrong={wrongUser(words.trim())} onBegin={begin} />}
    </form>
  );
}

function Begin(props: { words: string; wrong: string | null; onBegin: () => void }): JSX.Element {
  if (props.wrong !== null) return <p class="begin-wrong error">{props.wrong}</p>;
  return (
    <button type="button" class="begin" onClick={props.onBegin}>
      <Icon name="plus" />
      <span>
        Write to <Name text={props.words} />
      </span>
    </button>
  );
}

function wrongUser(text: string): string | null {
  if (bytesOf(text) > USER_BYTES_MAX) {
    return `A user’s id has at most ${USER_BYTES_MAX} bytes; this has ${number(bytesOf(text))}.`;
  }
  if (text.startsWith('c:')) return 'A user’s id does not begin with “c:”.';
  return /\p{Cc}/u.test(text) ? 'A user’s id has no control characters.' : null;
}

const titleIs = (chat: Chat, one: Conversation, text: string): boolean =>
  one.peer === text || chat.titleOf(one).toLocaleLowerCase() === text.toLocaleLowerCase();

function matching(chat: Chat, words: string): Conversation[] {
  const all = chat.list();
  const wanted = words.trim().toLocaleLowerCase();
  if (wanted === '') return all;
  return all.filter((one) => `${chat.titleOf(one)}\n${one.peer ?? ''}`.toLocaleLowerCase().includes(wanted));
}

function focusComposer(): void {
  // The composer is there after the next render.
  setTimeout(() => document.getElementById('compose')?.focus());
}

/** The list; only the rows on the screen are there. */
function List(props: { chat: Chat; words: string; onChosen: () => void }): JSX.Element {
  const { chat, words, onChosen } = props;
  chat.listed.value;
  chat.people.value;
  const scroller = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 800 });
  const rows = matching(chat, words);
  const first = Math.max(0, Math.floor(view.top / ROW_PX) - SPARE_ROWS);
  const last = Math.min(rows.length, Math.ceil((view.top + view.height) / ROW_PX) + SPARE_ROWS);
  const shown = rows.slice(first, last);
  useEffect(() => {
    if (last >= rows.length) void chat.loadMore();
    for (const one of shown) chat.filler.wantLast(one);
    const open = chat.selected.value;
    const members = open?.members?.map(({ user }) => user) ?? [];
    chat.watch([...shown.flatMap(({ peer }) => (peer === null ? [] : [peer])), ...members]);
  });
  const look = () => {
    const { scrollTop: top, clientHeight: height } = scroller.current as HTMLDivElement;
    setView({ top, height });
  };
  useEffect(() => {
    const observer = new ResizeObserver(look);
    observer.observe(scroller.current as HTMLDivElement);
    return () => observer.disconnect();
  }, []);
  const choose = (one: Conversation) => {
    chat.select(one);
    onChosen();
    focusComposer();
  };
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: arrows go from row to row, which are buttons
    <div class="conversations" ref={scroller} onScroll={look} onKeyDown={moveFocus}>
      {!chat.loaded.value && rows.length === 0 && <p class="list-note quiet">Loading…</p>}
      {chat.loaded.value && rows.length === 0 && (
        <p class="list-note quiet">
          {words === '' ? 'Nobody has written yet. Name somebody above to begin.' : 'None found.'}
        </p>
      )}
      <ul style={{ height: `${rows.length * ROW_PX}px`, paddingTop: `${first * ROW_PX}px` }}>
        {shown.map((one) => (
          <Row key={one.id} chat={chat} conversation={one} onChoose={() => choose(one)} />
        ))}
      </ul>
    </div>
  );
}

/** Arrows go from row to row. */
function moveFocus(event: KeyboardEvent): void {
  const step = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
  if (step === 0) return;
  event.preventDefault();
  const rows = [...document.querySelectorAll<HTMLElement>('.conversation')];
  const next = rows[rows.indexOf(document.activeElement as HTMLElement) + step];
  (next ?? (step < 0 ? document.getElementById('find') : null))?.focus();
}

function Row(props: { chat: Chat; conversation: Conversation; onChoose: () => void }): JSX.Element {
  const { chat, conversation, onChoose } = props;
  conversation.changed.value;
  chat.people.value;
  const { kind, peer, unread, last, pending, typing } = conversation;
  const title = chat.titleOf(conversation);
  const presence = peer === null || peer === chat.me ? null : chat.presenceOf(peer);
  const waiting = pending.at(-1);
  const typist = typing.keys().next().value;
  const line = waiting
    ? `You: ${waiting.text.slice(0, 200)}`
    : last
      ? preview(last, chat.me, kind === 'group', chat.nameOf)
      : '\u00a0';
  return (
    <li>
      <button
        type="button"
        class={`conversation${unread > 0 ? ' fresh' : ''}`}
        aria-current={chat.selected.value === conversation ? 'true' : undefined}
        onClick={onChoose}
      >
        <Avatar id={peer ?? conversation.id} name={title} group={kind === 'group'} presence={presence} />
        <span class="conversation-text">
          <span class="conversation-top">
            <span class="conversation-title">
              <Name text={title} />
            </span>
            {presence?.state === 'online' && <span class="unseen">, online</span>}
            {conversation.lastTimeMs > 0 && (
              <time title={fullTimeOf(conversation.lastTimeMs)}>
                {briefly(conversation.lastTimeMs, Date.now())}
              </time>
            )}
          </span>
          <span class="conversation-bottom">
            {typist !== undefined ? (
              <span class="conversation-line typing-line">
                {kind === 'group' ? <Name text={chat.nameOf(typist)} /> : null}
                {kind === 'group' ? ' is typing…' : 'typing…'}
              </span>
            ) : (
              <span class={`conversation-line${waiting?.failed ? ' error' : ''}`} dir="auto">
                {waiting?.failed ? 'Not sent: ' : ''}
                {line}
              </span>
            )}
            {unread > 0 && (
              <span class="badge">
                {number(unread)}
                <span class="unseen"> unread</span>
              </span>
            )}
          </span>
        </span>
      </button>
    </li>
  );
}

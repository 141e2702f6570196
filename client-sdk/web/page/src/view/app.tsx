// The chat of one user: the list, the open conversation, and what opens beside it.
import { useSignal, useSignalEffect } from '@preact/signals';
import type { JSX } from 'preact';
import { useEffect } from 'preact/hooks';
import type { Chat } from '../model/chat.js';
import type { Conversation } from '../model/conversation.js';
import { number } from '../model/words.js';
import { Banner } from './banner.js';
import { Details } from './details.js';
import { Inspector } from './inspector.js';
import { NewGroup } from './newgroup.js';
import { Mark } from './parts.js';
import { type Panel, Room } from './room.js';
import { Sidebar } from './sidebar.js';

const fragment = (conversation: Conversation | null): string =>
  conversation ? `#${encodeURIComponent(conversation.id)}` : '';

/** The open conversation stands in the address, so that the browser's way back closes it. */
function useAddress(chat: Chat): void {
  useEffect(() => {
    const follow = () => {
      const id = decodeURIComponent(location.hash.slice(1));
      if (id === '') chat.select(null);
      else if (id !== chat.selected.value?.id && /^c:[a-z2-7]{26}$/.test(id)) chat.select(chat.at(id));
    };
    follow();
    const to = new URLSearchParams(location.search).get('to');
    if (location.hash === '' && to !== null && to !== '') chat.select(chat.at(to));
    addEventListener('hashchange', follow);
    return () => removeEventListener('hashchange', follow);
  }, [chat]);
  useSignalEffect(() => {
    const wanted = fragment(chat.selected.value);
    if (wanted !== location.hash) history.pushState(null, '', wanted || location.pathname + location.search);
  });
}

export function App({ chat }: { chat: Chat }): JSX.Element {
  const panel = useSignal<Panel>(null);
  const making = useSignal(false);
  useAddress(chat);
  useSignalEffect(() => {
    chat.listed.value;
    chat.people.value;
    const { unread } = chat;
    document.title = `${unread > 0 ? `(${number(unread)}) ` : ''}${chat.nameOf(chat.me)} · Tern`;
  });
  const toggle = (wanted: Panel) => {
    panel.value = panel.value === wanted ? null : wanted;
  };
  chat.people.value;
  const conversation = chat.selected.value;
  const onKey = (event: KeyboardEvent) => {
    if (event.key === 'Escape' && !event.defaultPrevented && panel.value !== null) {
      panel.value = null;
      document.getElementById('compose')?.focus();
    }
    if ((event.ctrlKey || event.metaKey) && event.key === 'k') {
      event.preventDefault();
      document.getElementById('find')?.focus();
    }
  };
  const shape = `app${conversation ? ' in-room' : ''}${panel.value ? ' with-panel' : ''}`;
  return (
    <main class={shape} onKeyDown={onKey}>
      <a class="skip" href={conversation && conversation.role !== null ? '#compose' : '#find'} onClick={skip}>
        Skip to writing
      </a>
      <h1 class="unseen">
        The chat of <bdi>{chat.nameOf(chat.me)}</bdi>
      </h1>
      <Sidebar chat={chat} onInspect={() => toggle('inspector')} onNewGroup={() => (making.value = true)} />
      <div class="main">
        <Banner chat={chat} />
        {conversation ? (
          <Room
            key={conversation.id}
            chat={chat}
            conversation={conversation}
            panel={panel.value}
            toggle={toggle}
          />
        ) : (
          <div class="empty">
            <Mark />
            <p>Choose a conversation, or write to somebody new.</p>
          </div>
        )}
      </div>
      {panel.value === 'inspector' && <Inspector chat={chat} onClose={() => toggle('inspector')} />}
      {panel.value === 'details' && conversation && (
        <Details
          key={conversation.id}
          chat={chat}
          conversation={conversation}
          onClose={() => toggle('details')}
        />
      )}
      {making.value && (
        <NewGroup
          chat={chat}
          onClose={() => {
            making.value = false;
          }}
        />
      )}
      <p class="unseen" role="status" aria-live="polite">
        {chat.said.value}
      </p>
    </main>
  );
}

/** The fragment of the address belongs to the conversation. */
function skip(event: Event): void {
  event.preventDefault();
  (document.getElementById('compose') ?? document.getElementById('find'))?.focus();
}

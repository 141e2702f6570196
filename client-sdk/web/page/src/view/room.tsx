// An open conversation: its head, its messages, and where to write.
import type { JSX } from 'preact';
import { useEffect } from 'preact/hooks';
import type { Chat } from '../model/chat.js';
import type { Conversation } from '../model/conversation.js';
import { lastSeen, listOf, plural } from '../model/words.js';
import { Composer } from './composer.js';
import { Avatar, IconButton, Name } from './parts.js';
import { Timeline } from './timeline.js';

/** What is open beside the conversation. */
export type Panel = 'details' | 'inspector' | null;

interface Props {
  chat: Chat;
  conversation: Conversation;
  panel: Panel;
  toggle: (panel: Panel) => void;
}

export function Room({ chat, conversation, panel, toggle }: Props): JSX.Element {
  const title = chat.titleOf(conversation);
  conversation.changed.value;
  chat.people.value;
  const group = conversation.kind === 'group';
  useEffect(() => {
    if (group && conversation.members === null && conversation.role !== null)
      void chat.loadMembers(conversation);
  }, [conversation.members, conversation.role]);
  return (
    <section class="room" aria-label={`Conversation ${title}`}>
      <header class="room-head">
        <IconButton
          icon="back"
          label="All conversations"
          class="only-narrow"
          onClick={() => chat.select(null)}
        />
        <Avatar
          id={conversation.peer ?? conversation.id}
          name={title}
          group={group}
          presence={conversation.peer === null ? null : chat.presenceOf(conversation.peer)}
        />
        <div class="room-title">
          <h2>
            <Name text={title} />
          </h2>
          <p class="room-sub">
            <Under chat={chat} conversation={conversation} />
          </p>
        </div>
        <IconButton
          icon="pulse"
          label="Connection"
          pressed={panel === 'inspector'}
          onClick={() => toggle('inspector')}
        />
        <IconButton
          icon="info"
          label="Details"
          pressed={panel === 'details'}
          onClick={() => toggle('details')}
        />
      </header>
      <Timeline chat={chat} conversation={conversation} />
      {conversation.notice !== null && (
        <p class="notice" role="status" dir="auto">
          {conversation.notice}
        </p>
      )}
      {conversation.role === null ? (
        <p class="notice">You are no longer a member. What was written while you were one stays here.</p>
      ) : (
        <Composer chat={chat} conversation={conversation} />
      )}
    </section>
  );
}

/** What stands under the title: who types, else who is there. */
function Under({ chat, conversation }: { chat: Chat; conversation: Conversation }): JSX.Element {
  const { typing, peer, members, kind } = conversation;
  if (typing.size > 0) {
    const who = listOf([...typing.keys()], chat.nameOf, 2);
    return (
      <span class="typing-line">
        {kind === 'pair' ? 'typing…' : `${who} ${typing.size > 1 ? 'are' : 'is'} typing…`}
      </span>
    );
  }
  if (kind === 'group') {
    if (members === null) return <>{'\u00a0'}</>;
    const here = members.filter(({ user }) => chat.presenceOf(user)?.state === 'online').length;
    return (
      <>
        {plural(members.length, 'member')}
        {here > 0 && `, ${here} online`}
      </>
    );
  }
  const presence = peer === null || peer === chat.me ? null : chat.presenceOf(peer);
  if (peer === chat.me) return <>only you see them</>;
  if (presence === null || presence.state === 'unknown') return <bdi>{peer}</bdi>;
  return <>{presence.state === 'online' ? 'online' : lastSeen(presence.lastSeenMs, Date.now())}</>;
}

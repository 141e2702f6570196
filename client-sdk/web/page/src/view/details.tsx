// What a conversation is: its members and what may be done with them.
import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { Chat } from '../model/chat.js';
import type { Conversation } from '../model/conversation.js';
import { lastSeen, plural, wentWrong } from '../model/words.js';
import type { MemberInfo, Sending } from '../sdk.js';
import { usersIn } from './newgroup.js';
import { Avatar, IconButton, Name, SidePanel } from './parts.js';

interface Props {
  chat: Chat;
  conversation: Conversation;
  onClose: () => void;
}

export function Details({ chat, conversation, onClose }: Props): JSX.Element {
  conversation.changed.value;
  chat.people.value;
  const title = chat.titleOf(conversation);
  const { kind, peer, id } = conversation;
  return (
    <SidePanel title="Details" close="Close the details" onClose={onClose}>
      <div class="card">
        <Avatar id={peer ?? id} name={title} group={kind === 'group'} />
        <p class="card-title">
          <Name text={title} />
        </p>
        {peer !== null && (
          <p class="quiet">
            <bdi>{peer}</bdi>
          </p>
        )}
      </div>
      {kind === 'group' && <Group chat={chat} conversation={conversation} />}
      {peer !== null && peer !== chat.me && <Blocking chat={chat} user={peer} />}
      <dl class="facts">
        <dt>Messages and changes</dt>
        <dd>{conversation.log.head.toLocaleString('en')}</dd>
        <dt>Conversation</dt>
        <dd>
          <code>{id}</code>
        </dd>
      </dl>
    </SidePanel>
  );
}

/** Keeps a user away, or lets them come again. */
function Blocking({ chat, user }: { chat: Chat; user: string }): JSX.Element {
  const blocked = chat.blocked.value.has(user);
  return (
    <div class="sure">
      {blocked && <span>You block {chat.nameOf(user)}, who is not told.</span>}
      <button
        type="button"
        class={blocked ? 'button' : 'button danger'}
        onClick={() => void chat.setBlocked(user, !blocked)}
      >
        {blocked ? 'Unblock' : 'Block'}
      </button>
    </div>
  );
}

/** Does something with a group, and says what went wrong. */
type Try = (what: () => Sending) => Promise<boolean>;

function Group({ chat, conversation }: Pick<Props, 'chat' | 'conversation'>): JSX.Element {
  const [wrong, setWrong] = useState<string | null>(null);
  const attempt: Try = async (what) => {
    setWrong(null);
    try {
      await what();
      await chat.loadMembers(conversation);
      return true;
    } catch (error) {
      setWrong(wentWrong(error));
      return false;
    }
  };
  const { role, members, id } = conversation;
  const leads = role === 'owner' || role === 'admin';
  return (
    <>
      {leads && <Rename chat={chat} conversation={conversation} attempt={attempt} />}
      {wrong !== null && (
        <p class="error" role="alert">
          {wrong}
        </p>
      )}
      <h3>{members === null ? 'Members' : plural(members.length, 'member')}</h3>
      <ul class="members">
        {members?.map((member) => (
          <Member
            key={member.user}
            chat={chat}
            conversation={conversation}
            member={member}
            attempt={attempt}
          />
        ))}
      </ul>
      {leads && <AddMembers chat={chat} conversation={conversation} attempt={attempt} />}
      {role !== null && (
        <Sure
          words="Leave the group"
          sure="Leave for good?"
          onSure={() => void attempt(() => chat.client.leave(id))}
        />
      )}
    </>
  );
}

function Rename({ chat, conversation, attempt }: Omit<Props, 'onClose'> & { attempt: Try }): JSX.Element {
  const [name, setName] = useState(conversation.name ?? '');
  const changed = name.trim() !== '' && name.trim() !== conversation.name;
  return (
    <form
      class="inline-form"
      onSubmit={(event) => {
        event.preventDefault();
        if (changed) void attempt(() => chat.client.rename(conversation.id, name.trim()));
      }}
    >
      <label for="rename">Name</label>
      <div class="inline-field">
        <input
          id="rename"
          dir="auto"
          autocomplete="off"
          value={name}
          onInput={(event) => setName(event.currentTarget.value)}
        />
        <button type="submit" class="button" disabled={!changed}>
          Rename
        </button>
      </div>
    </form>
  );
}

function AddMembers({ chat, conversation, attempt }: Omit<Props, 'onClose'> & { attempt: Try }): JSX.Element {
  const [users, setUsers] = useState('');
  const add = async (event: Event) => {
    event.preventDefault();
    const wanted = usersIn(users);
    if (wanted.length > 0 && (await attempt(() => chat.client.addMembers(conversation.id, wanted))))
      setUsers('');
  };
  return (
    <form class="inline-form" onSubmit={add}>
      <label for="add">Add</label>
      <div class="inline-field">
        <input
          id="add"
          dir="auto"
          autocomplete="off"
          spellcheck={false}
          placeholder="user, another user"
          value={users}
          onInput={(event) => setUsers(event.currentTarget.value)}
        />
        <button type="submit" class="button" disabled={usersIn(users).length === 0}>
          Add
        </button>
      </div>
    </form>
  );
}

function Member(props: Omit<Props, 'onClose'> & { member: MemberInfo; attempt: Try }): JSX.Element {
  const { chat, conversation, member, attempt } = props;
  const { user, role } = member;
  const self = user === chat.me;
  const presence = chat.presenceOf(user);
  const owner = conversation.role === 'owner';
  const may = !self && (owner || (conversation.role === 'admin' && role === 'member'));
  const name = chat.nameOf(user);
  const where =
    presence?.state === 'online'
      ? 'online'
      : presence?.state === 'offline'
        ? lastSeen(presence.lastSeenMs, Date.now())
        : '';
  return (
    <li class="member">
      <Avatar id={user} name={name} presence={presence} small />
      <span class="member-text">
        <span>
          <Name text={name} />
          {self && <span class="quiet"> (you)</span>}
        </span>
        <span class="quiet member-sub">
          {[role === 'member' ? '' : role, where].filter((word) => word !== '').join(', ')}
        </span>
      </span>
      {owner && !self && (
        <select
          aria-label={`Role of ${name}`}
          value={role}
          onChange={(event) => {
            const wanted = event.currentTarget.value as typeof role;
            void attempt(() => chat.client.setRole(conversation.id, user, wanted));
          }}
        >
          <option value="member">member</option>
          <option value="admin">admin</option>
          <option value="owner">owner</option>
        </select>
      )}
      {may && (
        <IconButton
          icon="close"
          label={`Remove ${name}`}
          onClick={() => void attempt(() => chat.client.removeMembers(conversation.id, [user]))}
        />
      )}
    </li>
  );
}

/** A button for what cannot be taken back: it asks once more. */
function Sure({ words, sure, onSure }: { words: string; sure: string; onSure: () => void }): JSX.Element {
  const [asked, setAsked] = useState(false);
  return (
    <div class="sure">
      {asked ? (
        <>
          <span>{sure}</span>
          <button type="button" class="button danger" onClick={onSure}>
            Leave
          </button>
          <button type="button" class="button" onClick={() => setAsked(false)}>
            Stay
          </button>
        </>
      ) : (
        <button type="button" class="button danger" onClick={() => setAsked(true)}>
          {words}
        </button>
      )}
    </div>
  );
}

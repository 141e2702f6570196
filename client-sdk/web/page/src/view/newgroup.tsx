// Making a group.
import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { Chat } from '../model/chat.js';
import { bytesOf, wentWrong } from '../model/words.js';
import { Dialog } from './parts.js';

/** Longest name of a group, in bytes. */
const NAME_BYTES = 128;

/** User ids as people write them down: with commas, or one a line. */
export const usersIn = (text: string): string[] => [
  ...new Set(
    text
      .split(/[,\n]/u)
      .map((user) => user.trim())
      .filter((user) => user !== ''),
  ),
];

export function NewGroup({ chat, onClose }: { chat: Chat; onClose: () => void }): JSX.Element {
  const [name, setName] = useState('');
  const [members, setMembers] = useState('');
  const [wrong, setWrong] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const make = async (event: Event) => {
    event.preventDefault();
    if (name.trim() === '') return setWrong('A group needs a name.');
    if (bytesOf(name.trim()) > NAME_BYTES)
      return setWrong(`The name is too long: it may have ${NAME_BYTES} bytes.`);
    setBusy(true);
    try {
      const { conversation } = await chat.client.createGroup(
        name.trim(),
        usersIn(members).filter((user) => user !== chat.me),
      );
      const group = chat.at(conversation);
      group.name ??= name.trim();
      chat.select(group);
      onClose();
    } catch (error) {
      setWrong(wentWrong(error));
      setBusy(false);
    }
  };
  return (
    <Dialog title="New group" onClose={onClose}>
      <form class="form" onSubmit={make}>
        <label for="group-name">Name</label>
        <input
          id="group-name"
          dir="auto"
          autocomplete="off"
          value={name}
          onInput={(event) => setName(event.currentTarget.value)}
        />
        <label for="group-members">Members</label>
        <textarea
          id="group-members"
          rows={3}
          dir="auto"
          spellcheck={false}
          aria-describedby="group-help"
          value={members}
          onInput={(event) => setMembers(event.currentTarget.value)}
        />
        <p id="group-help" class="quiet">
          Ids of users, with commas between them. You are a member anyway; more can be added later.
        </p>
        {wrong !== null && (
          <p class="error" role="alert">
            {wrong}
          </p>
        )}
        <button type="submit" class="button primary" disabled={busy}>
          {busy ? 'Making it…' : 'Make the group'}
        </button>
      </form>
    </Dialog>
  );
}

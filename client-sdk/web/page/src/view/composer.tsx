// Where a message is written.
import type { JSX } from 'preact';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { Chat } from '../model/chat.js';
import type { Conversation } from '../model/conversation.js';
import { bytesOf, number } from '../model/words.js';
import { Icon } from './parts.js';

/** Longest text before the server has told its limit, in bytes. */
const TEXT_BYTES = 16_384;
/** Above this part of the limit what is left is shown. */
const NEAR = 0.8;
/** Highest the field grows, in px. */
const FIELD_PX = 220;
/** What is written is kept after so many ms without a key. */
const KEEP_MS = 300;

const draftKey = (chat: Chat, { id }: Conversation): string => `tern:draft:${chat.me}:${id}`;

/** Unsent words outlive the page; without storage they do not. */
function keep(key: string, text: string): void {
  try {
    if (text === '') localStorage.removeItem(key);
    else localStorage.setItem(key, text);
  } catch {
    // Private windows may have none.
  }
}

function kept(key: string): string {
  try {
    return localStorage.getItem(key) ?? '';
  } catch {
    return '';
  }
}

export function Composer({ chat, conversation }: { chat: Chat; conversation: Conversation }): JSX.Element {
  const key = draftKey(chat, conversation);
  const [text, setText] = useState(() => kept(key));
  const [refused, setRefused] = useState<string | null>(null);
  const field = useRef<HTMLTextAreaElement>(null);
  const limit = chat.client.session?.limits.textBytes ?? TEXT_BYTES;
  const bytes = bytesOf(text);
  useLayoutEffect(() => {
    const { current } = field;
    if (!current) return;
    current.style.height = 'auto';
    current.style.height = `${Math.min(current.scrollHeight, FIELD_PX)}px`;
  }, [text]);
  useEffect(() => {
    const timer = setTimeout(() => keep(key, text), KEEP_MS);
    return () => clearTimeout(timer);
  }, [text]);
  const write = (next: string) => {
    setText(next);
    setRefused(null);
    if (next.trim() !== '') chat.typing(conversation);
  };
  const send = () => {
    if (text.trim() === '' || bytes > limit) return;
    if (chat.state.value.state === 'closed') {
      setRefused('The chat has stopped: nothing was sent.');
      return;
    }
    chat.send(conversation, text);
    setText('');
    keep(key, '');
    setRefused(null);
    field.current?.focus();
  };
  const onPaste = (event: ClipboardEvent) => {
    const pasted = event.clipboardData?.getData('text/plain') ?? '';
    const { selectionStart = 0, selectionEnd = 0 } = field.current ?? {};
    const rest = bytes - bytesOf(text.slice(selectionStart ?? 0, selectionEnd ?? 0));
    const size = bytesOf(pasted);
    if (rest + size <= limit) return;
    event.preventDefault();
    setRefused(
      `The pasted text has ${number(size)} bytes. A message holds ${number(limit)}${
        rest > 0 ? `, and ${number(rest)} are used` : ''
      }. Nothing was pasted.`,
    );
  };
  const onKeyDown = (event: KeyboardEvent) => {
    // While an input method composes, Enter belongs to it.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
  const title = chat.titleOf(conversation);
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      {refused !== null && (
        <p class="composer-note error" role="alert">
          {refused}
        </p>
      )}
      {bytes > limit * NEAR && (
        <p class={`composer-note${bytes > limit ? ' error' : ' quiet'}`} role="status">
          {bytes > limit
            ? `${number(bytes - limit)} bytes too long: a message holds ${number(limit)}.`
            : `${number(limit - bytes)} bytes left.`}
        </p>
      )}
      <div class="composer-field">
        <textarea
          ref={field}
          id="compose"
          rows={1}
          dir="auto"
          aria-label={`Message to ${title}`}
          placeholder="Write a message"
          value={text}
          onInput={(event) => write(event.currentTarget.value)}
          onKeyDown={onKeyDown}
          onPaste={onPaste}
          enterkeyhint="send"
        />
        <button
          type="submit"
          class="send"
          aria-label="Send"
          title="Send (Enter)"
          disabled={text.trim() === '' || bytes > limit}
        >
          <Icon name="send" />
        </button>
      </div>
    </form>
  );
}

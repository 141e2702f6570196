// One user: starts the client, then shows the chat.
import type { JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { begin } from '../boot.js';
import { Chat } from '../model/chat.js';
import { App } from './app.js';
import { Mark } from './parts.js';

/** Wait before the start is tried again, in ms. */
const RETRY_MS = 2_000;

/** A user of a development node, or one with a token. */
export function Single({ user, token }: { user: string; token?: string }): JSX.Element {
  const [chat, setChat] = useState<Chat | null>(null);
  const [trouble, setTrouble] = useState<string | null>(null);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let over = false;
    const go = () =>
      begin(user, token ?? null).then(
        (client) => {
          if (over) return void client.close();
          setTrouble(null);
          setChat(new Chat(client, user));
        },
        (error) => {
          setTrouble(error instanceof Error ? error.message : String(error));
          timer = setTimeout(go, RETRY_MS);
        },
      );
    void go();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [user, token]);
  if (chat) return <App chat={chat} />;
  return (
    <main class="splash">
      <Mark />
      {trouble === null ? (
        <p class="quiet">Starting…</p>
      ) : (
        <p role="alert">
          The chat cannot start: {trouble}. <span class="quiet">Trying again.</span>
        </p>
      )}
    </main>
  );
}

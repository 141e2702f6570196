// What stands above everything: no connection and why, and what went wrong.
import type { JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { forgetToken } from '../boot.js';
import type { Chat } from '../model/chat.js';
import { cause } from '../model/words.js';
import { classOf, type TernError } from '../sdk.js';
import { Icon, IconButton } from './parts.js';

/** A short break is not worth a word: the banner comes after so many ms. */
const PATIENCE_MS = 700;

export function Banner({ chat }: { chat: Chat }): JSX.Element {
  const state = chat.state.value;
  const away = state.state === 'offline' || state.state === 'closed';
  // While it connects the banner stays as it was.
  const settled = state.state === 'online' || state.state === 'degraded' || state.state === 'draining';
  const [shown, setShown] = useState<ReturnType<typeof cause> | null>(null);
  useEffect(() => {
    if (settled) return setShown(null);
    if (!away) return;
    const words = cause(state, navigator.onLine);
    if (state.state === 'closed') return setShown(words);
    const timer = setTimeout(() => setShown(words), shown ? 0 : PATIENCE_MS);
    return () => clearTimeout(timer);
  }, [state]);
  return (
    <div role="alert" class="banners">
      {shown && (
        <div class="banner">
          <Icon name="warn" />
          <div class="banner-text">
            <strong>{shown.headline}</strong>{' '}
            {state.state !== 'closed' && 'What you write is kept and sent later.'}
            {shown.detail !== '' && <span class="banner-detail">{shown.detail}</span>}
          </div>
          {state.state === 'closed' ? (
            <button type="button" class="button" onClick={() => again(state.error)}>
              Start again
            </button>
          ) : (
            <Retry chat={chat} />
          )}
        </div>
      )}
      {chat.alarm.value !== null && (
        <div class="banner">
          <Icon name="warn" />
          <div class="banner-text">
            <bdi>{chat.alarm.value}</bdi>
          </div>
          <IconButton
            icon="close"
            label="Close this message"
            onClick={() => {
              chat.alarm.value = null;
            }}
          />
        </div>
      )}
    </div>
  );
}

/** Starts anew; a token that was refused is not tried again. */
function again(error: TernError): void {
  if (error.kind === 'token' || classOf(error.code ?? 0) === 'authenticate') forgetToken();
  location.reload();
}

/** When the next attempt is, and a way not to wait for it. */
function Retry({ chat }: { chat: Chat }): JSX.Element {
  const state = chat.state.value;
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, []);
  const seconds = state.state === 'offline' ? Math.ceil((state.retryAtMs - now) / 1000) : 0;
  return (
    <div class="banner-retry">
      {/* The seconds are for the eye only: read out every second they would drown everything else. */}
      <span class="banner-wait" aria-hidden="true">
        {seconds > 0 ? `Next try in ${seconds} s` : 'Trying…'}
      </span>
      <button type="button" class="button" onClick={() => chat.client.nudge()}>
        Try now
      </button>
    </div>
  );
}

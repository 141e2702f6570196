// The connection laid open: how it goes, what is waiting, and a way to break it.
import type { JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import type { Chat } from '../model/chat.js';
import { nameOf } from '../model/journal.js';
import { brief, number } from '../model/words.js';
import { Icon, SidePanel } from './parts.js';

/** How often the figures are read anew, in ms. */
const EVERY_MS = 500;
/** How often the round trip is measured while somebody looks, in ms. */
const PROBE_MS = 2_000;
/** Conversations whose positions are shown. */
const LOGS_MAX = 12;

const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });

export function Inspector({ chat, onClose }: { chat: Chat; onClose: () => void }): JSX.Element {
  const [, turn] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => turn((count) => count + 1), EVERY_MS);
    const probe = setInterval(() => chat.client.state.state !== 'offline' && chat.client.nudge(), PROBE_MS);
    return () => {
      clearInterval(timer);
      clearInterval(probe);
    };
  }, [chat]);
  const state = chat.state.value;
  return (
    <SidePanel title="Connection" close="Close the connection panel" onClose={onClose}>
      <button
        type="button"
        class="button cut"
        disabled={state.state === 'offline'}
        onClick={() => chat.client.dropLink()}
      >
        <Icon name="cut" /> Cut my link
      </button>
      <Figures chat={chat} />
      <Positions chat={chat} />
      <h3>What happened</h3>
      <ol class="journal">
        {chat.journal.lines.value.map(({ number, timeMs, text, bad, tries }) => (
          <li key={number} class={bad ? 'bad' : ''}>
            <time>{clock.format(timeMs)}</time> <bdi>{text}</bdi>
            {tries > 1 && ` (${tries} times)`}
          </li>
        ))}
      </ol>
    </SidePanel>
  );
}

function Figures({ chat }: { chat: Chat }): JSX.Element {
  const { transport, streams, rttMs, sessions, pending } = chat.client.stats;
  const { session } = chat.client;
  const state = chat.state.value;
  const rows: [string, string][] = [
    ['State', brief(state)],
    ['Transport', nameOf(transport)],
    ['Open streams', number(streams)],
    ['Round trip', rttMs === null ? '–' : `${number(Math.round(rttMs))} ms`],
    ['Resumes', number(Math.max(0, sessions - 1))],
    ['Waiting to be sent', number(pending)],
  ];
  if (session) {
    rows.push(['Session', number(session.session)], ['Server', session.server]);
    rows.push(['Device', session.device], ['Store', session.storeId]);
  }
  return (
    <>
      <dl class="facts">
        {rows.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {state.state === 'degraded' && (
        <p class="panel-note">Over the fallback: {state.cause.replace(/\.$/, '')}.</p>
      )}
    </>
  );
}

/** Up to where each log was handed out, and up to where it was read. */
function Positions({ chat }: { chat: Chat }): JSX.Element {
  const { cursors } = chat.client.stats;
  chat.listed.value;
  const shown = chat.list().slice(0, LOGS_MAX);
  return (
    <>
      <h3>Logs</h3>
      <table class="logs">
        <thead>
          <tr>
            <th scope="col">Conversation</th>
            <th scope="col">Seq</th>
            <th scope="col">Read</th>
          </tr>
        </thead>
        <tbody>
          {shown.map((one) => (
            <tr key={one.id}>
              <th scope="row">
                <bdi>{chat.titleOf(one)}</bdi>
              </th>
              <td>{number(cursors.get(one.id) ?? 0)}</td>
              <td>{number(one.readSeq)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}

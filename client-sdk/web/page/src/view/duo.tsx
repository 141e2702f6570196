// Two users side by side, each in a page of its own; one at a time where there is little room.
import { useSignal } from '@preact/signals';
import type { JSX } from 'preact';
import { Mark } from './parts.js';

const USERS = ['alice', 'bob'] as const;
const OTHER = { alice: 'bob', bob: 'alice' } as const;

const addressOf = (user: (typeof USERS)[number]): string => `/?as=${user}&to=${OTHER[user]}`;

export function Duo(): JSX.Element {
  const shown = useSignal<(typeof USERS)[number]>('alice');
  return (
    <main class="duo">
      <header class="duo-head">
        <h1 class="brand">
          <Mark /> Tern
        </h1>
        <p class="duo-hint">Two people, two sessions, one node. Write on one side, read on the other.</p>
        <div class="tabs" role="tablist" aria-label="User">
          {USERS.map((user) => (
            <button
              key={user}
              type="button"
              role="tab"
              id={`tab-${user}`}
              aria-controls={`side-${user}`}
              aria-selected={shown.value === user}
              onClick={() => {
                shown.value = user;
              }}
            >
              {user}
            </button>
          ))}
        </div>
      </header>
      <div class="duo-sides">
        {USERS.map((user) => (
          <section
            key={user}
            id={`side-${user}`}
            class={shown.value === user ? 'side side-shown' : 'side'}
            aria-label={`The chat of ${user}`}
          >
            <iframe title={`The chat of ${user}`} src={addressOf(user)} />
            <a class="side-alone" href={addressOf(user)} target="_blank" rel="noopener">
              {user} in a tab of their own
            </a>
          </section>
        ))}
      </div>
    </main>
  );
}

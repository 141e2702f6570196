// Signing in with a token, where a node does not give them out.
import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import { keepToken, keptToken, userOf } from '../boot.js';
import { Mark } from './parts.js';
import { Single } from './single.js';

export function SignIn(): JSX.Element {
  const [token, setToken] = useState(keptToken);
  const [wrong, setWrong] = useState<string | null>(null);
  const user = userOf(token);
  if (user !== null) return <Single user={user} token={token} />;
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const pasted = String(new FormData(event.currentTarget as HTMLFormElement).get('token') ?? '').trim();
    if (userOf(pasted) === null) {
      setWrong('This is not a token. A token is three parts of letters and digits with dots between them.');
      return;
    }
    keepToken(pasted);
    setToken(pasted);
  };
  return (
    <main class="signin">
      <form onSubmit={submit}>
        <h1 class="brand">
          <Mark /> Tern
        </h1>
        <label for="token">Your token</label>
        <textarea
          id="token"
          name="token"
          rows={5}
          spellcheck={false}
          autocomplete="off"
          aria-describedby="token-help"
          aria-invalid={wrong !== null}
        />
        <p id="token-help" class="quiet">
          {wrong === null ? (
            'The application that uses this server gives it to you. It stays in this tab.'
          ) : (
            <span class="error" role="alert">
              {wrong}
            </span>
          )}
        </p>
        <button type="submit" class="button primary">
          Sign in
        </button>
      </form>
    </main>
  );
}

// The page: two users side by side, one user, or the way to sign in.
import './style/base.css';
import './style/parts.css';
import './style/layout.css';
import './style/sidebar.css';
import './style/timeline.css';
import './style/panels.css';
import { render } from 'preact';
import { isDev } from './boot.js';
import { Duo } from './view/duo.js';
import { SignIn } from './view/signin.js';
import { Single } from './view/single.js';

async function show(): Promise<void> {
  const root = document.getElementById('app') as HTMLElement;
  const user = new URLSearchParams(location.search).get('as');
  // Whether there are tokens for everybody need not be asked when somebody is named: then there are.
  if (user !== null && user !== '') render(<Single user={user} />, root);
  else if (await isDev()) render(<Duo />, root);
  else render(<SignIn />, root);
}

void show();

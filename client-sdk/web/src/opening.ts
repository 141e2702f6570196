// Opening a session: token, link, Hello, Welcome.

import { encode } from './codec/frames.js';
import type { Addresses, Resolved } from './config.js';
import type { Transport } from './events.js';
import type { Welcome } from './generated/frames.js';
import type { DeviceId } from './ids.js';
import { type Dialers, dial } from './link/dial.js';
import type { Link } from './link/link.js';
import type { Ending } from './plan.js';

/** An open session. */
export interface Opened {
  link: Link;
  welcome: Welcome;
  /** Why a better transport was not used. */
  fallback: string | null;
}

/** One attempt. */
export interface Attempt {
  config: Resolved;
  dialers: Dialers;
  addresses: Addresses;
  first: Transport;
  device: DeviceId;
  token: Promise<string>;
  signal: AbortSignal;
}

/** Opens a session, or says how that ended. Takes at most the attempt's timeout. */
export async function open(attempt: Attempt): Promise<Opened | Ending> {
  const { attemptTimeoutMs } = attempt.config;
  const ending = new AbortController();
  attempt.signal.addEventListener('abort', () => ending.abort());
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<Ending>((resolve) => {
    timer = setTimeout(() => {
      resolve({ lost: `no session within ${attemptTimeoutMs / 1000} s` });
      ending.abort();
    }, attemptTimeoutMs);
  });
  try {
    return await Promise.race([late, run(attempt, ending.signal)]);
  } finally {
    clearTimeout(timer);
  }
}

async function run(attempt: Attempt, signal: AbortSignal): Promise<Opened | Ending> {
  const { config, dialers, addresses, first, device } = attempt;
  let token: string;
  try {
    token = await attempt.token;
  } catch (error) {
    return { noToken: error };
  }
  try {
    const { link, fallback } = await dial(dialers, addresses, first, config.headStartMs, signal);
    const frame = { type: 'hello', token, device, agent: config.agent, features: 0 } as const;
    const answer = await welcomed(link, encode({ request: null, frame }), signal);
    return 'welcome' in answer ? { link, fallback, ...answer } : answer;
  } catch (error) {
    return { lost: error instanceof Error ? error.message : String(error) };
  }
}

/** The first frame of the server. */
function welcomed(
  link: Link,
  hello: Uint8Array<ArrayBuffer>,
  signal: AbortSignal,
): Promise<{ welcome: Welcome } | Ending> {
  return new Promise((resolve) => {
    const end = (ending: Ending) => {
      link.close(0);
      resolve(ending);
    };
    signal.addEventListener('abort', () => end({ lost: 'given up' }));
    link.listen({
      frame({ frame }) {
        if (frame.type === 'welcome') {
          link.listen(null);
          return resolve({ welcome: frame });
        }
        if (frame.type === 'close') return end(frame);
        if (frame.type === 'error') return end({ ...frame, reason: frame.detail, target: null });
        end({ lost: `the server began with ${frame.type} instead of welcome` });
      },
      bad: (error) => end({ lost: `the server's first frame: ${error.message}` }),
      ended: (code, reason) =>
        end(code === null ? { lost: reason } : { code, reason, retryAfterMs: null, target: null }),
    });
    link.send(hello, false);
  });
}

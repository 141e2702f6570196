// A WebSocket: whole frames in binary messages, one stream each way.
import { Decoder } from '../codec/frames.js';
import { Feed } from './feed.js';
import { Inbox, type Link } from './link.js';

const SUBPROTOCOL = 'tern.v1';

/** Opens a WebSocket, unless `signal` gives it up. */
export function openWebSocket(url: URL, signal: AbortSignal): Promise<Link> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url.href, [SUBPROTOCOL]);
    socket.binaryType = 'arraybuffer';
    const inbox = new Inbox();
    const feed = new Feed(inbox);
    const decoder = new Decoder();
    const giveUp = () => {
      socket.close();
      reject(new Error('given up'));
    };
    signal.addEventListener('abort', giveUp, { once: true });
    socket.onopen = () => {
      signal.removeEventListener('abort', giveUp);
      resolve({
        transport: 'websocket',
        streams: 1,
        get queued() {
          return socket.bufferedAmount;
        },
        listen: (listener) => inbox.listen(listener),
        send: (bytes) => socket.send(bytes),
        // Browsers send 1000 and 3000 to 4999 only.
        close: (code) => socket.close(code || 1000),
      });
    };
    socket.onmessage = ({ data }) => {
      if (!(data instanceof ArrayBuffer)) {
        inbox.end(null, 'the server sent text where frames are binary');
        socket.close();
      } else if (!feed.take(decoder, new Uint8Array(data), true)) {
        socket.close();
      }
    };
    // The browser keeps to itself why, lest pages look around in networks.
    socket.onerror = () => reject(new Error('the WebSocket could not be opened'));
    socket.onclose = ({ code, reason }) => {
      reject(new Error(`the WebSocket was closed (${code})`));
      // A code of the transport itself, such as 1006, says nothing of ours.
      inbox.end(code >= 4000 ? code : null, reason || `the WebSocket was closed (${code})`);
    };
  });
}

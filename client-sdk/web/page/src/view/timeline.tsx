// The messages of a conversation. Of however many there are, those around the screen exist.
import type { JSX } from 'preact';
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { Chat } from '../model/chat.js';
import type { Conversation } from '../model/conversation.js';
import { number } from '../model/words.js';
import { EntryRow, PendingRow } from './message.js';
import { Icon } from './parts.js';
import { Scroll } from './scroll.js';

/** Entries beyond those that are there which are asked for ahead, on each side. */
const AHEAD = 60;
/** What was on the screen for so long, in ms, was seen. */
const SEEN_MS = 300;
/** The first new message stands this far below the top, in px. */
const MARKER_PX = 88;

interface Props {
  chat: Chat;
  conversation: Conversation;
}

function placeOf({ place, marker }: Conversation): Conversation['place'] {
  return marker === null ? place : { seq: marker + 1, offset: MARKER_PX };
}

/** Tells the chat what was looked at, once it was looked at for a moment. */
function useSeen({ chat, conversation }: Props, last: number): void {
  useEffect(() => {
    const look = () => {
      if (document.visibilityState === 'visible') chat.seen(conversation, last);
    };
    const timer = setTimeout(look, SEEN_MS);
    document.addEventListener('visibilitychange', look);
    return () => {
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', look);
    };
  }, [last, conversation.known]);
}

export function Timeline({ chat, conversation }: Props): JSX.Element {
  conversation.changed.value;
  chat.people.value;
  const [, turn] = useState(0);
  const scroller = useRef<HTMLElement>(null);
  const rows = useRef<HTMLOListElement>(null);
  const scroll = useMemo(() => new Scroll(() => turn((count) => count + 1)), []);
  const { log, pending } = conversation;
  const entries = Math.max(0, log.head - log.first + 1);
  scroll.shape(log.first, entries + pending.length, placeOf(conversation));

  // Whoever writes goes on at the end.
  const newest = pending.at(-1)?.tempId;
  useMemo(() => newest !== undefined && scroll.toEnd(), [newest]);

  useLayoutEffect(() => {
    scroll.attach(scroller.current as HTMLElement, rows.current as HTMLElement);
    return () => {
      conversation.place = scroll.here;
      scroll.detach();
    };
  }, []);
  useLayoutEffect(() => scroll.settle());

  const { first, last } = scroll.range();
  useEffect(() => {
    if (last >= first) {
      const span = { from: log.first + first - AHEAD, to: log.first + Math.min(last, entries - 1) + AHEAD };
      chat.filler.want(conversation, span);
    }
  });
  const onScreen = log.first + Math.min(scroll.visible().last, entries - 1);
  useSeen({ chat, conversation }, log.get(onScreen) ? onScreen : 0);

  const shown: JSX.Element[] = [];
  for (let row = first; row <= last; row++) {
    const seq = log.first + row;
    const one = row < entries ? undefined : pending[row - entries];
    if (one) {
      const above = pending[row - entries - 1]?.createdMs ?? log.get(log.head)?.timeMs ?? null;
      shown.push(
        <PendingRow
          key={one.tempId}
          row={row}
          chat={chat}
          conversation={conversation}
          pending={one}
          above={above}
        />,
      );
      continue;
    }
    // Who stands above decides how a row looks, and so how high it is.
    const entry = seq === log.first || log.get(seq - 1) ? log.get(seq) : undefined;
    if (!entry)
      shown.push(<Absent key={`s${seq}`} row={row} seq={seq} height={scroll.heights.height(row)} />);
    else {
      const key = entry.sender === chat.me && entry.tempId !== null ? entry.tempId : `s${seq}`;
      shown.push(
        <EntryRow
          key={key}
          row={row}
          chat={chat}
          conversation={conversation}
          entry={entry}
          above={log.get(seq - 1)}
        />,
      );
    }
  }
  return (
    <div class="timeline-frame">
      <section
        ref={scroller}
        class="timeline"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: whoever has no mouse scrolls with the arrow keys
        tabIndex={0}
        aria-label="Messages"
        onScroll={() => scroll.scrolled()}
        onKeyDown={(event) => {
          // The browser would take its way there through everything in between.
          if (event.key !== 'Home' && event.key !== 'End') return;
          event.preventDefault();
          if (event.key === 'Home') scroll.toStart();
          else scroll.toEnd();
        }}
      >
        <div class="sizer">
          {/* biome-ignore lint/a11y/noRedundantRoles: Safari forgets the role where the marks are hidden */}
          <ol ref={rows} class="rows" role="list">
            {shown}
          </ol>
        </div>
      </section>
      {!scroll.end && <ToEnd unread={conversation.unread} onClick={() => scroll.toEnd()} />}
      {conversation.trouble !== null && (
        <p class="trouble" role="status">
          Messages are missing: {conversation.trouble}
        </p>
      )}
    </div>
  );
}

/** An entry that is on its way. */
const Absent = ({ row, seq, height }: { row: number; seq: number; height: number }): JSX.Element => (
  <li
    class="row absent"
    data-row={row}
    data-seq={seq}
    data-absent=""
    style={{ height: `${height}px` }}
    aria-hidden="true"
  >
    <span class="ghost" />
  </li>
);

const ToEnd = ({ unread, onClick }: { unread: number; onClick: () => void }): JSX.Element => (
  <button type="button" class="to-end" onClick={onClick}>
    {unread > 0 ? `${number(unread)} new` : 'Newest'}
    <Icon name="down" />
  </button>
);

// The small parts that everything is made of.
import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import type { UserPresence } from '../sdk.js';

/** The mark of the product: a tern in flight. */
export const Mark = (): JSX.Element => (
  <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
    <path d="M2 9c6 0 9.600 2 12 5.500C17 10 22 6.500 30 6c-5 2.500-8.500 6-10 11 1 1.500 3 2.500 6 3-3.500 1.500-7 1.500-9.500.5C14 25 9 27 5 27c3-2 5.500-5 6-9C9.500 14.500 6.500 11 2 9z" />
  </svg>
);

const SHAPES = {
  back: 'M15 5l-7 7 7 7',
  close: 'M6 6l12 12M18 6L6 18',
  down: 'M12 5v14M6 13l6 6 6-6',
  group:
    'M9 11a3 3 0 100-6 3 3 0 000 6zM3 19c0-3 2.700-5 6-5s6 2 6 5M16 5.300a3 3 0 010 5.400M18 14.500c1.900.7 3 2.300 3 4.500',
  info: 'M12 11v6M12 7.500v.1M12 21a9 9 0 100-18 9 9 0 000 18z',
  plus: 'M12 5v14M5 12h14',
  pulse: 'M3 12h4l3-8 4 16 3-8h4',
  send: 'M4 12l16-7-5 15-3-6-8-2z',
  cut: 'M6 9a2.500 2.500 0 100-5 2.500 2.500 0 000 5zM6 20a2.500 2.500 0 100-5 2.500 2.500 0 000 5zM8 8l12 9M8 16L20 7',
  warn: 'M12 9v5M12 17v.1M12 3.500L2.500 20h19L12 3.500z',
  clock: 'M12 7v5l3 2M12 21a9 9 0 100-18 9 9 0 000 18z',
  check: 'M5 13l4 4L19 7',
} as const;

export const Icon = ({ name }: { name: keyof typeof SHAPES }): JSX.Element => (
  <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
    <path d={SHAPES[name]} />
  </svg>
);

/** A button that is only an icon. */
export function IconButton(props: {
  icon: keyof typeof SHAPES;
  label: string;
  onClick: () => void;
  pressed?: boolean;
  class?: string;
}): JSX.Element {
  return (
    <button
      type="button"
      class={`icon-button ${props.class ?? ''}`}
      aria-label={props.label}
      title={props.label}
      aria-pressed={props.pressed}
      onClick={props.onClick}
    >
      <Icon name={props.icon} />
    </button>
  );
}

const segments = new Intl.Segmenter(undefined, { granularity: 'grapheme' });

/** The first letter as people see letters: an emoji sequence is one. */
function initial(name: string): string {
  const text = name.replace(/[\p{C}\p{Z}]+/gu, ' ').trim();
  const [first] = segments.segment(text);
  // A letter under a tower of marks would reach into its neighbours.
  return first && first.segment.length <= 16 ? first.segment.toLocaleUpperCase() : '?';
}

/** Colours of avatars in the style sheet. */
const HUES = 8;

function hueOf(id: string): number {
  let hash = 7;
  for (const letter of id) hash = (hash * 31 + (letter.codePointAt(0) ?? 0)) >>> 0;
  return hash % HUES;
}

/** A round picture of a user or a square one of a group. */
export function Avatar(props: {
  id: string;
  name: string;
  group?: boolean;
  presence?: UserPresence | null;
  small?: boolean;
}): JSX.Element {
  const { id, name, group = false, presence = null, small = false } = props;
  return (
    <span
      class={`avatar hue-${hueOf(id)}${group ? ' square' : ''}${small ? ' small' : ''}`}
      aria-hidden="true"
    >
      {initial(name)}
      {presence && presence.state !== 'unknown' && <span class={`dot ${presence.state}`} />}
    </span>
  );
}

/** A name of somebody: whatever its letters do, they do it inside. */
export const Name = ({ text }: { text: string }): JSX.Element => <bdi class="name">{text}</bdi>;

/** What opens beside a conversation. */
export function SidePanel(props: {
  title: string;
  /** What the button that closes it is called. */
  close: string;
  onClose: () => void;
  children: ComponentChildren;
}): JSX.Element {
  return (
    <section class="panel" aria-label={props.title}>
      <header class="panel-head">
        <h2>{props.title}</h2>
        <IconButton icon="close" label={props.close} onClick={props.onClose} />
      </header>
      <div class="panel-body">{props.children}</div>
    </section>
  );
}

/** A dialog over the page. The browser keeps the focus inside and Esc closes it. */
export function Dialog(props: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
}): JSX.Element {
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => ref.current?.showModal(), []);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Esc closes it, the browser sees to that
    <dialog
      ref={ref}
      class="dialog"
      aria-labelledby="dialog-title"
      onClose={props.onClose}
      onClick={(event) => {
        // The dialog itself is hit only outside of what is in it.
        if (event.target === ref.current) ref.current?.close();
      }}
    >
      <div class="dialog-inner">
        <header class="dialog-head">
          <h2 id="dialog-title">{props.title}</h2>
          <IconButton icon="close" label="Close" onClick={() => ref.current?.close()} />
        </header>
        {props.children}
      </div>
    </dialog>
  );
}

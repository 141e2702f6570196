// Addresses in a text. Pure.

/** A part of a text: as it is, or an address that can be followed. */
export interface Piece {
  text: string;
  href: string | null;
}

/** Only these, written out; whatever else looks like an address stays text. */
const ADDRESS = /https?:\/\/[^\s<>"'`\u200e\u200f\u202a-\u202e\u2066-\u2069]+/giu;
/** Marks at the end that belong to the sentence. */
const SENTENCE_END = /[.,:;!?…'"”’»*_~]+$/u;

/** Cuts a text into pieces that give the text when put together. */
export function pieces(text: string): Piece[] {
  const out: Piece[] = [];
  let end = 0;
  for (const found of text.matchAll(ADDRESS)) {
    const address = trimmed(found[0]);
    const href = followable(address);
    if (href === null) continue;
    if (found.index > end) out.push({ text: text.slice(end, found.index), href: null });
    out.push({ text: address, href });
    end = found.index + address.length;
  }
  if (end < text.length) out.push({ text: text.slice(end), href: null });
  return out;
}

function trimmed(found: string): string {
  let address = found.replace(SENTENCE_END, '');
  for (const [open, close] of ['()', '[]', '{}'].map((pair) => [...pair] as [string, string])) {
    // A bracket that was opened before the address is closed after it.
    while (address.endsWith(close) && address.split(open).length < address.split(close).length) {
      address = address.slice(0, -1).replace(SENTENCE_END, '');
    }
  }
  return address;
}

function followable(address: string): string | null {
  try {
    const url = new URL(address);
    // `https://bank.example@evil.example` reads like another place than it is.
    return url.hostname !== '' && url.username === '' && url.password === '' ? url.href : null;
  } catch {
    return null;
  }
}

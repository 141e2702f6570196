// SHA-256 of short inputs, at once: the browser's own is asynchronous and missing in insecure contexts,
// and the ids of conversations are needed where nothing can wait.

/** The first 32 bits of the fractional parts of roots of primes (FIPS 180-4, 4.2.2 and 5.3.3). */
function fractions(root: number, count: number): number[] {
  const found: number[] = [];
  for (let candidate = 2; found.length < count; candidate++) {
    let prime = true;
    for (let divisor = 2; divisor * divisor <= candidate; divisor++) prime &&= candidate % divisor !== 0;
    if (prime) found.push(((candidate ** (1 / root) % 1) * 2 ** 32) | 0);
  }
  return found;
}

const ROUNDS = fractions(3, 64);
const START = fractions(2, 8);

export function sha256(input: Uint8Array): Uint8Array {
  const blocks = new Uint8Array(((input.length + 8) >> 6) * 64 + 64);
  blocks.set(input);
  blocks[input.length] = 0x80;
  const view = new DataView(blocks.buffer);
  view.setUint32(blocks.length - 4, input.length * 8);
  const state = Int32Array.from(START);
  const words = new Int32Array(64);
  const rotate = (value: number, by: number) => (value >>> by) | (value << (32 - by));
  for (let block = 0; block < blocks.length; block += 64) {
    for (let at = 0; at < 64; at++) {
      const [w15, w2] = [words[at - 15] as number, words[at - 2] as number];
      words[at] =
        at < 16
          ? view.getInt32(block + 4 * at)
          : (words[at - 16] as number) +
            (words[at - 7] as number) +
            (rotate(w15, 7) ^ rotate(w15, 18) ^ (w15 >>> 3)) +
            (rotate(w2, 17) ^ rotate(w2, 19) ^ (w2 >>> 10));
    }
    let [a, b, c, d, e, f, g, h] = state as unknown as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    for (let at = 0; at < 64; at++) {
      const one =
        h +
        (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
        ((e & f) ^ (~e & g)) +
        (ROUNDS[at] as number) +
        (words[at] as number);
      const two = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((value, at) => {
      state[at] = (state[at] as number) + value;
    });
  }
  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((value, at) => {
    digest.setInt32(4 * at, value);
  });
  return new Uint8Array(digest.buffer);
}

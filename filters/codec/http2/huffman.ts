// Hot path: strings of every header block that its dynamic table does not have.

/** RFC 7541 Appendix B: the length of each symbol's code. The code is canonical, so the lengths tell all of it. */
const LENGTHS = `
  13 23 28 28 28 28 28 28 28 24 30 28 28 30 28 28 28 28 28 28 28 28 30 28 28 28 28 28 28 28 28
  28 6 10 10 12 13 6 8 11 10 10 8 11 8 6 6 6 5 5 5 6 6 6 6 6 6 6 7 8 15 6 12 10 13 6 7 7 7 7 7 7
  7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 8 7 8 13 19 13 14 6 15 5 6 5 6 5 6 6 6 5 7 7 6 6 6 5 6 7 6 5 5
  6 7 7 7 7 7 15 11 14 13 28 20 22 20 20 22 22 22 23 22 23 23 23 23 23 24 23 24 24 22 23 24 23
  23 23 23 21 22 23 22 23 23 24 22 21 20 22 22 23 23 21 23 22 22 24 21 22 23 23 21 21 22 21 23
  22 23 23 20 22 22 22 23 22 22 23 26 26 20 19 22 23 22 25 26 26 26 27 27 26 24 25 19 21 26 27
  27 26 27 24 21 21 26 26 28 27 27 27 20 24 20 21 22 21 21 23 22 22 25 25 24 24 26 23 26 27 26
  26 27 27 27 27 27 28 27 27 27 27 27 26`
  .trim()
  .split(/\s+/)
  .map(Number);
/** EOS: thirty ones. It fills up the last byte of a string and must not stand in it. */
const EOS = 256;
const LONGEST = 30;

const codes = new Uint32Array(257);
const lengths = Uint8Array.from([...LENGTHS, LONGEST]);
for (let length = 1, code = 0; length <= LONGEST; length++, code *= 2) {
  for (let symbol = 0; symbol <= EOS; symbol++)
    if (lengths[symbol] === length) codes[symbol] = code++;
}

/** Of a step: the state that follows, whether a symbol is complete with it, and which. */
const STATE = 0x1ff;
const EMITS = 0x200;
const FAILS = 0x400;
const SYMBOL_SHIFT = 16;

/** A step for each state and four bits; the shortest code has five, so a step completes one symbol at most. */
const steps = new Int32Array(256 * 16);
/** States that a string may end in: at the root, or on fewer than eight ones. */
const accepts = new Uint8Array(256);
buildSteps();

/** The tree of codes: inner nodes are the states, a leaf is its symbol below zero. */
function buildSteps(): void {
  const children: [number, number][] = [[0, 0]];
  for (let symbol = 0; symbol <= EOS; symbol++) {
    let node = 0;
    for (let bit = lengths[symbol]! - 1; bit >= 0; bit--) {
      const side = (codes[symbol]! >>> bit) & 1;
      if (bit === 0) children[node]![side] = -1 - symbol;
      else {
        if (children[node]![side] === 0) children[node]![side] = children.push([0, 0]) - 1;
        node = children[node]![side]!;
      }
    }
  }
  for (let node = 0; node < children.length; node++) {
    for (let bits = 0; bits < 16; bits++) steps[node * 16 + bits] = stepFrom(children, node, bits);
  }
  for (let node = 0, ones = 0; ones < 8; ones++, node = children[node]![1]) accepts[node] = 1;
}

function stepFrom(children: [number, number][], from: number, bits: number): number {
  let node = from;
  let emitted = 0;
  for (let bit = 3; bit >= 0; bit--) {
    node = children[node]![(bits >>> bit) & 1]!;
    if (node >= 0) continue;
    const symbol = -1 - node;
    if (symbol === EOS) return FAILS;
    emitted = EMITS | (symbol << SYMBOL_SHIFT);
    node = 0;
  }
  return node | emitted;
}

/** Most bytes that a coded string of `size` bytes stands for. */
export const decodedSize = (size: number): number => Math.floor((size * 8) / 5);

/** Decodes [at, end) of `from` to `to` at `toAt`, where there is room for `decodedSize`. Where it ended, or -1. */
export function huffmanDecode(
  from: Uint8Array,
  at: number,
  end: number,
  to: Uint8Array,
  toAt: number,
): number {
  let out = toAt;
  let state = 0;
  for (let k = at; k < end; k++) {
    const byte = from[k]!;
    let step = steps[(state << 4) | (byte >>> 4)]!;
    if ((step & EMITS) !== 0) to[out++] = step >>> SYMBOL_SHIFT;
    const low = steps[((step & STATE) << 4) | (byte & 15)]!;
    if (((step | low) & FAILS) !== 0) return -1;
    step = low;
    if ((step & EMITS) !== 0) to[out++] = step >>> SYMBOL_SHIFT;
    state = step & STATE;
  }
  return accepts[state] === 1 ? out : -1;
}

/** Bytes that the range takes when it is coded. */
export function huffmanSize(from: Uint8Array, at: number, end: number): number {
  let bits = 0;
  for (let k = at; k < end; k++) bits += lengths[from[k]!]!;
  return (bits + 7) >>> 3;
}

/** Codes [at, end) of `from` to `to` at `toAt`, where there is room for `huffmanSize`. Where it ended. */
export function huffmanEncode(
  from: Uint8Array,
  at: number,
  end: number,
  to: Uint8Array,
  toAt: number,
): number {
  let out = toAt;
  let bits = 0;
  let count = 0;
  for (let k = at; k < end; k++) {
    const symbol = from[k]!;
    let code = codes[symbol]!;
    let length = lengths[symbol]!;
    if (length > 24) {
      // Seven bits that wait and thirty more do not fit a word.
      bits = (bits << (length - 16)) | (code >>> 16);
      count += length - 16;
      while (count >= 8) to[out++] = bits >>> (count -= 8);
      code &= 0xffff;
      length = 16;
    }
    bits = (bits << length) | code;
    count += length;
    while (count >= 8) to[out++] = bits >>> (count -= 8);
  }
  if (count > 0) to[out++] = (bits << (8 - count)) | (0xff >>> count);
  return out;
}

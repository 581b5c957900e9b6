// Hot path: codes the strings of header blocks that are not in a table.

/** Code length of each symbol (RFC 7541 Appendix B). The code is canonical: it follows from the lengths. */
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
/** End of string, coded as thirty ones: its first bits pad a string's last byte; it must not occur in full. */
const EOS = 256;
const LONGEST = 30;

const codes = new Uint32Array(257);
const lengths = Uint8Array.from([...LENGTHS, LONGEST]);
for (let length = 1, code = 0; length <= LONGEST; length++, code *= 2) {
  for (let symbol = 0; symbol <= EOS; symbol++)
    if (lengths[symbol] === length) codes[symbol] = code++;
}

/** Parts of a step: the next state, whether it completes a symbol (EMITS), whether it is invalid (FAILS), and the symbol. */
const STATE = 0x1ff;
const EMITS = 0x200;
const FAILS = 0x400;
const SYMBOL_SHIFT = 16;

/** The step for each state and four bits. The shortest code has five bits, so a step completes at most one symbol. */
const steps = new Int32Array(256 * 16);
/** 1 for states in which a string may end: after a symbol, or after padding of at most seven ones. */
const accepts = new Uint8Array(256);
buildSteps();

/** Builds `steps` from the tree of codes: inner nodes are the states, a leaf is stored as -1 - symbol. */
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

/** Maximum length of a decoded string; `size`: its coded bytes. */
export const decodedSize = (size: number): number => Math.floor((size * 8) / 5);

/** Decodes [at, end) of `from` to `to` at `toAt`, which needs room for `decodedSize`. Returns the end in `to`; -1 if invalid. */
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

/** Coded size of [at, end) in bytes. */
export function huffmanSize(from: Uint8Array, at: number, end: number): number {
  let bits = 0;
  for (let k = at; k < end; k++) bits += lengths[from[k]!]!;
  return (bits + 7) >>> 3;
}

/** Codes [at, end) of `from` to `to` at `toAt`, which needs room for `huffmanSize`. Returns the end in `to`. */
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
      // Seven remaining bits and up to thirty more would not fit into 32 bits.
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

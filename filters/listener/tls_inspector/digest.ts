/** Digests of short texts that are needed at once; those of `crypto.subtle` come later. */

const rotate = (word: number, bits: number): number => (word << bits) | (word >>> (32 - bits));

/** Text of ASCII, a one bit, zeros, and its length in bits at the end: blocks of sixteen words. */
function blocksOf(text: string, littleEndian: boolean): Int32Array {
  const count = ((text.length + 8) >> 6) + 1;
  const bytes = new DataView(new ArrayBuffer(count * 64));
  for (let k = 0; k < text.length; k++) bytes.setUint8(k, text.charCodeAt(k));
  bytes.setUint8(text.length, 0x80);
  bytes.setUint32(count * 64 - (littleEndian ? 8 : 4), text.length * 8, littleEndian);
  return Int32Array.from({ length: count * 16 }, (_, k) => bytes.getInt32(k * 4, littleEndian));
}

function hexOf(words: Int32Array, littleEndian: boolean): string {
  const bytes = new DataView(new ArrayBuffer(4));
  let text = "";
  for (const word of words) {
    bytes.setInt32(0, word, littleEndian);
    text += bytes.getUint32(0).toString(16).padStart(8, "0");
  }
  return text;
}

const SINES = Int32Array.from({ length: 64 }, (_, k) =>
  Math.floor(Math.abs(Math.sin(k + 1)) * 2 ** 32),
);
const TURNS = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21];

/** RFC 1321, in hex. */
export function md5(text: string): string {
  const state = Int32Array.of(0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476);
  const words = blocksOf(text, true);
  for (let block = 0; block < words.length; block += 16) {
    let [a = 0, b = 0, c = 0, d = 0] = state;
    for (let k = 0; k < 64; k++) {
      const round = k >> 4;
      let mix: number;
      let word: number;
      if (round === 0) [mix, word] = [(b & c) | (~b & d), k];
      else if (round === 1) [mix, word] = [(d & b) | (~d & c), 5 * k + 1];
      else if (round === 2) [mix, word] = [b ^ c ^ d, 3 * k + 5];
      else [mix, word] = [c ^ (b | ~d), 7 * k];
      const sum = (a + mix + SINES[k]! + words[block + (word & 15)]!) | 0;
      const turned = rotate(sum, TURNS[round * 4 + (k & 3)]!);
      [a, b, c, d] = [d, (b + turned) | 0, b, c];
    }
    for (const [k, value] of [a, b, c, d].entries()) state[k]! += value;
  }
  return hexOf(state, true);
}

/** FIPS 180-4 §4.2.2 and §5.3.3: fractions of the cube roots of 64 primes for the rounds, of 8 square roots to start from. */
const PRIMES = firstPrimes(64);
const fraction = (root: number): number => ((root % 1) * 2 ** 32) | 0;
const CUBES = Int32Array.from(PRIMES, (prime) => fraction(Math.cbrt(prime)));
const SQUARES = Int32Array.from(PRIMES.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));

function firstPrimes(count: number): number[] {
  const primes: number[] = [];
  for (let n = 2; primes.length < count; n++)
    if (primes.every((prime) => n % prime !== 0)) primes.push(n);
  return primes;
}

/** FIPS 180-4 §6.2, in hex. */
export function sha256(text: string): string {
  const state = SQUARES.slice();
  const words = blocksOf(text, false);
  const w = new Int32Array(64);
  for (let block = 0; block < words.length; block += 16) {
    for (let k = 0; k < 64; k++) {
      if (k < 16) w[k] = words[block + k]!;
      else {
        const early = w[k - 15]!;
        const late = w[k - 2]!;
        const s0 = rotate(early, 25) ^ rotate(early, 14) ^ (early >>> 3);
        const s1 = rotate(late, 15) ^ rotate(late, 13) ^ (late >>> 10);
        w[k] = (w[k - 16]! + s0 + w[k - 7]! + s1) | 0;
      }
    }
    let [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0] = state;
    for (let k = 0; k < 64; k++) {
      const s1 = rotate(e, 26) ^ rotate(e, 21) ^ rotate(e, 7);
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + CUBES[k]! + w[k]!) | 0;
      const s0 = rotate(a, 30) ^ rotate(a, 19) ^ rotate(a, 10);
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [a, b, c, d, e, f, g, h] = [(t1 + t2) | 0, a, b, c, (d + t1) | 0, e, f, g];
    }
    for (const [k, value] of [a, b, c, d, e, f, g, h].entries()) state[k]! += value;
  }
  return hexOf(state, false);
}

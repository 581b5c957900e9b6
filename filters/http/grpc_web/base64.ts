const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const PAD = 61;
const codes = Uint8Array.from(ALPHABET, (char) => char.charCodeAt(0));
const values = new Int8Array(256).fill(-1);
for (let k = 0; k < 64; k++) values[codes[k]!] = k;

/** RFC 4648 §4. Its size is a multiple of four; undefined if that is no base64. */
export function decodeBase64(text: Uint8Array): Uint8Array | undefined {
  const size = text.length;
  if (size === 0) return new Uint8Array(0);
  let pads = 0;
  while (pads < 2 && text[size - 1 - pads] === PAD) pads++;
  const out = new Uint8Array((size / 4) * 3 - pads);
  let at = 0;
  for (let k = 0; k < size; k += 4) {
    const last = k + 4 === size;
    let group = 0;
    for (let n = 0; n < 4; n++) {
      const isPad = last && n >= 4 - pads;
      const value = isPad ? 0 : values[text[k + n]!]!;
      if (value < 0) return undefined;
      group = (group << 6) | value;
    }
    for (let shift = 16; shift >= 0 && at < out.length; shift -= 8) out[at++] = group >>> shift;
  }
  return out;
}

/** Base64 of a stream of units, each with its own padding; a unit may come in any number of pieces. */
export class Base64Encoder {
  #kept = 0;
  #keptSize = 0;

  /** `last`: the unit ends with this piece. */
  encode(bytes: Uint8Array, last: boolean): Uint8Array {
    const out: number[] = [];
    let group = this.#kept;
    let size = this.#keptSize;
    for (const byte of bytes) {
      group = (group << 8) | byte;
      if (++size < 3) continue;
      put(out, group, 4);
      group = size = 0;
    }
    if (last && size > 0) {
      put(out, group << (8 * (3 - size)), size + 1);
      while (out.length % 4 !== 0) out.push(PAD);
      group = size = 0;
    }
    this.#kept = group;
    this.#keptSize = size;
    return Uint8Array.from(out);
  }
}

function put(out: number[], group: number, chars: number): void {
  for (let k = 0; k < chars; k++) out.push(codes[(group >>> (18 - 6 * k)) & 63]!);
}

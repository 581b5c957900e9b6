import { utf8Decode } from "@tsproxy/sdk";

const REPLACEMENT = "\ufffd";

/** The text of a field. As in Envoy, each byte that is no part of a character of UTF-8 becomes an exclamation mark. */
export function textOf(bytes: Uint8Array): string {
  const text = utf8Decode(bytes, 0, bytes.length);
  if (!text.includes(REPLACEMENT)) return text;
  let mended = "";
  for (let at = 0; at < bytes.length; ) {
    const size = sizeAfter(bytes[at]!);
    const end = Math.min(at + size, bytes.length);
    const character = utf8Decode(bytes, at, end);
    const isWhole = [...character].length === 1 && (character !== REPLACEMENT || isSign(bytes, at));
    mended += isWhole ? character : "!";
    at = isWhole ? end : at + 1;
  }
  return mended;
}

/** Number of bytes of the character that this byte begins, if it begins one. */
function sizeAfter(first: number): number {
  if (first < 0x80) return 1;
  if (first < 0xe0) return 2;
  return first < 0xf0 ? 3 : 4;
}

/** The sign for what cannot be read was sent as such. */
function isSign(bytes: Uint8Array, at: number): boolean {
  return bytes[at] === 0xef && bytes[at + 1] === 0xbf && bytes[at + 2] === 0xbd;
}

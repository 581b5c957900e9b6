import { utf8Decode } from "@tsproxy/sdk";
import { percentDecode } from "./url-search-params.ts";

// The hosts of URLs (WHATWG URL §3.5), without IDNA: a host in other letters than ASCII's has to be written in Punycode.

/** What no name has, percent signs and control characters included. */
const FORBIDDEN = /[\0-\x20#%/:<>?@[\\\]^|\x7f]/;

/** A host as URLs write it: in lower case, IPv4 as four numbers, IPv6 in brackets at its shortest. Undefined: it is none. */
export function parseHost(text: string): string | undefined {
  if (text.startsWith("[")) {
    const words = text.endsWith("]") ? parseIpv6(text.slice(1, -1)) : undefined;
    return words && `[${writeIpv6(words)}]`;
  }
  const bytes = percentDecode(text);
  const name = utf8Decode(bytes, 0, bytes.length).toLowerCase();
  if (name === "" || FORBIDDEN.test(name) || /[^\0-\x7f]/.test(name)) return undefined;
  return endsInNumber(name) ? parseIpv4(name) : name;
}

function endsInNumber(name: string): boolean {
  const labels = name.split(".");
  if (labels.length > 1 && labels.at(-1) === "") labels.pop();
  return /^(\d+|0x[0-9a-f]*)$/.test(labels.at(-1)!);
}

/** Of one to four numbers, the last of which fills what is left: `127.1` is 127.0.0.1. */
function parseIpv4(name: string): string | undefined {
  const labels = name.split(".");
  if (labels.at(-1) === "") labels.pop();
  const numbers = labels.map(parseNumber);
  const last = numbers.pop()!;
  if (
    numbers.length > 3 ||
    numbers.some((n) => !(n <= 255)) ||
    !(last < 256 ** (4 - numbers.length))
  )
    return undefined;
  const whole = numbers.reduce((sum, n, k) => sum + n * 256 ** (3 - k), last);
  return [24, 16, 8, 0].map((bits) => Math.floor(whole / 2 ** bits) % 256).join(".");
}

/** Decimal, octal (`017`) or hexadecimal (`0x7f`, and `0x` for 0). NaN: none of these. */
function parseNumber(text: string): number {
  if (/^0x[0-9a-f]*$/.test(text)) return Number.parseInt(`0${text.slice(2)}`, 16);
  if (/^0[0-7]+$/.test(text)) return Number.parseInt(text, 8);
  return /^(0|[1-9]\d*)$/.test(text) ? Number(text) : Number.NaN;
}

/** Eight words. Undefined: the text is no address. */
function parseIpv6(text: string): number[] | undefined {
  const [before, after, more] = text.split("::");
  if (more !== undefined) return undefined;
  const first = wordsOf(before!, after === undefined);
  if (after === undefined) return first?.length === 8 ? first : undefined;
  const last = wordsOf(after, true);
  if (first === undefined || last === undefined || first.length + last.length > 7) return undefined;
  return [...first, ...new Array<number>(8 - first.length - last.length).fill(0), ...last];
}

/** `isEnd`: the address ends here, so that its last part may be written as an IPv4 address. */
function wordsOf(text: string, isEnd: boolean): number[] | undefined {
  if (text === "") return [];
  const words: number[] = [];
  const parts = text.split(":");
  for (const [k, part] of parts.entries()) {
    const ipv4 = isEnd && k === parts.length - 1 ? /^(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(part) : null;
    if (ipv4 !== null) {
      const [a, b, c, d] = ipv4
        .slice(1)
        .map((n) => (/^(0|[1-9]\d{0,2})$/.test(n) ? Number(n) : 256));
      if (Math.max(a!, b!, c!, d!) > 255) return undefined;
      words.push(a! * 256 + b!, c! * 256 + d!);
    } else if (/^[0-9A-Fa-f]{1,4}$/.test(part)) words.push(Number.parseInt(part, 16));
    else return undefined;
  }
  return words;
}

/** RFC 5952 §4.2: `::` stands for the first of the longest runs of zeros, if that has two words or more. */
function writeIpv6(words: readonly number[]): string {
  let [from, length] = [-1, 1];
  for (let k = 0; k < 8; k++) {
    let end = k;
    while (words[end] === 0) end++;
    if (end - k > length) [from, length] = [k, end - k];
  }
  const hex = (part: readonly number[]): string => part.map((word) => word.toString(16)).join(":");
  return from < 0 ? hex(words) : `${hex(words.slice(0, from))}::${hex(words.slice(from + length))}`;
}

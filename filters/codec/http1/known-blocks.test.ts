import { latin1Encode, RequestHeaders } from "@tsproxy/sdk";
import { expect, it } from "vitest";
import { parseRequestHead } from "./head.ts";

const MAX_HEADERS = 12;
/** Large and aligned, as an isolate's memory is: only there blocks are kept. */
const memory = new Uint8Array(new SharedArrayBuffer(1 << 16));

/** Random whole numbers below a bound, the same in each run. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    return Math.floor(((state >>> 0) / 2 ** 32) * below);
  };
}

/** All that a parser leaves behind. */
function parsed(headers: RequestHeaders, next: number, base: number) {
  const { count, present, repeated, blockEnd } = headers;
  const lines = next > 0 ? [...headers] : [];
  const bytes = String.fromCharCode(...headers.memory.subarray(base, base + Math.max(0, blockEnd)));
  return {
    next: next > 0 ? next - base : next,
    ...(next > 0 && { count, present, repeated, blockEnd, lines, bytes }),
    spans: next > 0 ? [...headers.spans.subarray(0, count * 6)] : [],
  };
}

/** Parses the text at `base` of the large memory. */
function parseThere(text: string, base: number) {
  memory.set(latin1Encode(text), base);
  const headers = new RequestHeaders();
  headers.memory = memory;
  headers.base = base;
  const next = parseRequestHead(headers, base + text.length, MAX_HEADERS, false);
  return parsed(headers, next, base);
}

/** Parses it in memory of its own, where nothing is remembered. */
function parseAlone(text: string) {
  const headers = new RequestHeaders();
  headers.memory = latin1Encode(text);
  return parsed(headers, parseRequestHead(headers, text.length, MAX_HEADERS, false), 0);
}

const LINES = [
  "Host: www.example.com",
  "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)",
  "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
  "Accept-Encoding: gzip, deflate, br",
  "Cookie: session=0123456789abcdef0123456789abcdef",
  "x-request-id:   spaced  ",
  "Connection: keep-alive, x-request-id",
  "X-Tab: a\tb",
];

it("a head is parsed alike whether its lines were met before or not, wherever it lies and whatever follows", () => {
  const int = numbers(7);
  for (let round = 0; round < 20_000; round++) {
    const lines = LINES.filter(() => int(8) > 0);
    if (int(6) === 0) lines.push(lines[int(lines.length)] ?? "a: b");
    if (int(30) === 0) for (let k = 0; k < MAX_HEADERS; k++) lines.push(`n${k}: v`);
    const ending = int(10) === 0 ? "\n" : "\r\n";
    let text = `GET /${"p".repeat(int(9))} HTTP/1.1\r\n${lines.join(ending)}${ending}${ending}`;
    if (int(8) === 0) {
      const at = int(text.length);
      text = `${text.slice(0, at)}${String.fromCharCode(int(256))}${text.slice(at + 1)}`;
    }
    if (int(8) === 0) text = text.slice(0, int(text.length));
    else if (int(4) === 0) text += "the next message";
    const base = 8 * int(64) + (int(4) === 0 ? int(8) : 0);
    expect(parseThere(text, base), JSON.stringify(text)).toEqual(parseAlone(text));
  }
});

it("a block longer than a kept one may be is parsed anew each time", () => {
  const text = `GET / HTTP/1.1\r\nHost: a\r\nCookie: ${"c".repeat(3000)}\r\n\r\n`;
  for (let round = 0; round < 20; round++) expect(parseThere(text, 0)).toEqual(parseAlone(text));
});

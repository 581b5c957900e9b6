/** HTTP/1 bytes, good and bad: a grammar that errs now and then, and mutations that do not know it. */

import type { Random } from "./random.ts";

const METHODS = [
  "GET",
  "GET",
  "GET",
  "POST",
  "POST",
  "PUT",
  "HEAD",
  "OPTIONS",
  "DELETE",
  "PATCH",
  "CONNECT",
  "M-SEARCH",
  "PURGE",
  "QUERY",
  "PRI",
  "FOO",
  "get",
  "",
];
const TARGETS = [
  "/",
  "/",
  "/a/b?c=d&e",
  "/%41%zz",
  "*",
  "http://b.test/x",
  "http://b.test",
  "HTTPS://b.test:8443/?q",
  "ftp://b.test/",
  "a.test:443",
  "[::1]:443",
  "/a#b",
  "/a\\b|{}",
  "/é",
  "x",
  "http://",
  "http://u@h/",
  "//x",
  "",
];
const VERSIONS = [
  "HTTP/1.1",
  "HTTP/1.1",
  "HTTP/1.1",
  "HTTP/1.1",
  "HTTP/1.1",
  "HTTP/1.0",
  "HTTP/1.0",
  "HTTP/1.2",
  "HTTP/2.0",
  "HTTP/0.9",
  "HTTP/1.10",
  "HTTP/1",
  "http/1.1",
  "HTTP/01.1",
  "RTSP/1.0",
];
const HOSTS = [
  "a.test",
  "a.test",
  "a.test:80",
  "[::1]:80",
  "",
  "a b",
  "a/b",
  "u@a",
  "a:b",
  "a%41",
  "a,b",
  "a:99999",
  "a_b",
];
const LENGTHS = [
  "0",
  "5",
  "5",
  "05",
  "+5",
  "-5",
  "5 ",
  "5,5",
  "5, 6",
  "0x5",
  "5a",
  "",
  "99999999999999999999",
  "18446744073709551615",
  "4294967296",
];
const CODINGS = [
  "chunked",
  "chunked",
  "chunked",
  "Chunked",
  "CHUNKED ",
  "gzip, chunked",
  "chunked, gzip",
  "identity",
  "chunked, chunked",
  "xchunked",
  "",
  "chunked;a=b",
  "gzip",
  ",chunked",
];
const CONNECTIONS = [
  "close",
  "keep-alive",
  "Keep-Alive",
  "Close",
  "upgrade",
  "Upgrade, close",
  "keep-alive, upgrade",
  "x-hop",
  "close, x-hop",
  "te",
  "host",
  "content-length",
  "",
  ",,close",
  "close,keep-alive",
  "clos",
  "closed",
  "not-close",
  "http2-settings, upgrade",
  "transfer-encoding",
];
const UPGRADES = ["websocket", "h2c", "x/1, y", ""];
const NAMES = [
  "X",
  "x-hop",
  "Accept",
  "User-Agent",
  "Cookie",
  "X-Forwarded-For",
  "X_Y",
  "!#$%&'*+-.^_`|~",
  "Content-Type",
  "Expect",
  "TE",
  "Trailer",
  "Keep-Alive",
  "Proxy-Connection",
];
const VALUES = [
  "y",
  "",
  "a b\tc",
  "é",
  "100-continue",
  "trailers",
  "gzip, trailers",
  "X-T",
  '"quoted; string"',
  "text/plain",
  "a,b",
  "x".repeat(40),
];
const LINE_ENDS = ["\n", "\r", "\r\r\n", "\n\r", "", "\r\n ", "\r\n\t", " \r\n"];
const COLONS = [":", ": ", ": ", ": ", ":  ", ":\t", " : ", ""];
const SIZES = [
  "5 ",
  " 5",
  "5;",
  "5;a",
  "5;a=b",
  '5;a="b"',
  '5;a="b;c"',
  "5;;",
  "5; a",
  "5 ;a",
  "0x5",
  "+5",
  "g",
  "",
  "00005",
  "5\t",
  "fffffffffffffffff",
  "5;a\x00",
  "5;=b",
  '5;a="',
  "5;a=b;c=d",
  "5;é",
];
const STATUSES = [
  "200",
  "200",
  "200",
  "204",
  "304",
  "404",
  "100",
  "103",
  "101",
  "099",
  "600",
  "999",
  "20",
  "2000",
  "2x0",
  "",
];
const REASONS = [" OK", " OK", " ", "", " Not Found", " é", " a\tb", "  x", "\tOK", " a\x01"];
const BYTES = [
  "\r",
  "\n",
  "\r\n",
  "\0",
  " ",
  "\t",
  ":",
  ";",
  "0",
  "5",
  "a",
  "A",
  "/",
  "\x7f",
  "\x80",
  "\xff",
  ",",
  '"',
  "\v",
  "H",
  "_",
  "(",
  "\x01",
];

export interface GeneratedCase {
  readonly kind: "request" | "response";
  /** One char a byte. */
  readonly wire: string;
  /** Where it is cut into reads. */
  readonly cuts: readonly number[];
}

export function generate(random: Random): GeneratedCase {
  const kind = random.below(10) < 7 ? "request" : "response";
  let wire = "";
  const messages = 1 + (random.once(3) ? random.below(3) : 0);
  // A case in which everything may err at once is refused at its first byte; most have one fault or none.
  const fault = random.once(4) ? 6 : 40;
  for (let k = 0; k < messages; k++) wire += message(random, kind, fault);
  if (random.once(3)) wire = mutate(random, wire);
  if (random.once(12)) wire = wire.slice(0, random.below(wire.length + 1));
  const cuts = Array.from({ length: random.below(4) }, () => random.below(wire.length + 1));
  return { kind, wire, cuts: cuts.sort((a, b) => a - b) };
}

function message(random: Random, kind: "request" | "response", fault: number): string {
  const end = () => (random.once(fault * 3) ? random.pick(LINE_ENDS) : "\r\n");
  const good = !random.once(fault);
  const space = () => (random.once(fault * 3) ? random.pick(["  ", "\t", ""]) : " ");
  let head = random.once(20) ? random.pick(["\r\n", "\n", "\r\n\r\n", "\r"]) : "";
  if (kind === "request") {
    const method = good
      ? random.pick(["GET", "POST", "PUT", "HEAD", "OPTIONS"])
      : random.pick(METHODS);
    const target = good ? random.pick(TARGETS.slice(0, 4)) : random.pick(TARGETS);
    const version = random.once(fault)
      ? random.pick(VERSIONS)
      : random.once(6)
        ? "HTTP/1.0"
        : "HTTP/1.1";
    head += method + space() + target + space() + version + end();
  } else {
    const version = random.once(fault)
      ? random.pick(VERSIONS)
      : random.once(6)
        ? "HTTP/1.0"
        : "HTTP/1.1";
    const status = random.once(fault / 2)
      ? random.pick(STATUSES)
      : random.pick(["200", "404", "204", "304", "100", "500"]);
    head +=
      version + space() + status + random.pick(random.once(fault) ? REASONS : [" OK", " "]) + end();
  }
  const lines: string[] = [];
  if (kind === "request")
    lines.push(line(random, "Host", random.once(fault) ? random.pick(HOSTS) : "a.test", fault));
  if (random.once(fault))
    lines.push(line(random, random.pick(["Host", "host"]), random.pick(HOSTS), fault));
  let body = "";
  if (random.once(2)) {
    if (random.once(2)) {
      lines.push(
        line(random, "Content-Length", random.once(fault / 2) ? random.pick(LENGTHS) : "5", fault),
      );
      if (random.once(fault))
        lines.push(line(random, "content-length", random.pick(LENGTHS), fault));
      body = random.once(10) ? "hell" : "hello";
    } else {
      lines.push(
        line(
          random,
          "Transfer-Encoding",
          random.once(fault / 2) ? random.pick(CODINGS) : "chunked",
          fault,
        ),
      );
      if (random.once(fault))
        lines.push(line(random, "transfer-encoding", random.pick(CODINGS), fault));
      body = chunks(random, fault);
    }
    if (random.once(fault)) lines.push(line(random, "Content-Length", random.pick(LENGTHS), fault));
    if (random.once(fault))
      lines.push(line(random, "Transfer-Encoding", random.pick(CODINGS), fault));
  }
  if (random.once(3)) lines.push(line(random, "Connection", random.pick(CONNECTIONS), fault));
  if (random.once(20)) lines.push(line(random, "Upgrade", random.pick(UPGRADES), fault));
  for (let k = random.below(4); k > 0; k--)
    lines.push(line(random, random.pick(NAMES), random.pick(VALUES), fault));
  for (let k = lines.length - 1; k > 0; k--) {
    const other = random.below(k + 1);
    [lines[k], lines[other]] = [lines[other]!, lines[k]!];
  }
  return head + lines.join("") + end() + body;
}

function line(random: Random, name: string, value: string, fault: number): string {
  const cased = random.once(3) ? name.toUpperCase() : name;
  const colon = random.once(fault) ? random.pick(COLONS) : ": ";
  const blank = random.once(fault) ? " \t" : "";
  const end = random.once(fault * 4) ? random.pick(LINE_ENDS) : "\r\n";
  return cased + colon + value + blank + end;
}

function chunks(random: Random, fault: number): string {
  const end = () => (random.once(fault * 2) ? random.pick(LINE_ENDS) : "\r\n");
  let body = "";
  for (let k = random.below(4); k > 0; k--) {
    const size = random.once(fault) ? random.pick(SIZES) : "5";
    body +=
      size +
      end() +
      (random.once(fault * 2) ? random.pick(["hell", "hello!", ""]) : "hello") +
      end();
  }
  body += (random.once(fault) ? random.pick(["00", "0;a", "0 ", "", '0;a="b"']) : "0") + end();
  if (random.once(4))
    body += line(
      random,
      random.pick(["X-T", "Content-Length", "Host", "T_U"]),
      random.pick(VALUES),
      fault,
    );
  return body + end();
}

function mutate(random: Random, wire: string): string {
  let text = wire;
  for (let k = 1 + random.below(3); k > 0; k--) {
    const at = random.below(text.length + 1);
    const to = Math.min(text.length, at + 1 + random.below(8));
    switch (random.below(6)) {
      case 0:
        text = text.slice(0, at) + random.pick(BYTES) + text.slice(at);
        break;
      case 1:
        text = text.slice(0, at) + text.slice(at + 1);
        break;
      case 2:
        text = text.slice(0, at) + random.pick(BYTES) + text.slice(at + 1);
        break;
      case 3:
        text = text.slice(0, to) + text.slice(at);
        break;
      case 4:
        text = text.slice(0, at) + text.slice(to);
        break;
      default: {
        // At a line's border mutations tell most.
        const border = text.indexOf("\r\n", at);
        if (border >= 0)
          text = text.slice(0, border) + random.pick(LINE_ENDS) + text.slice(border + 2);
      }
    }
  }
  return text;
}

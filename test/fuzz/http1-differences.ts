import type { Difference } from "./http1-judge.ts";

/** A difference that is meant: why, and a test that knows nothing of either parser. */
export interface ListedDifference {
  readonly name: string;
  readonly clause: string;
  readonly isThis: (difference: Difference) => boolean;
}

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const REQUEST_LINE = new RegExp(`^${TOKEN} [\\x21-\\x7e]+ HTTP/1\\.[01]$`);
const AUTHORITY_FORM =
  /^(\[[0-9A-Za-z:.!$&'()*+,;=~_-]+\]|([0-9A-Za-z!$&'()*+,;=~._-]|%[0-9A-Fa-f]{2})+)(:\d*)?$/;
/** RFC 3986 §3.2 without user information, with a port that TCP has. */
const AUTHORITY = {
  test: (text: string) =>
    AUTHORITY_FORM.test(text) && Number(/:(\d+)$/.exec(text)?.[1] ?? 0) < 65536,
};
const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER);

/** Lines of the head, empty lines before it skipped; the first is the start line. */
function headOf(wire: string): string[] {
  const lines = wire.replace(/^(\r?\n)+/, "").split(/\r?\n/);
  const end = lines.indexOf("");
  return end < 0 ? lines : lines.slice(0, end);
}

function values(wire: string, name: string): string[] {
  const found: string[] = [];
  for (const line of headOf(wire).slice(1)) {
    const colon = line.indexOf(":");
    if (colon >= 0 && line.slice(0, colon).toLowerCase() === name)
      found.push(line.slice(colon + 1).replace(/^[ \t]+|[ \t]+$/g, ""));
  }
  return found;
}

function headHas(wire: string, pattern: RegExp): boolean {
  const end = /\r?\n\r?\n/.exec(wire.replace(/^(\r?\n)+/, (lines) => " ".repeat(lines.length)));
  return pattern.test(end === null ? wire : wire.slice(0, end.index + end[0].length));
}

const startLine = (wire: string): string => headOf(wire)[0] ?? "";
const target = (wire: string): string => startLine(wire).split(" ")[1] ?? "";
const method = (wire: string): string => startLine(wire).split(" ")[0] ?? "";
const options = (wire: string): string[] =>
  values(wire, "connection").flatMap((value) =>
    value
      .toLowerCase()
      .split(",")
      .map((option) => option.trim()),
  );

/** The difference is that we refuse a message of this kind which llhttp takes. */
const weRefuse =
  (kind: "request" | "response", because: (wire: string) => boolean) => (difference: Difference) =>
    difference.refusedBy === "ours" && difference.kind === kind && because(difference.wire);
const llhttpRefuses =
  (error: RegExp, because: (wire: string, difference: Difference) => boolean) =>
  (difference: Difference) =>
    difference.refusedBy === "llhttp" &&
    error.test(difference.theirs.error) &&
    because(difference.wire, difference);

export const DIFFERENCES: readonly ListedDifference[] = [
  {
    name: "we refuse a request after a CR that is no part of an empty line",
    clause: "RFC 9112 §2.2: CRLF before a request line is ignored; a bare CR is never a line's end",
    isThis: weRefuse("request", (wire) => /^(\r?\n)*\r(?!\n)/.test(wire)),
  },
  {
    name: "we refuse a request line that is not three words with one space between, of version 1.0 or 1.1",
    clause:
      "RFC 9112 §3 (the grammar), §2.3 (the version); HTTP/0.9 has no place on a persistent connection",
    isThis: weRefuse("request", (wire) => !REQUEST_LINE.test(startLine(wire))),
  },
  {
    name: "we refuse a method that Envoy does not know",
    clause:
      "RFC 9110 §9.1: an unrecognised method may be refused; `allowCustomMethods` lets it pass",
    isThis: weRefuse("request", (wire) => method(wire) === "QUERY"),
  },
  {
    name: "we refuse a target of a form that its method does not have, or that names no host",
    clause: "RFC 9112 §3.2 (the four forms), RFC 9110 §4.2.4 (no user information)",
    isThis: weRefuse("request", (wire) => {
      const [verb, form] = [method(wire), target(wire)];
      if (verb === "CONNECT") return !(AUTHORITY.test(form) && /:\d+$/.test(form));
      if (form.startsWith("/")) return false;
      if (form === "*") return verb !== "OPTIONS";
      const authority = /^https?:\/\/([^/?#]*)/i.exec(form)?.[1];
      return authority === undefined || !AUTHORITY.test(authority);
    }),
  },
  {
    name: "we refuse two hosts, or one that is none, or none beside a target with an authority",
    clause:
      "RFC 9112 §3.2: 400 for more than one Host line, for an invalid one, and for none in HTTP/1.1",
    isThis: weRefuse("request", (wire) => {
      const hosts = values(wire, "host");
      if (hosts.length === 0) return !target(wire).startsWith("/") && target(wire) !== "*";
      return hosts.length > 1 || hosts.some((host) => host !== "" && !AUTHORITY.test(host));
    }),
  },
  {
    name: "we refuse a request whose Connection names what routes or frames it",
    clause: "RFC 9110 §7.6.1 with Envoy's rule: these are never hop-by-hop",
    isThis: weRefuse("request", (wire) =>
      options(wire).some(
        (option) =>
          option.startsWith(":") ||
          ["host", "content-length", "transfer-encoding", "trailer", "x-forwarded-for"].includes(
            option,
          ),
      ),
    ),
  },
  {
    name: "we refuse Transfer-Encoding in HTTP/1.0",
    clause: "RFC 9112 §6.1: such a message has faulty framing",
    isThis: (difference) =>
      difference.refusedBy === "ours" &&
      values(difference.wire, "transfer-encoding").length > 0 &&
      /HTTP\/1\.0/.test(startLine(difference.wire)),
  },
  {
    name: "we refuse transfer codings other than one `chunked`",
    clause: "RFC 9112 §6.1: 501 for codings that are not understood; §7.1: chunked is applied once",
    isThis: (difference) => {
      const codings = values(difference.wire, "transfer-encoding");
      return (
        difference.refusedBy === "ours" &&
        (codings.length > 1 || (codings.length === 1 && codings[0]!.toLowerCase() !== "chunked"))
      );
    },
  },
  {
    name: "we refuse a Content-Length beyond 2^53",
    clause: "RFC 9110 §8.6: a recipient must anticipate large numbers and not overflow",
    isThis: (difference) =>
      difference.refusedBy === "ours" &&
      values(difference.wire, "content-length").some(
        (length) => /^\d+$/.test(length) && BigInt(length) > MAX_SAFE,
      ),
  },
  {
    name: "we refuse a chunk beyond 2^53",
    clause: "RFC 9112 §7.1: a recipient must anticipate large numbers and not overflow",
    isThis: (difference) =>
      difference.refusedBy === "ours" &&
      /\r\n0*[1-9a-f][0-9a-f]{13,}(;|\r|$)/i.test(difference.wire),
  },
  {
    name: "we refuse a CONNECT with a body",
    clause: "RFC 9110 §9.3.6: content of a CONNECT request has no meaning",
    isThis: weRefuse(
      "request",
      (wire) =>
        method(wire) === "CONNECT" &&
        (values(wire, "content-length").some((length) => Number(length) > 0) ||
          values(wire, "transfer-encoding").length > 0),
    ),
  },
  {
    name: "we refuse an empty line before a response",
    clause: "RFC 9112 §2.2 grants it to requests alone",
    isThis: weRefuse("response", (wire) => /^[\r\n]/.test(wire)),
  },
  {
    name: "we refuse a status line of another version, a status below 100, or control characters in the reason",
    clause: "RFC 9112 §4, RFC 9110 §15",
    isThis: weRefuse(
      "response",
      (wire) => !/^HTTP\/1\.[01] [1-9]\d\d( [\t\x20-\x7e\x80-\xff]*)?$/.test(startLine(wire)),
    ),
  },
  {
    name: "we refuse 1xx and 204 that announce a body",
    clause: "RFC 9112 §6.1, RFC 9110 §8.6: a server must not send either field with them",
    isThis: weRefuse(
      "response",
      (wire) =>
        / (1\d\d|204)( |$)/.test(startLine(wire)) &&
        (values(wire, "transfer-encoding").length > 0 ||
          values(wire, "content-length").some((length) => length !== "0")),
    ),
  },
  {
    name: "to llhttp what follows a 101 is another protocol, also where nobody asked for one",
    clause: "RFC 9110 §7.8: a server may switch only to a protocol that the client has named",
    isThis: ({ kind, theirs }) => kind === "response" && theirs.messages.at(-1)?.start === "101",
  },
  {
    name: "we take a bare LF for the end of a line in a head",
    clause: "RFC 9112 §2.2: a recipient may; Envoy does",
    isThis: llhttpRefuses(/./, (wire) => headHas(wire, /(^|[^\r])\n/)),
  },
  {
    name: "we leave out the white space after a coding",
    clause: "RFC 9110 §5.5: it is no part of the value",
    isThis: ({ refusedBy, kind, wire, theirs }) =>
      (refusedBy === "llhttp" || kind === "response" || theirs.end === "tunnel") &&
      headHas(wire, /transfer-encoding:[ \t]*chunked[ \t]+\r?\n/i),
  },
  {
    name: "we drop framing headers from trailers, where llhttp takes them for the head's",
    clause: "RFC 9110 §6.5.1: they must not be merged into the head",
    isThis: llhttpRefuses(/CONTENT_LENGTH|TRANSFER_ENCODING|hidden/, (wire) =>
      /^0+(;[^\r\n]*)?\r\n(.+\r\n)*(content-length|transfer-encoding):/im.test(wire),
    ),
  },
  {
    name: "we read past chunk extensions whatever they are, but for control characters",
    clause: "RFC 9112 §7.1.1: unrecognised extensions are ignored",
    isThis: llhttpRefuses(/chunk extensions|hidden/, (wire) =>
      /\r\n[0-9A-Fa-f]+;[^\r\n]*\r\n/.test(wire),
    ),
  },
  {
    name: "we do not take `connection: close` of a 1xx for the final response's",
    clause: "RFC 9112 §9.6: close is said with the last response",
    isThis: (difference) =>
      difference.kind === "response" &&
      /^1\d\d$/.test(difference.ourMessage?.start ?? "") &&
      (difference.field === "keepAlive" || /CLOSED_CONNECTION/.test(difference.theirs.error)),
  },
  {
    name: "close beats keep-alive",
    clause: "RFC 9112 §9.3: in this order",
    isThis: ({ refusedBy, field, wire }) =>
      refusedBy === "both" &&
      field === "keepAlive" &&
      options(wire).includes("close") &&
      options(wire).includes("keep-alive"),
  },
  {
    name: "a target's authority takes the place of Host",
    clause: "RFC 9112 §3.2.2",
    isThis: ({ refusedBy, field, wire }) =>
      refusedBy === "both" && field === "headers" && !/^[/*]/.test(target(wire)),
  },
  {
    name: "an upgrade takes HTTP/1.1, both headers, and one protocol that is not h2c",
    clause: "RFC 9110 §7.8, RFC 9113 §3.1",
    isThis: ({ kind, refusedBy, field, wire, theirs }) => {
      const upgrades = values(wire, "upgrade");
      return (
        kind === "request" &&
        refusedBy === "both" &&
        field === "end" &&
        theirs.end === "tunnel" &&
        (/HTTP\/1\.0$/.test(startLine(wire)) ||
          upgrades.length !== 1 ||
          upgrades[0] === "" ||
          upgrades[0]!.toLowerCase() === "h2c")
      );
    },
  },
  {
    name: "all that follows an upgrade is the tunnel's, also where its head says how long the body is",
    clause:
      "RFC 9110 §7.8 wants the body read first; Envoy hands it on unread, and never reads a request after it",
    isThis: ({ kind, wire, ours }) =>
      kind === "request" &&
      ours.end === "tunnel" &&
      (values(wire, "transfer-encoding").length > 0 ||
        values(wire, "content-length").some((length) => Number(length) > 0)),
  },
];

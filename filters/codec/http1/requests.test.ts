import { Chunk, type CodecOptions, ResponseHeaders } from "@tsproxy/sdk";
import {
  CODEC_OPTIONS,
  LentChunk,
  TestConnection,
  TestContext,
  TestServerEvents,
} from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import http1 from "./filter.ts";

/** A case: why, the bytes, the events. Every request of the input is answered at its end, so that the next one is read. */
type Case = readonly [
  why: string,
  wire: string,
  events: readonly string[],
  options?: Partial<CodecOptions>,
];

const BAD = ["error 400 http1.codec_error"];
const LOW_VERSION = ["error 426 low_version"];
const BAD_HOST = ["error 400 http.invalid_authority"];
const NOT_IMPLEMENTED = ["error 501 http1.invalid_transfer_encoding"];
const HOST = "Host: a.test\r\n";
const IGNORES_TLS = { ignoresUpgrade: (name: string) => name === "TLS/1.0" };

const book: Readonly<Record<string, readonly Case[]>> = {
  "request line": [
    [
      "the plainest request",
      `GET / HTTP/1.1\r\n${HOST}\r\n`,
      ["head GET / HTTP/1.1 end [host: a.test]"],
    ],
    [
      "a bare LF ends a line too (RFC 9112 §2.2)",
      "GET / HTTP/1.1\nHost: a.test\nX: y\n\n",
      ["head GET / HTTP/1.1 end [host: a.test, x: y]"],
    ],
    [
      "empty lines before it are skipped",
      `\r\n\n\r\nGET / HTTP/1.1\r\n${HOST}\r\n`,
      ["head GET / HTTP/1.1 end [host: a.test]"],
    ],
    ["a CR before it is not an empty line", `\r\rGET / HTTP/1.1\r\n${HOST}\r\n`, BAD],
    ["a lone CR before it is not one either", `\rGET / HTTP/1.1\r\n${HOST}\r\n`, BAD],
    ["one of no version", "FOO\r\n\r\n", BAD],
    ["one of HTTP/0.9", "GET /\r\n\r\n", LOW_VERSION],
    ["one of HTTP/0.9, before its line is followed by anything", "GET /\r\n", LOW_VERSION],
    [
      "another minor version where HTTP/1.0 is accepted, unlike in Envoy",
      `GET / HTTP/1.2\r\n${HOST}\r\n`,
      LOW_VERSION,
      { acceptHttp10: true },
    ],
    [
      "another major version, too",
      `GET / HTTP/2.0\r\n${HOST}\r\n`,
      LOW_VERSION,
      { acceptHttp10: true },
    ],
    [
      "an old version is the last thing to be wrong",
      `GET https://b.test/ HTTP/1.0\r\n${HOST}\r\n`,
      ["error 403 http1.https_url_on_plaintext_connection"],
      { refusesHttpsInPlaintext: true },
    ],
    ["two spaces", `GET  / HTTP/1.1\r\n${HOST}\r\n`, BAD],
    ["a tab for a space", `GET\t/\tHTTP/1.1\r\n${HOST}\r\n`, BAD],
    ["a space at its end", `GET / HTTP/1.1 \r\n${HOST}\r\n`, BAD],
    ["a space at its start", ` GET / HTTP/1.1\r\n${HOST}\r\n`, BAD],
    ["HTTP/1.2, which is not spoken here", `GET / HTTP/1.2\r\n${HOST}\r\n`, LOW_VERSION],
    ["HTTP/1.10", `GET / HTTP/1.10\r\n${HOST}\r\n`, BAD],
    ["HTTP/2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD],
    ["http/1.1 in lower case", `GET / http/1.1\r\n${HOST}\r\n`, BAD],
    ["an unknown method", `FOOBAR / HTTP/1.1\r\n${HOST}\r\n`, BAD],
    [
      "an unknown method that is allowed",
      `FOOBAR / HTTP/1.1\r\n${HOST}\r\n`,
      ["head FOOBAR / HTTP/1.1 end [host: a.test]"],
      { allowCustomMethods: true },
    ],
    ["a method in lower case is another method", `get / HTTP/1.1\r\n${HOST}\r\n`, BAD],
    [
      "a method that is no token",
      `GE(T / HTTP/1.1\r\n${HOST}\r\n`,
      BAD,
      { allowCustomMethods: true },
    ],
    ["bytes of TLS", "\x16\x03\x01\x02\x00\x01\x00", BAD],
    ["a NUL in the target", `GET /\0a HTTP/1.1\r\n${HOST}\r\n`, BAD],
    ["DEL in the target", `GET /\x7f HTTP/1.1\r\n${HOST}\r\n`, BAD],
    ["a byte beyond ASCII in the target", `GET /\xe9 HTTP/1.1\r\n${HOST}\r\n`, BAD],
    [
      "a fragment is the connection manager's matter",
      `GET /a#b HTTP/1.1\r\n${HOST}\r\n`,
      ["head GET /a#b HTTP/1.1 end [host: a.test]"],
    ],
    [
      "asterisk-form",
      `OPTIONS * HTTP/1.1\r\n${HOST}\r\n`,
      ["head OPTIONS * HTTP/1.1 end [host: a.test]"],
    ],
    [
      "asterisk-form of another method",
      `GET * HTTP/1.1\r\n${HOST}\r\n`,
      ["error 400 http1.invalid_url"],
    ],
    [
      "a target that is no form at all",
      `GET a.test:80 HTTP/1.1\r\n${HOST}\r\n`,
      ["error 400 http1.codec_error"],
    ],
    [
      "HTTP/1.0 where it is not accepted",
      `GET / HTTP/1.0\r\n${HOST}\r\n`,
      ["error 426 low_version"],
    ],
    [
      "HTTP/1.0 where it is",
      `GET / HTTP/1.0\r\n${HOST}\r\n`,
      ["head GET / HTTP/1.0 end [host: a.test]"],
      { acceptHttp10: true },
    ],
    [
      "HTTP/1.0 without Host gets the default one",
      "GET / HTTP/1.0\r\n\r\n",
      ["head GET / HTTP/1.0 end [host: d.test]"],
      { acceptHttp10: true, defaultHostForHttp10: "d.test" },
    ],
  ],
  "absolute-form": [
    [
      "its authority takes the place of Host (RFC 9112 §3.2.2)",
      `GET http://b.test:81/x?y=1 HTTP/1.1\r\nX: 1\r\n${HOST}\r\n`,
      ["head GET /x?y=1 HTTP/1.1 end [x: 1, host: b.test:81]"],
    ],
    [
      "which may then be invalid",
      `GET http://b.test/ HTTP/1.1\r\nHost: "\r\n\r\n`,
      ["head GET / HTTP/1.1 end [host: b.test]"],
    ],
    [
      "without a path",
      `GET HTTP://b.test HTTP/1.1\r\n${HOST}\r\n`,
      ["head GET / HTTP/1.1 end [host: b.test]"],
    ],
    [
      "with a query alone, which the connection manager rejects",
      `GET https://b.test?q HTTP/1.1\r\n${HOST}\r\n`,
      ["head GET ?q HTTP/1.1 end [host: b.test]"],
    ],
    [
      "https without TLS is refused where nobody can have ended TLS before",
      `GET HTTPS://b.test/ HTTP/1.1\r\n\r\n`,
      ["error 403 http1.https_url_on_plaintext_connection"],
      { refusesHttpsInPlaintext: true },
    ],
    [
      "http is not",
      `GET http://b.test/ HTTP/1.1\r\n${HOST}\r\n`,
      ["head GET / HTTP/1.1 end [host: b.test]"],
      { refusesHttpsInPlaintext: true },
    ],
    [
      "nor a bad authority after https, which is answered first",
      `GET https://b_.test/ HTTP/1.1\r\n${HOST}\r\n`,
      ["error 400 http1.invalid_url"],
      { refusesHttpsInPlaintext: true },
    ],
    [
      "OPTIONS without path and query means / as in Envoy, where RFC 9112 §3.2.4 says *",
      `OPTIONS http://b.test HTTP/1.1\r\n${HOST}\r\n`,
      ["head OPTIONS / HTTP/1.1 end [host: b.test]"],
    ],
    [
      "where it is not wanted it is left for the connection manager",
      `GET http://b.test/ HTTP/1.1\r\n${HOST}\r\n`,
      ["head GET http://b.test/ HTTP/1.1 end [host: a.test]"],
      { allowAbsoluteUrl: false },
    ],
    [
      "and so is * for another method than OPTIONS",
      `GET * HTTP/1.1\r\n${HOST}\r\n`,
      ["head GET * HTTP/1.1 end [host: a.test]"],
      { allowAbsoluteUrl: false },
    ],
    [
      "another scheme",
      `GET h2c://b.test/ HTTP/1.1\r\n${HOST}\r\n`,
      ["error 400 http1.invalid_scheme"],
    ],
    [
      "user information is dropped",
      `GET http://u:p%40;&=+$,x-_.!~*'()@b.test:81/ HTTP/1.1\r\n${HOST}\r\n`,
      ["head GET / HTTP/1.1 end [host: b.test:81]"],
    ],
    [
      "an empty one too",
      `GET http://@[::1]/ HTTP/1.1\r\n${HOST}\r\n`,
      ["head GET / HTTP/1.1 end [host: [::1]]"],
    ],
    [
      "an IPv4 address in brackets passes, as in Envoy",
      `GET http://[1.2.3.4] HTTP/1.1\r\n${HOST}\r\n`,
      ["head GET / HTTP/1.1 end [host: [1.2.3.4]]"],
    ],
    ...[
      "u[@b",
      "u@c@b",
      "u@",
      "a:",
      "[::1]:",
      "a:65536",
      "a:8x",
      "a_b",
      "a%41",
      "a~",
      "[v1.a]",
      "[1:2]",
      "[::g]",
      "[::1",
      "[::1]x",
      "[]",
      ":80",
    ].map(
      (authority): Case => [
        `the authority ${authority}`,
        `GET http://${authority}/ HTTP/1.1\r\n${HOST}\r\n`,
        ["error 400 http1.invalid_url"],
      ],
    ),
    ["a fragment after the authority", `GET http://a#b HTTP/1.1\r\n${HOST}\r\n`, BAD],
    [
      "an empty authority",
      `GET http:///x HTTP/1.1\r\n${HOST}\r\n`,
      ["error 400 http1.invalid_url"],
    ],
    ["no authority", `GET http:// HTTP/1.1\r\n${HOST}\r\n`, ["error 400 http1.invalid_url"]],
    [
      "an authority beside a missing Host line",
      "GET http://b.test/ HTTP/1.1\r\n\r\n",
      ["head GET / HTTP/1.1 end [host: b.test]"],
    ],
    [
      "HTTP/1.0 needs no Host line",
      "GET http://b.test/ HTTP/1.0\r\n\r\n",
      ["head GET / HTTP/1.0 end [host: b.test]"],
      { acceptHttp10: true },
    ],
  ],
  host: [
    [
      "a missing one is the connection manager's matter",
      "GET / HTTP/1.1\r\n\r\n",
      ["head GET / HTTP/1.1 end []"],
    ],
    ["twice", `GET / HTTP/1.1\r\n${HOST}Host: b.test\r\n\r\n`, BAD],
    ["empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n", ["head GET / HTTP/1.1 end [host: ]"]],
    [
      "IPv6 with a port",
      "GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n",
      ["head GET / HTTP/1.1 end [host: [::1]:8080]"],
    ],
    ["a space in it", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BAD_HOST],
    ["a path in it", "GET / HTTP/1.1\r\nHost: a.test/x\r\n\r\n", BAD_HOST],
    ["a character of URLs alone", "GET / HTTP/1.1\r\nHost: a.test|b\r\n\r\n", BAD_HOST],
    // As in Envoy, the characters of a host are checked, and not what they say.
    ...["[::1", "u@a.test", "a.test:8o", "a.test:65536", ":80", "a:1:2", "a%4"].map(
      (host): [string, string, string[]] => [
        `the odd host ${host}`,
        `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
        [`head GET / HTTP/1.1 end [host: ${host}]`],
      ],
    ),
    [
      "percent-encoding",
      "GET / HTTP/1.1\r\nHost: a%41.test\r\n\r\n",
      ["head GET / HTTP/1.1 end [host: a%41.test]"],
    ],
  ],
  "header lines": [
    [
      "white space around a value is not part of it",
      `GET / HTTP/1.1\r\n${HOST}X:\t y z \t\r\nE:\r\n\r\n`,
      ["head GET / HTTP/1.1 end [host: a.test, x: y z, e: ]"],
    ],
    [
      "obs-text passes",
      `GET / HTTP/1.1\r\n${HOST}X: caf\xe9\r\n\r\n`,
      ["head GET / HTTP/1.1 end [host: a.test, x: caf\xe9]"],
    ],
    ["a space before the colon (RFC 9112 §5.1)", `GET / HTTP/1.1\r\n${HOST}X : y\r\n\r\n`, BAD],
    ["a space in a name", `GET / HTTP/1.1\r\n${HOST}X y: z\r\n\r\n`, BAD],
    ["no name", `GET / HTTP/1.1\r\n${HOST}: y\r\n\r\n`, BAD],
    ["no colon", `GET / HTTP/1.1\r\n${HOST}Xy\r\n\r\n`, BAD],
    ["a line that is folded (RFC 9112 §5.2)", `GET / HTTP/1.1\r\n${HOST}X: y\r\n z\r\n\r\n`, BAD],
    ["white space before the first line", `GET / HTTP/1.1\r\n X: y\r\n${HOST}\r\n`, BAD],
    ["NUL in a name", `GET / HTTP/1.1\r\n${HOST}X\0: y\r\n\r\n`, BAD],
    ["a high byte in a name", `GET / HTTP/1.1\r\n${HOST}X\xe9: y\r\n\r\n`, BAD],
    [
      "NUL in a value",
      `GET / HTTP/1.1\r\n${HOST}X: a\0b\r\n\r\n`,
      ["error 400 http1.invalid_characters"],
    ],
    [
      "a control character in a value",
      `GET / HTTP/1.1\r\n${HOST}X: a\x01b\r\n\r\n`,
      ["error 400 http1.invalid_characters"],
    ],
    [
      "DEL in a value",
      `GET / HTTP/1.1\r\n${HOST}X: a\x7fb\r\n\r\n`,
      ["error 400 http1.invalid_characters"],
    ],
    ["a bare CR in a value", `GET / HTTP/1.1\r\n${HOST}X: a\rb\r\n\r\n`, BAD],
    ["CR CR LF", `GET / HTTP/1.1\r\n${HOST}X: a\r\r\n\r\n`, BAD],
    [
      "more lines than allowed",
      `GET / HTTP/1.1\r\n${HOST}A: 1\r\nB: 2\r\n\r\n`,
      ["error 431 http1.too_many_headers"],
      { maxHeaders: 2 },
    ],
    [
      "as many as allowed",
      `GET / HTTP/1.1\r\n${HOST}A: 1\r\n\r\n`,
      ["head GET / HTTP/1.1 end [host: a.test, a: 1]"],
      { maxHeaders: 2 },
    ],
    [
      "more bytes than allowed",
      `GET / HTTP/1.1\r\n${HOST}X: ${"a".repeat(64)}\r\n\r\n`,
      ["error 431 http1.headers_too_large"],
      { maxHeadBytes: 64 },
    ],
    [
      "a line without end that is longer than allowed",
      `GET / HTTP/1.1\r\n${HOST}X: ${"a".repeat(640)}`,
      ["error 431 http1.headers_too_large"],
      { maxHeadBytes: 600 },
    ],
    [
      "a long line within the limit",
      `GET / HTTP/1.1\r\n${HOST}X: ${"a".repeat(700)}\r\nY: 1\r\n\r\n`,
      [`head GET / HTTP/1.1 end [host: a.test, x: ${"a".repeat(700)}, y: 1]`],
    ],
    [
      "an underscore is a token char",
      `GET / HTTP/1.1\r\n${HOST}X_Y: 1\r\n\r\n`,
      ["head GET / HTTP/1.1 end [host: a.test, x_y: 1]"],
    ],
    [
      "an underscore, dropped",
      `GET / HTTP/1.1\r\n${HOST}X_Y: 1\r\n\r\n`,
      ["head GET / HTTP/1.1 end [host: a.test]"],
      { headersWithUnderscores: "DROP_HEADER" },
    ],
    [
      "an underscore, refused",
      `GET / HTTP/1.1\r\n${HOST}X_Y: 1\r\n\r\n`,
      ["error 400 http1.unexpected_underscore"],
      { headersWithUnderscores: "REJECT_REQUEST" },
    ],
  ],
  "hop-by-hop headers": [
    [
      "are not forwarded (RFC 9110 §7.6.1)",
      `GET / HTTP/1.1\r\n${HOST}Connection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 3\r\nProxy-Connection: a\r\nUpgrade: x\r\n\r\n`,
      ["head GET / HTTP/1.1 end [host: a.test]"],
    ],
    [
      "TE is kept as trailers",
      `GET / HTTP/1.1\r\n${HOST}TE: trailers\r\nConnection: TE\r\n\r\n`,
      ["head GET / HTTP/1.1 end [host: a.test, te: trailers]"],
    ],
    [
      "TE is reduced to trailers",
      `GET / HTTP/1.1\r\n${HOST}TE: gzip, trailers\r\nTE: trailers\r\n\r\n`,
      ["head GET / HTTP/1.1 end [host: a.test, te: trailers]"],
    ],
    [
      "TE without trailers goes",
      `GET / HTTP/1.1\r\n${HOST}TE: gzip\r\n\r\n`,
      ["head GET / HTTP/1.1 end [host: a.test]"],
    ],
    [
      "TE that asks for nothing stays, as in Envoy",
      `GET / HTTP/1.1\r\n${HOST}TE: \r\n\r\n`,
      ["head GET / HTTP/1.1 end [host: a.test, te: ]"],
    ],
    [
      "Connection names the host",
      `GET / HTTP/1.1\r\n${HOST}Connection: host\r\n\r\n`,
      ["error 400 http1.connection_header_rejected"],
    ],
    [
      "Connection names the length",
      `POST / HTTP/1.1\r\n${HOST}Connection: close, content-length\r\nContent-Length: 4\r\n\r\nabcd`,
      ["error 400 http1.connection_header_rejected"],
    ],
    [
      "Connection names a pseudo header",
      `GET / HTTP/1.1\r\n${HOST}Connection: :path\r\n\r\n`,
      ["error 400 http1.connection_header_rejected"],
    ],
    [
      "Connection names what every object has",
      `GET / HTTP/1.1\r\n${HOST}Connection: constructor, __proto__\r\n\r\n`,
      ["head GET / HTTP/1.1 end [host: a.test]"],
    ],
    [
      "Connection names too many",
      `GET / HTTP/1.1\r\n${HOST}Connection: ${Array.from({ length: 17 }, (_, k) => `h${k}`).join()}\r\n\r\n`,
      ["error 400 http1.connection_header_rejected"],
    ],
    [
      "an endless Connection line",
      `GET / HTTP/1.1\r\n${HOST}Connection: ${",".repeat(1025)}\r\n\r\n`,
      ["error 400 http1.connection_header_rejected"],
    ],
    [
      "h2c is not offered (RFC 9113 §3.1)",
      `GET / HTTP/1.1\r\n${HOST}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n`,
      ["head GET / HTTP/1.1 end [host: a.test]"],
    ],
    [
      "all that follows an upgrade is the tunnel's, whatever length it claims",
      `POST / HTTP/1.1\r\n${HOST}Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nhigh`,
      [
        "head POST / HTTP/1.1 upgrade=websocket [host: a.test, connection: upgrade, upgrade: websocket, content-length: 2]",
        "body high",
      ],
    ],
    [
      "nor are its bytes chunks",
      `POST / HTTP/1.1\r\n${HOST}Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi`,
      [
        "head POST / HTTP/1.1 upgrade=websocket [host: a.test, connection: upgrade, upgrade: websocket]",
        "body 2\r\nhi",
      ],
    ],
    [
      "Expect is told and kept",
      `POST / HTTP/1.1\r\n${HOST}Expect: 100-Continue\r\nContent-Length: 2\r\n\r\nhi`,
      [
        "head POST / HTTP/1.1 length=2 expectContinue [host: a.test, expect: 100-Continue, content-length: 2]",
        "body hi",
        "end",
      ],
    ],
  ],
  "bodies with a length": [
    [
      "a body",
      `POST / HTTP/1.1\r\n${HOST}Content-Length: 5 \t \r\n\r\nhello`,
      ["head POST / HTTP/1.1 length=5 [host: a.test, content-length: 5]", "body hello", "end"],
    ],
    [
      "none",
      `POST / HTTP/1.1\r\n${HOST}Content-Length: 0\r\n\r\n`,
      ["head POST / HTTP/1.1 length=0 end [host: a.test, content-length: 0]"],
    ],
    [
      "a GET's body is a body",
      `GET / HTTP/1.1\r\n${HOST}Content-Length: 4\r\n\r\nGET `,
      ["head GET / HTTP/1.1 length=4 [host: a.test, content-length: 4]", "body GET ", "end"],
    ],
    [
      "two requests, the first with a body",
      `POST /1 HTTP/1.1\r\n${HOST}Content-Length: 2\r\n\r\nhiGET /2 HTTP/1.1\r\n${HOST}\r\n`,
      [
        "head POST /1 HTTP/1.1 length=2 [host: a.test, content-length: 2]",
        "body hi",
        "end",
        "head GET /2 HTTP/1.1 end [host: a.test]",
      ],
    ],
    [
      "the same length twice (Envoy's rule)",
      `POST / HTTP/1.1\r\n${HOST}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello`,
      BAD,
    ],
    ["a list of lengths", `POST / HTTP/1.1\r\n${HOST}Content-Length: 5, 5\r\n\r\nhello`, BAD],
    ...[
      "+5",
      "-1",
      "0x5",
      "5abc",
      "5.0",
      "5e0",
      "1_0",
      "",
      "18446744073709551621",
      "9007199254740993",
      "\xb2",
      "5 5",
    ].map(
      (length): Case => [
        `a length of "${length}"`,
        `POST / HTTP/1.1\r\n${HOST}Content-Length: ${length}\r\n\r\nhello`,
        BAD,
      ],
    ),
  ],
  "chunked bodies": [
    [
      "a body (RFC 9112 §7.1)",
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunKed\r\n\r\n5\r\nhello\r\n006\r\n world\r\n0\r\n\r\n`,
      ["head POST / HTTP/1.1 [host: a.test]", "body hello world", "end"],
    ],
    [
      "one chunk with its end in the same read",
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\nGET /2 HTTP/1.1\r\n${HOST}\r\n`,
      [
        "head POST / HTTP/1.1 [host: a.test]",
        "body 0123456789",
        "end",
        "head GET /2 HTTP/1.1 end [host: a.test]",
      ],
    ],
    [
      "none",
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      ["head POST / HTTP/1.1 [host: a.test]", "end"],
    ],
    [
      "extensions are read past",
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n5;a=b;c="d;e"\r\nhello\r\n0;x\r\n\r\n`,
      ["head POST / HTTP/1.1 [host: a.test]", "body hello", "end"],
    ],
    [
      "quotes and backslashes within the quotes of extensions are read past",
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n5;c="d\\"\\\\";e\r\nhello\r\n0\r\n\r\n`,
      ["head POST / HTTP/1.1 [host: a.test]", "body hello", "end"],
    ],
    [
      "trailers are dropped",
      `POST / HTTP/1.1\r\n${HOST}Trailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: 1\r\n\r\n`,
      ["head POST / HTTP/1.1 [host: a.test, trailer: X-T]", "body a", "end"],
    ],
    [
      "trailers are passed on where enabled",
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: 1\r\nContent-Length: 9\r\n\r\n`,
      ["head POST / HTTP/1.1 [host: a.test]", "body a", "trailers [x-t: 1]"],
      { enableTrailers: true },
    ],
    [
      "trailers of nothing but framing",
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nHost: b\r\n\r\n`,
      ["head POST / HTTP/1.1 [host: a.test]", "body a", "end"],
      { enableTrailers: true },
    ],
    [
      "a malformed trailer, though dropped",
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\nX T: 1\r\n\r\n`,
      ["head POST / HTTP/1.1 [host: a.test]", ...BAD],
    ],
    [
      "a trailer line that ends with LF alone",
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\nX: 1\n\r\n`,
      ["head POST / HTTP/1.1 [host: a.test]", ...BAD],
    ],
    [
      "too many trailers",
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n\r\n`,
      ["head POST / HTTP/1.1 [host: a.test]", "error 431 http1.too_many_headers"],
      { maxHeaders: 3 },
    ],
    ...(
      [
        ["no size", "\r\nhello\r\n0\r\n\r\n"],
        ["a size that is not hexadecimal", "g\r\n"],
        ["0x before a size", "0x5\r\nhello\r\n0\r\n\r\n"],
        ["a sign before a size", "+5\r\nhello\r\n0\r\n\r\n"],
        ["a space before a size", " 5\r\nhello\r\n0\r\n\r\n"],
        ["a space after a size", "5 \r\nhello\r\n0\r\n\r\n"],
        ["a size of 2^64", "10000000000000000\r\n"],
        ["a size beyond what counts exactly", "fffffffffffffff\r\n"],
        ["seventeen digits", "00000000000000005\r\nhello\r\n0\r\n\r\n"],
        ["a size line that ends with LF alone", "5\nhello\r\n0\r\n\r\n"],
        ["a size line that ends with CR alone", "5\rhello\r\n0\r\n\r\n"],
        ["an extension that ends with LF alone", "5;a\nhello\r\n0\r\n\r\n"],
        ["a control character in an extension", "5;a\0\r\nhello\r\n0\r\n\r\n"],
        ["a last chunk's line that ends with LF alone", "0\n\r\n"],
      ] as const
    ).map(
      ([why, body]): Case => [
        why,
        `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n${body}`,
        ["head POST / HTTP/1.1 [host: a.test]", ...BAD],
      ],
    ),
    [
      "data that is longer than its chunk",
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n`,
      ["head POST / HTTP/1.1 [host: a.test]", ...BAD],
    ],
    [
      "data that ends with LF alone",
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n`,
      ["head POST / HTTP/1.1 [host: a.test]", ...BAD],
    ],
    [
      "extensions without measure",
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n${`1;${"e".repeat(3000)}\r\na\r\n`.repeat(6)}`,
      ["head POST / HTTP/1.1 [host: a.test]", ...BAD],
    ],
    [
      "a length beside it (RFC 9112 §6.3)",
      `POST / HTTP/1.1\r\n${HOST}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG`,
      ["error 400 http1.content_length_and_chunked_not_allowed"],
    ],
    [
      "a length beside it, where that is allowed",
      `POST / HTTP/1.1\r\n${HOST}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      ["head POST / HTTP/1.1 [host: a.test]", "end"],
      { allowChunkedLength: true },
    ],
    [
      "HTTP/1.0 has none (RFC 9112 §6.1)",
      `POST / HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      ["error 400 http1.transfer_encoding_not_allowed"],
      { acceptHttp10: true },
    ],
    ...[
      "xchunked",
      "identity",
      "gzip, chunked",
      "chunked, chunked",
      "chunked, identity",
      '"chunked"',
      "chunked;q=1",
      "",
      "\xa0chunked",
    ].map(
      (coding): Case => [
        `a transfer coding of "${coding}"`,
        `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: ${coding}\r\n\r\n0\r\n\r\n`,
        NOT_IMPLEMENTED,
      ],
    ),
    [
      "chunked on two lines",
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      NOT_IMPLEMENTED,
    ],
    [
      "chunked, then identity on another line",
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n`,
      NOT_IMPLEMENTED,
    ],
    [
      "VT before the coding",
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding:\vchunked\r\n\r\n0\r\n\r\n`,
      ["error 400 http1.invalid_characters"],
    ],
  ],
  CONNECT: [
    [
      "has an authority for its target",
      "CONNECT a.test:443 HTTP/1.1\r\nHost: b\r\n\r\n",
      ["head CONNECT  HTTP/1.1 isConnect [host: a.test:443]"],
    ],
    [
      "needs no Host line",
      "CONNECT a.test:443 HTTP/1.1\r\n\r\n",
      ["head CONNECT  HTTP/1.1 isConnect [host: a.test:443]"],
    ],
    [
      "without a port",
      "CONNECT a.test HTTP/1.1\r\nHost: b\r\n\r\n",
      ["error 400 http1.invalid_url"],
    ],
    ["with a path", "CONNECT /x HTTP/1.1\r\nHost: b\r\n\r\n", ["error 400 http1.invalid_url"]],
    [
      "with a body (RFC 9110 §9.3.6)",
      "CONNECT a.test:443 HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\nabc",
      ["error 400 http1.body_disallowed"],
    ],
    [
      "with a chunked body",
      "CONNECT a.test:443 HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      NOT_IMPLEMENTED,
    ],
    [
      "with an empty body",
      "CONNECT a.test:443 HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n",
      ["head CONNECT  HTTP/1.1 isConnect [host: a.test:443]"],
    ],
  ],
  upgrades: [
    [
      "are asked for by two headers",
      `GET / HTTP/1.1\r\n${HOST}Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n`,
      [
        "head GET / HTTP/1.1 upgrade=websocket [host: a.test, connection: keep-alive, Upgrade, upgrade: WebSocket]",
      ],
    ],
    [
      "by one header are not",
      `GET / HTTP/1.1\r\n${HOST}Upgrade: websocket\r\n\r\n`,
      ["head GET / HTTP/1.1 end [host: a.test]"],
    ],
    [
      "may be asked for in HTTP/1.0",
      `GET / HTTP/1.0\r\n${HOST}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n`,
      [
        "head GET / HTTP/1.0 upgrade=websocket [host: a.test, connection: upgrade, upgrade: websocket]",
      ],
      { acceptHttp10: true },
    ],
    [
      "that are ignored were never asked for",
      `GET / HTTP/1.1\r\n${HOST}Connection: upgrade\r\nUpgrade: TLS/1.0\r\n\r\n`,
      ["head GET / HTTP/1.1 end [host: a.test]"],
      IGNORES_TLS,
    ],
    [
      "beside one that is ignored are asked for alone",
      `GET / HTTP/1.1\r\n${HOST}Connection: upgrade\r\nUpgrade: TLS/1.0, websocket\r\n\r\n`,
      [
        "head GET / HTTP/1.1 upgrade=websocket [host: a.test, connection: upgrade, upgrade: websocket]",
      ],
      IGNORES_TLS,
    ],
  ],
};

/** Sends the pieces and answers every request at its end; gives back what the decoder heard. */
function decode(pieces: readonly string[], options: Partial<CodecOptions> = {}): string[] {
  const connection = new TestConnection();
  const events = new TestServerEvents();
  const factory = new TestContext().setup(http1, {});
  const codec = factory.createServer(connection, events, { ...CODEC_OPTIONS, ...options });
  const answer = () => events.last.encoder.encodeHeaders(okay(), true);
  events.onHead = (_request, endStream) => {
    if (endStream) answer();
  };
  events.onEnd = answer;
  for (const piece of pieces) {
    const chunk = new LentChunk(piece);
    codec.onData(chunk);
    chunk.used();
    while (connection.agains > 0) {
      connection.agains = 0;
      codec.onAgain();
    }
  }
  return events.take().filter((line) => line !== "idle end");
}

for (const [section, cases] of Object.entries(book)) {
  describe(section, () => {
    for (const [why, wire, events, options] of cases) {
      it(why, () => {
        expect(decode([wire], options)).toEqual(events);
      });
    }
  });
}

it("no data goes on that came in one read with a chunk that is none; what came before did", () => {
  const head = `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n`;
  const read = "head POST / HTTP/1.1 [host: a.test]";
  expect(decode([head, "3\r\nabc\r\n2\r\nde\r\nzz\r\n"])).toEqual([read, ...BAD]);
  const sound = "3\r\nabc\r\n1\r\nd";
  const bad = "\r\n1\r\ne\r\nzz\r\n";
  expect(bad).toHaveLength(sound.length);
  expect(decode([head, sound, bad])).toEqual([read, "body abcd", ...BAD]);
});

/** The events, without data before an error: how much of it goes on depends on the reads. */
function surely(events: readonly string[]): readonly string[] {
  if (!events.at(-1)?.startsWith("error")) return events;
  return events.filter((line) => !line.startsWith("body"));
}

describe("however the bytes are cut", () => {
  const cases = Object.values(book).flat();

  it("two pieces give the same events as one, at every cut", () => {
    for (const [why, wire, events, options] of cases) {
      const step = wire.length > 2000 ? 97 : 1;
      for (let cut = 1; cut < wire.length; cut += step) {
        const got = decode([wire.slice(0, cut), wire.slice(cut)], options);
        expect(surely(got), `${why}, cut at ${cut}`).toEqual(surely(events));
      }
    }
  });

  it("single bytes give the same events too", () => {
    for (const [why, wire, events, options] of cases) {
      expect(surely(decode([...wire], options)), why).toEqual(surely(events));
    }
  });

  it("a long head that comes in single bytes costs time in proportion to its length", () => {
    const factory = new TestContext().setup(http1, {});
    const options = { ...CODEC_OPTIONS, maxHeadBytes: 1 << 20 };
    /** Microseconds of CPU, for what else the machine does is nothing to this. */
    const costOf = (length: number): number => {
      const events = new TestServerEvents();
      const codec = factory.createServer(new TestConnection(), events, options);
      const wire = new LentChunk(
        `GET / HTTP/1.1\r\n${HOST}X: ${"a".repeat(length)}\r\n${"Y: b\r\n".repeat(90)}Z: ${"c".repeat(length)}\r\n\r\n`,
      );
      const byte = new Chunk(wire.memory, 0, 0);
      const before = process.cpuUsage();
      for (let k = wire.at; k < wire.end; k++) {
        byte.at = k;
        byte.end = k + 1;
        codec.onData(byte);
      }
      expect(events.log).toHaveLength(1);
      const { user, system } = process.cpuUsage(before);
      return user + system;
    };
    const cheapest = (length: number) => Math.min(...[1, 2, 3].map(() => costOf(length)));
    // Sixteen times as long: parsing it all again for each byte would cost 256 times as much.
    expect(cheapest(160_000) / cheapest(10_000)).toBeLessThan(64);
  });
});

function okay() {
  const headers = new ResponseHeaders();
  headers.status = 200;
  return headers;
}

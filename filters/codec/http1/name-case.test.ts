import { type HeaderNameCase, latin1Decode, RequestHeaders, utf8Encode } from "@tsproxy/sdk";
import { CODEC_OPTIONS } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import { HeadReader, KIND } from "./head-reader.ts";
import { recase } from "./name-case.ts";

/** A head that was received like this, as it is forwarded with one more field. */
function forwarded(received: string, headerKeyFormat: HeaderNameCase): string {
  const headers = new RequestHeaders();
  const reader = new HeadReader(KIND.REQUEST, { ...CODEC_OPTIONS, headerKeyFormat });
  const bytes = utf8Encode(received);
  expect(reader.read(headers, bytes, 0, bytes.length)).toBe(1);
  const head = utf8Encode(`${received.trimEnd().toLowerCase()}\r\nx-new-name: 1\r\n\r\n`);
  if (headers.originalNames !== undefined) recase(head, 0, head.length, headers.originalNames);
  return latin1Decode(head, 0, head.length).trimEnd().split("\r\n").slice(1).join(" ");
}

it.each([
  ["preserve_case", "host: h X-cAmel: 1 x-new-name: 1"],
  ["preserve_or_proper_case", "host: h X-cAmel: 1 X-New-Name: 1"],
] as const)("with %s a head keeps its names, and others come in that case", (format, expected) => {
  expect(forwarded("GET / HTTP/1.1\r\nhost: h\r\nX-cAmel: 1\r\n\r\n", format)).toBe(expected);
});

it("writes all but the received names in proper case even if they are all in lower case", () => {
  const received = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
  expect(forwarded(received, "preserve_or_proper_case")).toBe("host: h X-New-Name: 1");
});

import { HeaderLine, headerName, latin1Decode, latin1Encode, ResponseHeaders } from "@tsproxy/sdk";
import { expect, it } from "vitest";
import { upgradeLineBit, writeFields } from "./writer.ts";

/** A head as a parser leaves it. */
function head(...lines: readonly string[]): ResponseHeaders {
  const headers = new ResponseHeaders();
  const text = lines.map((line) => `${line}\r\n`).join("");
  headers.memory = latin1Encode(text);
  headers.blockEnd = text.length;
  let at = 0;
  for (const line of lines) {
    const colon = at + line.indexOf(":");
    const { hash, known } = headerName(text.slice(at, colon));
    headers.addSpan(at, colon, colon + 2, at + line.length, hash, known);
    at += line.length + 2;
  }
  return headers;
}

function written(headers: ResponseHeaders, skip = 0): string[] {
  const out = { memory: new Uint8Array(1024), at: 0, end: 1024 };
  writeFields(out, headers, skip, -1);
  return latin1Decode(out.memory, 0, out.at).split("\r\n").slice(0, -1);
}

it("writes edits in the order they were made", () => {
  const headers = head("a: 1");
  headers.append("b", "2");
  headers.appendLine(new HeaderLine("c", "3"));
  headers.append("d", "4");
  headers.appendLine(new HeaderLine("e", "5"));
  headers.remove("b");
  headers.append("f", "6");
  expect(written(headers)).toEqual(["a: 1", "c: 3", "d: 4", "e: 5", "f: 6"]);
  expect([...headers].map(([name]) => name)).toEqual(["a", "c", "d", "e", "f"]);
});

it("writes a value that replaces others where the first of them stood", () => {
  const headers = head("a: 1", "server: x", "b: 2", "server: y");
  headers.replace("server", "own");
  headers.append("c", "3");
  expect(written(headers)).toEqual(["a: 1", "server: own", "b: 2", "c: 3"]);
  headers.replace("server", "again");
  expect([...headers].map((pair) => pair.join(": "))).toEqual(written(headers));
  expect(headers.getAll("server")).toEqual(["again"]);
  headers.remove("server");
  expect(written(headers)).toEqual(["a: 1", "b: 2", "c: 3"]);
});

it("replaces what an edit has set, and adds what is not there", () => {
  const headers = head("a: 1");
  headers.appendLine(new HeaderLine("via", "x"));
  headers.append("b", "2");
  headers.replace("via", "x, y");
  headers.replace("b", "3");
  headers.replace("c", "4");
  expect(written(headers)).toEqual(["a: 1", "via: x, y", "b: 3", "c: 4"]);
});

it("leaves out what the codec frames by itself, replaced or not", () => {
  const headers = head("content-length: 3", "a: 1");
  headers.replace("content-length", "4");
  expect(written(headers, 1 << headerName("content-length").known)).toEqual(["a: 1"]);
});

it("keeps the Connection line of an upgrade if there is one that says nothing else", () => {
  const keeps = (headers: ResponseHeaders) => upgradeLineBit(headers) !== 0;
  expect(keeps(head("connection: Upgrade"))).toBe(true);
  expect(keeps(head("connection: keep-alive, Upgrade"))).toBe(true);
  expect(keeps(head("a: 1"))).toBe(false);
  expect(keeps(head("connection: upgrade, x-secret"))).toBe(false);
  expect(keeps(head("connection: upgrade", "connection: x"))).toBe(false);
});

import { expect, it } from "vitest";
import { utf8Encode } from "./bytes.ts";
import { compileFormat, compileJsonFormat } from "./format.ts";
import { HeaderLine, headerName, RequestHeaders } from "./headers.ts";
import { newStreamInfo } from "./http.ts";
import { LineWriter } from "./line-writer.ts";

const NAME = headerName("x-value");

/** A head as it lies in bytes behind `before` others: one value, and a path. */
function arrived(value: string, path: string, before: number): RequestHeaders {
  const head = new RequestHeaders();
  const text = `${"_".repeat(before)}GET ${path} HTTP/1.1\r\nx-value: ${value}\r\n\r\n`;
  head.memory = Buffer.from(text, "latin1");
  head.base = before;
  head.blockEnd = text.length - before;
  [head.methodAt, head.methodEnd] = [0, 3];
  [head.pathAt, head.pathEnd] = [4, 4 + path.length];
  const nameAt = head.pathEnd + 11;
  const valueAt = nameAt + 9;
  head.addSpan(nameAt, nameAt + 7, valueAt, valueAt + value.length, NAME.hash, 0);
  return head;
}

function written(write: (line: LineWriter) => void, size = 4096): string {
  const line = new LineWriter(new Uint8Array(size));
  write(line);
  expect(line.full).toBe(false);
  return Buffer.from(line.memory.subarray(0, line.at)).toString();
}

it("copies what stands in a head's bytes, however they lie", () => {
  const format = compileFormat("%REQ(:METHOD)%|%REQ(:PATH)%|%REQ(X-VALUE)%\n");
  for (let shift = 0; shift < 8; shift++)
    for (let size = 0; size < 40; size++) {
      const value = "0123456789abcdefghijklmnopqrstuvwxyzABCD".slice(0, size);
      const request = arrived(value, `/${"p".repeat(shift)}`, shift);
      if (shift % 2 === 1) request.detach();
      const source = { info: newStreamInfo(), request, response: undefined };
      const text = written((line) => {
        line.bytes(new Uint8Array(shift >> 1).fill(0x2e));
        format.write?.(source, line);
      });
      expect(text).toBe(`${".".repeat(shift >> 1)}GET|/${"p".repeat(shift)}|${value}\n`);
    }
});

it.each(['"', "\\", "\t", "\x7f", "\xe9", "\xff"])("finds %j at every place of a value", (odd) => {
  const json = compileJsonFormat({ value: "%REQ(X-VALUE)%", within: "<%REQ(X-VALUE)%>" });
  for (let at = 0; at < 24; at++)
    for (const detached of [true, false]) {
      const request = arrived(`${"x".repeat(at)}${odd}${"y".repeat(23 - at)}`, "/", 3);
      if (detached) request.detach();
      const source = { info: newStreamInfo(), request, response: undefined };
      expect(written((line) => json.write?.(source, line))).toBe(json.format(source));
    }
});

it("writes numbers, text of all planes and what is no text as a string would be", () => {
  for (const n of [0, 7, 10, 99, 100, 65535, 2147483647, 2147483648, -1, 1.5, 1e21])
    expect(written((line) => line.number(n))).toBe(String(n));
  for (const text of ["", "a", "é", "путь", "\u{1f600}", "\ud800"])
    expect(written((line) => line.text(text))).toBe(text.toWellFormed());
});

it("writes nothing beyond its memory, and says that something did not fit", () => {
  const pieces: ((line: LineWriter) => void)[] = [
    (line) => line.text("five!"),
    (line) => line.text("ééé"),
    (line) => line.bytes(utf8Encode("five!")),
    (line) => line.number(12345),
    (line) => line.block(arrived("five!", "/five", 0), 4, 9),
  ];
  for (const write of pieces) {
    const line = new LineWriter(new Uint8Array(8).subarray(0, 4));
    write(line);
    expect(line.full).toBe(true);
    expect([...new Uint8Array(line.memory.buffer, 4)]).toEqual([0, 0, 0, 0]);
    line.begin(0);
    line.text("four");
    expect([line.full, line.at]).toEqual([false, 4]);
  }
});

it("copies a header that an edit has set as a line, without making its string", () => {
  const request = new RequestHeaders();
  const id = new HeaderLine("x-value", "old");
  request.appendLine(id);
  id.bytes.set(utf8Encode("new"), id.valueAt);
  id.refresh();
  Object.defineProperty(id, "value", { get: () => expect.fail("nobody needs the string") });
  const source = { info: newStreamInfo(), request, response: undefined };
  const text = written((line) => {
    compileFormat("%REQ(X-NONE?X-VALUE)%\n").write!(source, line);
    compileJsonFormat({ id: "%REQ(X-VALUE)%" }).write!(source, line);
  });
  expect(text).toBe('new\n{"id":"new"}\n');
});

it("escapes what cannot stand in JSON as it is of a header that an edit has set as a line", () => {
  const request = new RequestHeaders();
  request.appendLine(new HeaderLine("x-value", 'a"b'));
  const source = { info: newStreamInfo(), request, response: undefined };
  const format = compileJsonFormat({ id: "%REQ(X-VALUE)%" });
  expect(written((line) => format.write!(source, line))).toBe('{"id":"a\\"b"}\n');
});

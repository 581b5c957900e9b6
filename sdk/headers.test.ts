import { describe, expect, it } from "vitest";
import { HeaderLine, HeaderMap, headerName, RequestHeaders, ResponseHeaders } from "./headers.ts";

/** A head as a parser leaves it. */
function parsed<T extends HeaderMap>(head: T, ...lines: readonly (readonly [string, string])[]): T {
  head.memory = new TextEncoder().encode(lines.map(([n, v]) => `${n}: ${v}\r\n`).join(""));
  head.blockEnd = head.memory.length;
  let at = 0;
  for (const [name, value] of lines) {
    const valueAt = at + name.length + 2;
    const { hash, known } = headerName(name);
    head.addSpan(at, at + name.length, valueAt, valueAt + value.length, hash, known);
    at = valueAt + value.length + 2;
  }
  return head;
}

describe("a name of which there is one line", () => {
  it("has all its values on the first, without empty ones", () => {
    const head = parsed(
      new RequestHeaders(),
      ["accept", "a"],
      ["x-b", "1"],
      ["accept", ""],
      ["x-b", "2"],
      ["accept", "c"],
    );
    expect(head.repeated).toBe(true);
    head.joinRepeated();
    expect([...head]).toEqual([
      ["accept", "a,c"],
      ["x-b", "1"],
      ["x-b", "2"],
    ]);
    expect(head.get("accept")).toBe("a,c");
  });

  it("is another one in responses, and none in trailers", () => {
    const lines = [
      ["accept", "a"],
      ["vary", "b"],
      ["accept", "c"],
      ["vary", "d"],
    ] as const;
    const of = (head: HeaderMap) => {
      parsed(head, ...lines).joinRepeated();
      return [...head].map(([name, value]) => `${name}=${value}`).join(" ");
    };
    expect(of(new RequestHeaders())).toBe("accept=a,c vary=b vary=d");
    expect(of(new ResponseHeaders())).toBe("accept=a vary=b,d accept=c");
    expect(of(new HeaderMap())).toBe("accept=a vary=b accept=c vary=d");
  });

  it("takes what is appended", () => {
    const head = parsed(new ResponseHeaders(), ["location", "/a"], ["x-b", "1"]);
    head.append("location", "/b");
    head.appendLine(new HeaderLine("location", "/c"));
    head.append("vary", "x");
    head.append("vary", "y");
    expect([...head]).toEqual([
      ["location", "/a,/b,/c"],
      ["x-b", "1"],
      ["vary", "x,y"],
    ]);
  });

  it("is not looked for in a head without repetitions", () => {
    const names = Array.from({ length: 60 }, (_, k) => [`x-${k}`, ""] as const);
    expect(parsed(new RequestHeaders(), ...names).repeated).toBe(false);
  });
});

it("refuses values that are no strings", () => {
  for (const [value, type] of [
    [5, "number"],
    [undefined, "undefined"],
    [null, "null"],
  ])
    for (const method of ["set", "append"] as const)
      expect(() => new HeaderMap()[method]("x-n", value as never)).toThrow(
        `header "x-n" takes a string, not ${type}; write String(…)`,
      );
});

it("refuses values that HTTP cannot carry, and says what of which header", () => {
  for (const method of ["set", "append", "replace"] as const)
    expect(() => new HeaderMap()[method]("X-N", "a\r\nb: c")).toThrow(
      new TypeError('header "x-n" cannot carry "\\r"; write encodeURIComponent(…)'),
    );
  expect(() => new HeaderMap().set("x-n", "日本")).toThrow('header "x-n" cannot carry "日"');
});

import { TestClock } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import { type GlobalsHost, installGlobals } from "./globals.ts";
import { Url } from "./url.ts";
import { UrlSearchParams } from "./url-search-params.ts";

/** The globals of isolates. They stand in the place of Node's only while they are installed, so tests can compare the two. */
function own(host: Partial<GlobalsHost> = {}): typeof globalThis {
  const clock = new TestClock();
  const names = Object.keys(Object.getOwnPropertyDescriptors(globalThis));
  const kept = new Map(names.map((n) => [n, Object.getOwnPropertyDescriptor(globalThis, n)!]));
  const replaced = [
    "TextEncoder TextDecoder URL URLSearchParams AbortController AbortSignal atob btoa structuredClone",
    "queueMicrotask setTimeout clearTimeout performance",
  ].flatMap((line) => line.split(" "));
  for (const name of replaced) Reflect.deleteProperty(globalThis, name);
  installGlobals({ now: () => clock.ms, timer: (f) => clock.timer(f), onError: () => {}, ...host });
  const made: Record<string, unknown> = {};
  for (const name of replaced) {
    made[name] = (globalThis as never as Record<string, unknown>)[name];
    const before = kept.get(name);
    if (before !== undefined) Object.defineProperty(globalThis, name, before);
  }
  return made as never;
}

const outcome = (run: () => unknown): unknown => {
  try {
    return run();
  } catch {
    return "throws";
  }
};

describe("base64", () => {
  it.each([[""], ["a"], ["ab"], ["abc"], ["\u00ff\u0000\u0080x"], ["\u0100"]])(
    "of %j is Node's",
    (text) => {
      const { btoa: mine } = own();
      expect(outcome(() => mine(text))).toBe(outcome(() => btoa(text)));
    },
  );
  it.each([["YQ=="], ["YQ"], ["YWI="], [" Y W J j "], ["Y"], ["YQ="], ["Y*=="], ["____"]])(
    "back from %j is Node's",
    (text) => {
      const { atob: mine } = own();
      expect(outcome(() => mine(text))).toBe(outcome(() => atob(text)));
    },
  );
});

describe("text", () => {
  const euro = new Uint8Array([0xe2, 0x82, 0xac, 0x41]);

  it("is put together from chunks that cut a character", () => {
    for (let cut = 0; cut <= euro.length; cut++) {
      const decoder = new (own().TextDecoder)();
      const first = decoder.decode(euro.subarray(0, cut), { stream: true });
      expect(first + decoder.decode(euro.subarray(cut))).toBe("€A");
    }
  });
  it("is refused where it is no UTF-8 and must be", () => {
    const fatal = new (own().TextDecoder)("utf-8", { fatal: true });
    expect(outcome(() => fatal.decode(new Uint8Array([0xff])))).toBe("throws");
    expect(fatal.decode(new Uint8Array([0xef, 0xbf, 0xbd]))).toBe("\ufffd");
    expect(outcome(() => new (own().TextDecoder)("latin1"))).toBe("throws");
  });
  it("is encoded as Node does it", () => {
    const { TextEncoder: Mine } = own();
    expect([...new Mine().encode("h€\ud83d\ude00\ud800")]).toEqual([
      ...new TextEncoder().encode("h€\ud83d\ude00\ud800"),
    ]);
  });
});

describe("URLs", () => {
  const parts = (url: URL) =>
    outcome(() =>
      [
        url.href,
        url.host,
        url.hostname,
        url.port,
        url.pathname,
        url.search,
        url.hash,
        url.origin,
      ].join(" "),
    );
  it.each([
    ["http://Example.com"],
    ["https://a.b:443/x/../y/./z?q=1&r=%20#f"],
    ["http://a:8080/a b/%7e?x y"],
    ["http://user:p%40ss@a/"],
    ["http://[::1]:80/"],
    ["http://a/../../.."],
    ["http://a/%2e%2E/b/."],
    ["http://a\\b\\c"],
    ["http://a?x#y?z"],
    ["nope"],
    ["http://"],
    ["http://a:99999/"],
    ["http://a b/"],
  ])("%s is read as Node reads it", (text) => {
    const mine = outcome(() => parts(new Url(text) as never as URL));
    expect(mine).toBe(outcome(() => parts(new URL(text))));
  });
  it.each([
    ["../x"],
    ["?q"],
    ["#f"],
    ["/abs"],
    ["x/y?z"],
    ["//other/p"],
    [""],
    ["."],
    ["https://b/"],
  ])("%j counts from a base as in Node", (text) => {
    const base = "http://a:81/b/c/d?e#g";
    expect(parts(new Url(text, base) as never as URL)).toBe(parts(new URL(text, base)));
  });
  it("have parameters that can be changed", () => {
    const [mine, node] = [new Url("http://a/?a=1&b=2&a=3"), new URL("http://a/?a=1&b=2&a=3")];
    for (const url of [mine, node]) {
      url.searchParams.set("a", "é &");
      url.searchParams.append("c", "+");
      url.searchParams.delete("b");
    }
    expect(mine.href).toBe(node.href);
  });
});

it.each([["?a=1&b=%20+x&c&&=y"], ["a=%zz%e2%82%ac"], ["%"]])("parameters %j are Node's", (text) => {
  const [mine, node] = [new UrlSearchParams(text), new URLSearchParams(text)];
  expect([...mine]).toEqual([...node]);
  expect(mine.toString()).toBe(node.toString());
});

describe("the others", () => {
  it("clone what is no function, cycles too", () => {
    const { structuredClone: clone } = own();
    const value: Record<string, unknown> = {
      a: [1, undefined, { b: new Map([[1, new Set([2])]]) }],
      d: new Date(5),
      bytes: new Uint16Array([1, 2]),
      r: /x/gi,
    };
    value.self = value;
    const made = clone(value);
    expect(made).toEqual(value);
    expect(made.self).toBe(made);
    expect(made.bytes).not.toBe(value.bytes);
    expect(outcome(() => clone(() => {}))).toBe("throws");
  });
  it("clone a buffer once, whatever looks at it", () => {
    const { structuredClone: clone } = own();
    const buffer = new ArrayBuffer(16);
    const value = {
      bytes: new Uint8Array(buffer, 2, 3),
      words: new Uint16Array(buffer, 4),
      view: new DataView(buffer, 8, 1),
    };
    value.bytes[0] = 7;
    const made = clone(value);
    expect(made).toEqual(structuredClone(value));
    expect(made.bytes.buffer).not.toBe(buffer);
    expect([made.words.buffer, made.view.buffer]).toEqual([made.bytes.buffer, made.bytes.buffer]);
    made.bytes[2] = 9;
    expect(made.words[0]).toBe(9);
    expect([made.bytes.byteOffset, made.view.byteOffset, made.view.byteLength]).toEqual([2, 8, 1]);
  });
  it("clone of shared memory what is shown of it", () => {
    const { structuredClone: clone } = own();
    const memory = new Uint16Array(new SharedArrayBuffer(64), 4, 2);
    memory[1] = 7;
    const made = clone(memory);
    expect([made.buffer instanceof ArrayBuffer, made.buffer.byteLength]).toEqual([true, 4]);
    expect([...made]).toEqual([0, 7]);
  });
  it("refuse what they could do nothing with", () => {
    const made = own();
    expect(outcome(() => made.queueMicrotask(1 as never))).toBe("throws");
    expect(outcome(() => new UrlSearchParams([["a"]] as never))).toBe("throws");
  });
  it("run later, unless they are called off", async () => {
    const clock = new TestClock();
    const errors: unknown[] = [];
    const made = own({ timer: (f) => clock.timer(f), onError: (error) => errors.push(error) });
    const ran: unknown[] = [];
    made.setTimeout((x: unknown) => ran.push(x), 10, "a");
    const off = made.setTimeout(() => ran.push("never"), 10);
    made.clearTimeout(off);
    made.setTimeout(() => {
      throw new Error("x");
    }, 20);
    clock.advance(30);
    expect([ran, errors.length]).toEqual([["a"], 1]);
    made.queueMicrotask(() => ran.push("soon"));
    await Promise.resolve();
    expect(ran).toEqual(["a", "soon"]);
  });
  it("tell of aborts once", () => {
    const { AbortController: Mine } = own();
    const controller = new Mine();
    const seen: string[] = [];
    controller.signal.addEventListener("abort", () => seen.push("x"));
    controller.abort();
    controller.abort();
    expect([controller.signal.aborted, seen]).toEqual([true, ["x"]]);
    expect((controller.signal.reason as Error).name).toBe("AbortError");
  });
});

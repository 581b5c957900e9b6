import { afterEach, beforeEach, expect, it } from "vitest";
import { Exchange, FakeWorker, stubs } from "./fake-worker.ts";

/** What a filter's edits may make of a request line, its Host and a status; the filter is told of the others. */

let worker: FakeWorker;
beforeEach(() => {
  worker = new FakeWorker();
});
afterEach(() => worker.dispose());

async function edited(hooks: string, method = "GET"): Promise<Exchange> {
  const code = `
    import { defineHttpFilter, Type } from "@tsproxy/sdk";
    export default defineHttpFilter({ name: "test", config: Type.Object({}), setup: () => () => ({ ${hooks} }) });`;
  const sandbox = await worker.sandbox(code, [{}]);
  const head = `${method} /a HTTP/1.1\r\nhost: a.example\r\nx-a: 1\r\n`;
  const e = new Exchange(worker, [stubs(worker, sandbox)], head);
  await e.requestHeaders().settled();
  return e;
}

const PATH =
  'begin with "/", and write encodeURI(…) for white space, encodeURIComponent(…) for "#"';
const NAME = "write a name or an address, with or without a port";

it.each([
  ['h.path = ""', `:path cannot be "": ${PATH}`],
  ['h.path = "/a b"', `:path cannot be "/a b": ${PATH}`],
  ['h.path = "/a\\tb"', `:path cannot be "/a\\tb": ${PATH}`],
  ['h.path = "/a#b"', `:path cannot be "/a#b": ${PATH}`],
  ['h.path = "a"', `:path cannot be "a": ${PATH}`],
  ['h.path = "**"', `:path cannot be "**": ${PATH}`],
  ['h.method = "GE T"', ':method cannot be "GE T": write letters, 64 at most'],
  ['h.method = ""', ':method cannot be "": write letters, 64 at most'],
  [
    'h.method = "HEAD"',
    ':method cannot change from "GET" to "HEAD": the answer to HEAD has no body',
  ],
  ['h.authority = "a b"', `host cannot be "a b": ${NAME}`],
  ['h.set("host", "a/b")', `host cannot be "a/b": ${NAME}`],
  ['h.set("host", "")', `host cannot be "": ${NAME}`],
  ['h.append("host", "b")', 'a request has one host, and "a.example" is there; write set(…)'],
  ['h.remove("host")', 'a sandboxed filter cannot remove "host"'],
])("tells the filter why the request cannot have it: %s", async (edit, reason) => {
  const e = await edited(`onRequestHeaders(h) { ${edit}; }`);
  expect(e.reply?.status).toBe(500);
  await worker.until(() => worker.faults.length > 0);
  expect(worker.faults[0]!.reason).toContain(`onRequestHeaders: ${reason}`);
  expect(worker.faults[0]!.stack).toMatch(/^test\.js:\d+:\d+$/);
  expect(worker.malformations).toEqual([]);
});

it.each([99, 200.5, 1000])(
  "tells the filter that no response has the status %s",
  async (status) => {
    const e = await edited(`onResponseHeaders(h) { h.status = ${status}; }`);
    e.responseHeaders(200, "");
    await e.settled();
    expect(e.reply?.status).toBe(500);
    await worker.until(() => worker.faults.length > 0);
    expect(worker.faults[0]!.reason).toBe(
      `onResponseHeaders: :status cannot be ${status}: write a whole number from 200 to 999`,
    );
  },
);

it("takes other methods, paths and hosts, and the same again", async () => {
  const e = await edited(`onRequestHeaders(h) {
    h.method = "PATCH"; h.path = "/b?c=%20"; h.authority = "[::1]:80"; h.remove("x-a");
  }`);
  const { method, path, authority } = e.request;
  expect([method, path, authority, worker.faults]).toEqual(["PATCH", "/b?c=%20", "[::1]:80", []]);
  const head = await edited(`onRequestHeaders(h) { h.method = "HEAD"; }`, "HEAD");
  expect([head.request.method, head.reply]).toEqual(["HEAD", undefined]);
});

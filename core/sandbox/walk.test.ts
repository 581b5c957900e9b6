import { type HttpFilterFactory, type ResponseHeaders, Walk } from "@tsproxy/sdk";
import { afterEach, beforeEach, expect, it } from "vitest";
import { Exchange, FakeWorker, linesOf, stubs } from "./fake-worker.ts";

/** The SDK's walk through a filter behind a gate: what one crossing does, and what is left to core. */

FakeWorker.gated = true;
let worker: FakeWorker;
beforeEach(() => {
  worker = new FakeWorker();
});
afterEach(() => worker.dispose());

const HEAD = "GET / HTTP/1.1\r\nhost: example.com\r\n";
const CODE = `
  import { defineHttpFilter, Type } from "@tsproxy/sdk";
  export default defineHttpFilter({ name: "test", config: Type.Any(), setup: () => () => ({
    onRequestHeaders(headers) { headers.set("x-in", "1"); },
    onResponseHeaders(headers) { headers.set("x-out", "1"); },
    onResponseBody(chunk) { chunk.replace(chunk.copy().map((byte) => byte ^ 32)); },
  }) });`;

/** A stream whose request has passed the filter by its gate, and the walk of its response. */
async function response(): Promise<{ told: string[]; walk: Walk }> {
  const factory: HttpFilterFactory = stubs(worker, await worker.sandbox(CODE));
  const e = new Exchange(worker, [factory], HEAD).requestHeaders();
  expect(e.request.get("x-in")).toBe("1");
  const told: string[] = [];
  const walk = new Walk(
    {
      onReply: () => told.push("reply"),
      onFilterError: (error) => told.push(String(error)),
      onTooLarge: () => told.push("too large"),
      onWaiting: (waiting) => told.push(`waiting ${waiting}`),
      encodeHead: (headers: ResponseHeaders) => told.push(...linesOf(headers)),
      encodeBody: (chunk, end) => told.push(`${chunk.text()}${end ? "." : ""}`),
      encodeTrailers: () => told.push("trailers"),
    },
    true,
  );
  walk.begin(e.filters);
  return { told, walk };
}

it("asks about a head and its body in the crossing that brought both, and core hears nothing of it", async () => {
  const { told, walk } = await response();
  const headers = worker.responseHeaders(200, "server: up\r\n");
  const { at, end } = worker.lend("hello");
  worker.crossing(() => {
    walk.head(headers, false);
    walk.body(worker.memory, at, end, true);
  });
  expect(told).toEqual(["server: up", "x-out: 1", "HELLO."]);
  expect(worker.records).toBe(0);
});

it("tells core of a stream that it has not heard of, when the record finds no room at first as well", async () => {
  const { told, walk } = await response();
  worker.closeGates();
  worker.rooms = 0;
  const headers = worker.responseHeaders(200, "server: up\r\n");
  worker.crossing(() => walk.head(headers, true));
  worker.flush();
  expect(told).toEqual(["waiting true"]);
  worker.rooms = -1;
  worker.flush();
  await worker.until(() => told.length > 1);
  expect(told).toEqual(["waiting true", "server: up", "x-out: 1", "waiting false"]);
});

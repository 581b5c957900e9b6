import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Exchange, FakeWorker, stubs } from "./fake-worker.ts";

/** What a sandboxed filter sees of the heads of many streams that are under way at once. */

FakeWorker.gated = true;
let worker: FakeWorker;
beforeEach(() => {
  worker = new FakeWorker();
});
afterEach(() => worker.dispose());

/** Keeps the request's head until the response. */
const CODE = `
  import { defineHttpFilter, Type } from "@tsproxy/sdk";
  export default defineHttpFilter({ name: "test", config: Type.Any(), setup: () => () => {
    let request;
    return {
      onRequestHeaders(headers) { request = headers; headers.remove("x-gone"); },
      onResponseHeaders(headers) {
        const seen = [...request.getAll("x-name"), request.get("x-gone") ?? "-", headers.get("x-name")];
        headers.set("x-seen", seen.join());
      },
    };
  } });`;

/** Some heads have more lines or bytes than most. */
function headOf(k: number): string {
  const more = k % 9 === 4 ? "x-more: 1\r\n".repeat(60) : "";
  const long = k % 7 === 3 ? `x-long: ${String(k).repeat(1000)}\r\n` : "";
  return `GET / HTTP/1.1\r\nhost: a\r\nx-gone: ${k}\r\n${more}${long}x-name: request ${k}\r\n`;
}

describe("heads of many streams", () => {
  it("stay apart, and each is there until its stream ends", async () => {
    const sandbox = await worker.sandbox(CODE, [{}]);
    const filter = stubs(worker, sandbox, 1);
    // Streams of the second round take over the heads of those that have ended.
    for (const first of [0, 100]) {
      const names = Array.from({ length: 100 }, (_, k) => first + k);
      const streams = names.map((k) => new Exchange(worker, [filter], headOf(k)));
      for (const stream of streams) stream.requestHeaders();
      const seen = streams.map((stream, k) =>
        stream.responseHeaders(200, `x-name: response ${first + k}\r\n`).get("x-seen"),
      );
      expect(seen).toEqual(names.map((k) => `request ${k},-,response ${k}`));
      for (const stream of streams) stream.end();
    }
  });
});

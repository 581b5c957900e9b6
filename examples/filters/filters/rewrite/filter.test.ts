import { chunkings, TestContext, TestStream } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import rewrite from "./filter.ts";

function respond(chunks: readonly string[], headers: Record<string, string> = {}) {
  const cx = new TestContext();
  const factory = cx.setup(rewrite, { from: "cat", to: "lion", content_type: "text/" });
  const stream = new TestStream(cx, factory).requestHeaders("GET", "/");
  stream.responseHeaders(200, { "content-type": "text/plain", ...headers }, false);
  for (const [k, chunk] of chunks.entries()) stream.responseBody(chunk, k === chunks.length - 1);
  return stream.downstream;
}

test("replaces the word wherever chunks cut it", () => {
  for (const chunks of chunkings("a cat, ca ccat!"))
    expect(respond(chunks).body, chunks.join("|")).toBe("a lion, ca clion!");
});

test("holds back no more than what may be the beginning of the word", () => {
  expect(respond(["one c", "at two", " ca"]).chunks).toEqual(["one ", "lion two", " ca"]);
});

test("takes the length back, and leaves other types and encoded bodies alone", () => {
  expect(respond(["cat"], { "content-length": "3" }).header("content-length")).toBeUndefined();
  expect(respond(["cat"], { "content-type": "image/png" }).body).toBe("cat");
  expect(respond(["cat"], { "content-encoding": "gzip" }).body).toBe("cat");
});

import { TestContext, TestStream } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import abRouting from "./filter.ts";

function visit(percent_b: number, headers: Record<string, string> = {}) {
  const cx = new TestContext();
  const stream = new TestStream(cx, cx.setup(abRouting, { percent_b, cookie: "version" }));
  stream.requestHeaders("GET", "/", headers).responseHeaders(200);
  return stream;
}

test("chooses for a new visitor, tells the routes, and has the choice kept", () => {
  const stream = visit(100);
  expect(stream.upstream.header("x-version")).toBe("b");
  expect(stream.routeCleared).toBe(1);
  expect(stream.downstream.header("set-cookie")).toBe("version=b; Path=/; Max-Age=86400");
  expect(visit(0).upstream.header("x-version")).toBe("a");
});

test("a visitor stays with the version of the first visit, whatever the header says", () => {
  const stream = visit(100, { cookie: "theme=dark; version=a", "x-version": "b" });
  expect(stream.upstream.header("x-version")).toBe("a");
  expect(stream.downstream.header("set-cookie")).toBeUndefined();
});

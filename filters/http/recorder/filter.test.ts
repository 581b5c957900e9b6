import { TestContext, TestStream } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import recorder from "./filter.ts";

function record(max_body_bytes = 65_536) {
  const cx = new TestContext();
  const told: Record<string, unknown>[] = [];
  cx.operations.set("core.recorded", (args) => void told.push(JSON.parse(JSON.stringify(args))));
  const stream = new TestStream(cx, cx.setup(recorder, { max_body_bytes }));
  return { stream, told };
}

test("tells of a whole exchange when it has ended, and changes nothing of it", async () => {
  const { stream, told } = record();
  stream.requestHeaders("POST", "/a?b=1", { "x-one": "1" }, false).requestBody("hello");
  stream.responseHeaders(201, { "x-two": "2" }, false).responseBody("there");
  expect(stream.upstream.body).toBe("hello");
  expect(stream.downstream.body).toBe("there");
  expect(told).toEqual([]);
  stream.end();
  expect(told).toMatchObject([
    {
      method: "POST",
      path: "/a?b=1",
      authority: "test",
      status: 201,
      isWhole: true,
      request: { head: expect.arrayContaining([["x-one", "1"]]), body: "hello", cut: false },
      response: { head: expect.arrayContaining([["x-two", "2"]]), body: "there", cut: false },
    },
  ]);
});

test("keeps no more of a body than it may, and says so", () => {
  const { stream, told } = record(8);
  stream.requestHeaders("POST", "/", {}, false).requestBody("123456", false).requestBody("7890");
  stream.responseHeaders(200);
  stream.end();
  expect(told).toMatchObject([{ request: { body: "12345678", cut: true } }]);
});

test("a stream that is cut is told as one", () => {
  const { stream, told } = record();
  stream.requestHeaders("GET", "/").responseHeaders(200, {}, false).responseBody("half", false);
  stream.end();
  expect(told).toMatchObject([{ isWhole: false, response: { body: "half" } }]);
});

import { type HttpStream, RequestHeaders, ResponseHeaders } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import greeting from "./filter.ts";

function filterOf(cx = new TestContext()) {
  return greeting.setup({ text: "Hello" }, cx)({} as HttpStream);
}

test("greets by name at /hello, and counts it", () => {
  const cx = new TestContext();
  const request = new RequestHeaders();
  request.path = "/hello?name=Ada";
  expect(filterOf(cx).onRequestHeaders?.(request, true)).toMatchObject({
    type: "reply",
    status: 200,
    body: "Hello, Ada!\n",
  });
  expect(cx.stats.value("greeting.greeted")).toBe(1);
});

test("lets every other request pass, and signs the response", () => {
  const filter = filterOf();
  const request = new RequestHeaders();
  request.path = "/";
  expect(filter.onRequestHeaders?.(request, true)).toBeUndefined();
  const response = new ResponseHeaders();
  filter.onResponseHeaders?.(response, true);
  expect(response.get("x-greeting")).toBe("Hello");
});

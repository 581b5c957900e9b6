import { expect, test } from "vitest";
import { reply } from "./http.ts";

test.each([0, 99, 150, 199, 1000, 200.5, Number.NaN, "200"])(
  "a reply of status %s is refused where it is made",
  (status) => {
    expect(() => reply(status as number)).toThrow(
      new RangeError(`reply(${JSON.stringify(status)}): write a whole number from 200 to 999`),
    );
  },
);

test("a header that HTTP cannot carry is refused where the reply is made", () => {
  const headers = { "retry-after": 5 } as unknown as Record<string, string>;
  expect(() => reply(429, { headers })).toThrow(
    new TypeError('header "retry-after" takes a string, not number; write String(…)'),
  );
  expect(() => reply(429, { headers: { "x-a": "1\r\nx-b: 2" } })).toThrow(
    new TypeError('header "x-a" cannot carry "\\r"; write encodeURIComponent(…)'),
  );
  expect(() => reply(429, { headers: { "x a": "1" } })).toThrow('header name "x a" is not a token');
  expect(reply(429, { headers: { "retry-after": "5" } }).headers).toEqual([["retry-after", "5"]]);
});

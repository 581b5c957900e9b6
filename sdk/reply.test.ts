import { expect, test } from "vitest";
import { reply } from "./http.ts";

test.each([0, 99, 150, 199, 600, 999, 1000, 200.5, Number.NaN, "200"])(
  "a reply of status %s is refused where it is made",
  (status) => {
    expect(() => reply(status as number)).toThrow(
      new RangeError(`reply(${JSON.stringify(status)}): write a whole number from 200 to 599`),
    );
  },
);

test("a header that is no string is refused where the reply is made", () => {
  const headers = { "retry-after": 5 } as unknown as Record<string, string>;
  expect(() => reply(429, { headers })).toThrow(
    new TypeError('reply: header "retry-after" is a number; write a string'),
  );
  expect(reply(429, { headers: { "retry-after": "5" } }).headers).toEqual([["retry-after", "5"]]);
});

import { expect, it } from "vitest";
import { compileHeaderRules } from "./header-rules.ts";
import { ResponseHeaders } from "./headers.ts";
import { newStreamInfo } from "./http.ts";

const append = (key: string, value: string) => ({
  header: { key, value },
  append_action: "APPEND_IF_EXISTS_OR_ADD" as const,
  keep_empty_value: false,
});

it("forgets the values of a head whose formatting fails: the next head gets none of them", () => {
  const rules = compileHeaderRules(
    {
      request_headers_to_add: [],
      request_headers_to_remove: [],
      response_headers_to_add: [
        append("a", "%ROUTE_NAME%"),
        append("b", "%DYNAMIC_METADATA(ns:k)%"),
      ],
      response_headers_to_remove: [],
    },
    "response",
    "",
  )!;
  const apply = (routeName: string, k: unknown) => {
    const headers = new ResponseHeaders();
    const metadata = new Map([["ns", { k }]]);
    const source = { info: newStreamInfo({ routeName }), request: undefined, response: headers };
    rules.apply(headers, { ...source, metadata });
    return [...headers];
  };
  const loop: Record<string, unknown> = {};
  loop.loop = loop;
  expect(() => apply("first", loop)).toThrow();
  expect(apply("second", "v")).toEqual([
    ["a", "second"],
    ["b", "v"],
  ]);
});

import { expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import router from "../../http/router/filter.ts";
import { oneHost, TestProxy } from "./test-proxy.ts";

const says = (body: string, match: object = {}) => ({
  match: { prefix: "/", ...match },
  direct_response: { status: 200, body: { inline_string: body } },
});
const cookie = (name: string, string_match: object, invert_match = false) => ({
  name,
  string_match,
  invert_match,
});

it("matches cookies, each by the first of its name", () => {
  const p = new TestProxy({ codec, router }).start({
    route_config: oneHost(
      says("a", { cookies: [cookie("a", { exact: "1" })] }),
      says("both", { cookies: [cookie("b", { prefix: "x" }), cookie("c", { suffix: "2" })] }),
      says("not", {
        headers: [{ name: "x-not", present_match: true }],
        cookies: [cookie("z", { exact: "no" }, true)],
      }),
      says("none"),
    ),
  });
  const of = (...lines: string[]) =>
    /\n\n(.*)$/.exec(
      p
        .connect()
        .get("/", ...lines)
        .take(),
    )![1];
  for (const yes of ["a=1", 'x=2; a="1"']) expect(of(`cookie: ${yes}`)).toBe("a");
  for (const no of ["a=2", "a=2; a=1", "a =1", "A=1", "b=x"])
    expect(of(`cookie: ${no}`)).toBe("none");
  expect(of("cookie: b=xy; c=12 ")).toBe("both");
  expect([of("x-not: 1"), of("x-not: 1", "cookie: z=yes")]).toEqual(["not", "not"]);
  expect(of("x-not: 1", "cookie: z=no")).toBe("none");
});

it("matches what filters before have left in the filter state", () => {
  const state = { filter_state: [{ key: "who", string_match: { exact: "alice" } }] };
  const p = new TestProxy({ codec, router })
    .filter("who", (stream) => ({
      onRequestHeaders(headers) {
        stream.filterState.set("who", headers.path.slice(1));
        stream.clearRoute();
      },
    }))
    .start({ route_config: oneHost(says("hers", state), says("others")) });
  const of = (path: string) => /\n\n(.*)$/.exec(p.connect().get(path).take())![1];
  expect([of("/alice"), of("/bob")]).toEqual(["hers", "others"]);
});

import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import router from "../../http/router/filter.ts";
import { oneHost, routeTo, TestProxy } from "./test-proxy.ts";

const start = (...routes: object[]) =>
  new TestProxy({ codec, router }).start({ route_config: oneHost(...routes) });

describe("a route's path_rewrite and host_rewrite", () => {
  /** What the upstream is asked for: host, path and what they were. */
  const asked = (action: object, line: string, ...lines: string[]) => {
    const p = start(routeTo("up", action));
    p.connect().get(line, ...lines);
    const { last } = p.up;
    const original = (name: string) => last.header(`x-envoy-original-${name}`);
    return [last.header("host"), last.path, original("host"), original("path")];
  };

  it("are formats; the query of the request stays", () => {
    const action = {
      path_rewrite: "/new/%REQ(x-a)%%PATH(NQ)%",
      host_rewrite: "%REQ(x-host)%.dyn",
    };
    expect(asked(action, "/old?q", "x-a: A", "x-host: h")).toEqual([
      "h.dyn",
      "/new/A/old?q",
      "h.test",
      "/old?q",
    ]);
  });

  it("leave out a missing value of the path, and print a hyphen for one of the host", () => {
    const action = { path_rewrite: "/new/%REQ(x-a)%", host_rewrite: "%REQ(x-host)%.dyn" };
    expect(asked(action, "/").slice(0, 2)).toEqual(["-.dyn", "/new/"]);
  });

  it("change nothing where they come to nothing", () => {
    const action = { path_rewrite: "%REQ(x-a)%", host_rewrite: "%REQ(x-host):0%" };
    expect(asked(action, "/old?q", "x-host: h")).toEqual([
      "h.test",
      "/old?q",
      undefined,
      undefined,
    ]);
  });

  it("stand alone", () => {
    const both = (action: object) => () => start(routeTo("up", action));
    expect(both({ path_rewrite: "/a", prefix_rewrite: "/b" })).toThrow(/path_rewrite/);
    expect(both({ host_rewrite: "a", host_rewrite_literal: "b" })).toThrow(/host_rewrite/);
    expect(both({ path_rewrite: "/%NO_COMMAND%" })).toThrow(/NO_COMMAND/);
  });
});

describe("a redirect's location", () => {
  const location = (redirect: object, line: string, ...lines: string[]) =>
    /\nlocation: (.*)/.exec(
      start({ match: { prefix: "/" }, redirect })
        .connect()
        .get(line, ...lines)
        .take(),
    )?.[1];

  it("has a path from path_rewrite, and the request's query unless the format has one", () => {
    expect(location({ path_rewrite: "/new%PATH(NQ)%" }, "/old?q")).toBe("http://h.test/new/old?q");
    expect(location({ path_rewrite: "/new?in=%REQ(x-a)%" }, "/old?q", "x-a: 1")).toBe(
      "http://h.test/new?in=1",
    );
    expect(location({ path_rewrite: "/new", strip_query: true }, "/old?q")).toBe(
      "http://h.test/new",
    );
    expect(location({ path_rewrite: "%REQ(x-none)%" }, "/old?q")).toBe("http://h.test/old?q");
  });

  it("has a slash before the path, whatever the config gives", () => {
    expect(location({ path_redirect: "new" }, "/old")).toBe("http://h.test/new");
    expect(location({ prefix_rewrite: "new/" }, "/old")).toBe("http://h.test/new/old");
  });
});

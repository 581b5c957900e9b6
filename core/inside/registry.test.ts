import { expect, it } from "vitest";
import { Scope } from "./registry.ts";

it("gives two nested uses of one name two places", () => {
  const scope = new Scope({} as never, "http/outer", { pointer: "/a", statPrefix: "" }, undefined);
  const places = ["one", "x/y", "one", "one"].map((name) => scope.nestedPlace("http", name));
  expect(places).toEqual(["/a/http:one", "/a/http:x~1y", "/a/http#2:one", "/a/http#3:one"]);
});

it("runs the disposers of a scope latest first, without those that were forgotten", () => {
  const scope = new Scope({} as never, "http/outer", { pointer: "/a", statPrefix: "" }, undefined);
  const ran: string[] = [];
  const early = () => void ran.push("early");
  scope.onDispose(() => ran.push("first"));
  scope.onDispose(early);
  scope.onDispose(() => ran.push("last"));
  scope.forget(early);
  scope.dispose();
  expect(ran).toEqual(["last", "first"]);
});

import { expect, it } from "vitest";
import { Scope } from "./registry.ts";

it("gives two nested uses of one name two places", () => {
  const scope = new Scope({} as never, "http/outer", { pointer: "/a", statPrefix: "" }, undefined);
  const places = ["one", "x/y", "one", "one"].map((name) => scope.nestedPlace("http", name));
  expect(places).toEqual(["/a/http:one", "/a/http:x~1y", "/a/http#2:one", "/a/http#3:one"]);
});

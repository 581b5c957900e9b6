import { Chunk, type ListenerFilterFactory } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import originalDst from "./filter.ts";

test("waits for nothing, and says once what it cannot see", () => {
  const cx = new TestContext();
  const factory = cx.setup(originalDst, {}) as ListenerFilterFactory;
  const filter = factory({} as never);
  expect(filter.onBytes(new Chunk(new Uint8Array(0), 0, 0))).toBe(0);
  expect(cx.logged.map(({ level }) => level)).toEqual(["warn"]);
});

import { expect, it, vi } from "vitest";
import { randomBytes } from "./random.ts";

vi.mock("node:fs", async (original) => ({
  ...(await original<typeof import("node:fs")>()),
  openSync: () => {
    throw new Error("EMFILE: too many open files, open '/dev/urandom'");
  },
}));

it("makes random bytes while no file can be opened", () => {
  expect(randomBytes(32)).not.toEqual(randomBytes(32));
});

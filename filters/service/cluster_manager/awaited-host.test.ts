import { expect, it } from "vitest";
import { AwaitedHost } from "./awaited-host.ts";

/** A request whose host is known once `named` is called; `seen`: what became of it. */
function open() {
  const seen: string[] = [];
  let named = (): void => {};
  const promise = new Promise<void>((resolve) => {
    named = resolve;
  });
  const handle = new AwaitedHost(promise, () => {
    seen.push("begun");
    return { cancel: () => seen.push("cancelled") };
  });
  return { seen, named, handle, settled: async () => void (await promise) };
}

it("begins once the host is known, and can be cancelled then", async () => {
  const { seen, named, handle, settled } = open();
  expect(seen).toEqual([]);
  named();
  await settled();
  expect(seen).toEqual(["begun"]);
  handle.cancel();
  expect(seen).toEqual(["begun", "cancelled"]);
});

it("never begins when it was cancelled meanwhile", async () => {
  const { seen, named, handle, settled } = open();
  handle.cancel();
  named();
  await settled();
  expect(seen).toEqual([]);
});

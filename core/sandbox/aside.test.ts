import { expect, test } from "vitest";
import { CallsAside, SandboxLost } from "./aside.ts";

test("a call whose thread never comes back is given up, and so are later ones", async () => {
  const aside = new CallsAside(() => {});
  expect(await aside.run(async () => 7)).toBe(7);
  const stuck = aside.run(() => new Promise(() => {}));
  const refused = expect(stuck).rejects.toThrow(SandboxLost);
  aside.onLost();
  await refused;
  await expect(aside.run(async () => 7)).rejects.toThrow(SandboxLost);
  await aside.ended();
});

test("each call is marked while it runs, whatever comes of it", async () => {
  const aside = new CallsAside(() => {});
  let marked = 0;
  aside.marks = {
    enter: () => {},
    leave: () => {},
    leaveAlone: () => {
      marked++;
      return () => marked--;
    },
  };
  const { promise, resolve } = Promise.withResolvers<void>();
  const calls = [aside.run(() => promise), aside.run(() => Promise.reject(new Error("no")))];
  expect(marked).toBe(2);
  await expect(calls[1]).rejects.toThrow("no");
  expect(marked).toBe(1);
  resolve();
  await calls[0];
  expect(marked).toBe(0);
});

test("a call that takes longer than it may ends its isolate", async () => {
  let stops = 0;
  const aside = new CallsAside(() => stops++);
  expect(await aside.run(async () => 7, 10)).toBe(7);
  await expect(aside.run(() => new Promise(() => {}), 10)).rejects.toThrow(
    "it was stopped: no return within 10 ms",
  );
  expect(stops).toBe(1);
});

import { expect, it } from "vitest";
import { WireSum } from "./wire-sum.ts";

it("adds up what was and what goes on counting", () => {
  const last = { wireReceived: 1, wireSent: 2, headerReceived: 3, headerSent: 4 };
  const sum = new WireSum(
    new WireSum({ wireReceived: 100 }, { headerSent: 200, wireSent: 300 }),
    last,
  );
  last.wireReceived = 10;
  const { wireReceived, wireSent, headerReceived, headerSent } = sum;
  expect([wireReceived, wireSent, headerReceived, headerSent]).toEqual([110, 302, 3, 204]);
});

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

it("adds up fields over HTTP/1 as Envoy does: each answer's and those of all before it", () => {
  const http1 = { headerReceived: 48, headerSent: 91 };
  const three = new WireSum(new WireSum(http1, http1), { headerReceived: 41, headerSent: 91 });
  expect([three.fieldsReceived, three.fieldsSent]).toEqual([281, 273]);
  const http2 = { headerReceived: 20, headerSent: 30, fieldsReceived: 14, fieldsSent: 110 };
  const two = new WireSum(http2, http2);
  expect([two.fieldsReceived, two.fieldsSent]).toEqual([28, 220]);
});

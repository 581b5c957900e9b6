import { expect, it } from "vitest";
import { parseManifest } from "./manifest.ts";

it("takes what a package may say of itself", () => {
  const manifest = {
    clusters: ["Auth"],
    headers: { read: ["x-a"], write: [] },
    body: "read",
    shared: false,
    failurePolicy: "previous",
    cpuShare: 0.1,
    memoryMb: 128,
    pauseMs: 60_000,
  };
  expect(parseManifest(manifest)).toEqual(manifest);
  expect(parseManifest(undefined)).toEqual({});
});

it.each([
  [7, "sandbox: write an object"],
  [
    { cluster: [] },
    'sandbox: no "cluster"; there are clusters, headers, body, shared, failurePolicy, disabledBy, cpuShare, memoryMb, pauseMs',
  ],
  [
    { headers: { read: ["X-A"] } },
    "sandbox.headers: write { read, write }, lists of lower-case names",
  ],
  [{ body: "write" }, 'sandbox.body: write "none" or "read"'],
  [{ memoryMb: 8 }, "sandbox.memoryMb: write a whole number of MiB from 16 to 512"],
  [{ cpuShare: 2 }, "sandbox.cpuShare: write a number from 0.01 to 1"],
])("refuses %j", (value, message) => {
  expect(() => parseManifest(value)).toThrow(message);
});

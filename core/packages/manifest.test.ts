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
  expect(parseManifest(manifest, "http")).toEqual(manifest);
  expect(parseManifest(undefined, "http")).toEqual({});
});

it.each([
  [7, "sandbox: write an object"],
  [{ cluster: [] }, 'sandbox: no "cluster"; did you mean "clusters"?'],
  [{ headers: { reed: ["x-a"] } }, 'sandbox.headers: no "reed"; did you mean "read"?'],
  [
    { network: true },
    'sandbox: no "network"; there are clusters, headers, body, shared, failurePolicy, disabledBy, cpuShare, memoryMb, pauseMs',
  ],
  [
    { headers: { read: ["X-A"] } },
    "sandbox.headers: write { read, write }, lists of lower-case names",
  ],
  [{ body: "write" }, 'sandbox.body: write "none" or "read"'],
  [{ memoryMb: 8 }, "sandbox.memoryMb: write a whole number of MiB from 16 to 512"],
  [{ cpuShare: 2 }, "sandbox.cpuShare: write a number from 0.01 to 1"],
])("refuses %j", (value, message) => {
  expect(() => parseManifest(value, "http")).toThrow(message);
});

const NETWORK = { clusters: [], body: "read", shared: true, failurePolicy: "open", cpuShare: 0.5 };
it.each([
  ["network", NETWORK],
  ["listener", { clusters: [], shared: true, failurePolicy: "previous", cpuShare: 0.5 }],
  ["access_log", { headers: { read: [] }, failurePolicy: "previous", cpuShare: 0.5 }],
  ["balancer", { clusters: [], shared: true, failurePolicy: "open" }],
])("a %s package may say what holds for it", (kind, manifest) => {
  expect(parseManifest(manifest, kind)).toEqual(manifest);
});

it.each([
  ["network", { headers: {} }, /headers: remove it, for this is a network package: it sees bytes/],
  ["network", { disabledBy: "off" }, /disabledBy: remove it/],
  ["listener", { body: "none" }, /body: remove it/],
  ["access_log", { failurePolicy: "open" }, /of an access_log package it may be previous/],
  ["balancer", { failurePolicy: "previous" }, /it may be closed or open/],
  ["balancer", { cpuShare: 0.5 }, /cpuShare: remove it/],
])("a %s package may not say %j, which would mean nothing", (kind, manifest, message) => {
  expect(() => parseManifest(manifest, kind)).toThrow(message);
});

import { expect, test } from "vitest";
import { misuse } from "./made.ts";

test("what setup returns is checked by kind", () => {
  for (const [kind, made] of [
    ["http", () => ({})],
    ["listener", () => ({})],
    ["network", { create: () => ({}) }],
    ["access_log", { log() {} }],
    ["balancer", { create() {} }],
    ["balancer", { compose() {} }],
    ["service", undefined],
  ] as const)
    expect(misuse(kind, made)).toBeUndefined();
  expect(misuse("http", { onRequestHeaders() {} })).toMatch(/write setup: \(\) => \(stream\) =>/);
  expect(misuse("network", () => ({}))).toMatch(/create: \(connection\)/);
  expect(misuse("access_log", undefined)).toMatch(/log\(entry\)/);
  expect(
    misuse(
      "http",
      Promise.resolve(() => ({})),
    ),
  ).toMatch(/^setup answers at once/);
});

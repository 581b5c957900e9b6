import { expect, test } from "vitest";
import { sampleOf } from "./dev-chain.ts";
import { linesChanged } from "./dev-replay.ts";

function changes(before: string, after: string): string[] {
  return linesChanged([...before], [...after]).map(({ sign, text }) => sign + text);
}

test("tells only the lines that two answers do not share", () => {
  expect(changes("abcd", "abcd")).toEqual([]);
  expect(changes("abcd", "abxd")).toEqual(["-c", "+x"]);
  expect(changes("abcd", "acd")).toEqual(["-b"]);
  expect(changes("", "ab")).toEqual(["+a", "+b"]);
  expect(changes("abcabba", "cbabac").filter((change) => change.startsWith("-"))).toHaveLength(3);
});

test("answers of any length are compared in bounded time", () => {
  const long = (word: string) => Array.from({ length: 50_000 }, (_, k) => `${word}${k}`);
  expect(linesChanged(long("a"), long("b"))).toHaveLength(100_000);
});

test("makes the smallest config that a schema takes", () => {
  const schema = {
    type: "object",
    required: ["name", "limit", "mode", "wait", "keys", "kept", "key"],
    properties: {
      name: { type: "string" },
      limit: { type: "integer", minimum: 5 },
      mode: { type: "string", enum: ["FAST", "SLOW"] },
      wait: { type: "number", duration: true },
      keys: { type: "array", minItems: 1, items: { type: "string", examples: ["x-key"] } },
      kept: { type: "string", default: "as it is" },
      key: { type: "object", dataSource: "text" },
    },
  };
  expect(sampleOf(schema)).toEqual({
    name: "x",
    limit: 5,
    mode: "FAST",
    wait: "1s",
    keys: ["x-key"],
    key: { inline_string: "x" },
  });
});

test("names a cluster that is there where a field says that it names one", () => {
  const text = { type: "string" };
  const properties = { cluster: text, auth_cluster: text, clusterName: text, path: text };
  const schema = { type: "object", required: Object.keys(properties), properties };
  expect(sampleOf(schema, "echo")).toEqual({
    cluster: "echo",
    auth_cluster: "echo",
    clusterName: "echo",
    path: "x",
  });
});

import { expect, test } from "vitest";
import type { RuntimeConfig } from "../protocol.ts";
import { scriptPlace } from "./script-place.ts";

const script = { code: "\nvoid send();\n", file: "front.yaml", line: 20, indent: 8 };
const config = { listeners: [{ filters: [{ onRequest: script }] }] } as unknown as RuntimeConfig;
const stack = (...frames: string[]) => ["Error: lost", ...frames].join("\n");

test("an error that no code has caught is at the line of the script that made it", () => {
  const place = { file: "front.yaml", line: 21, column: 14 };
  const below = "    at Call.begin (http/script@1f:101:31)";
  expect(scriptPlace(stack("    at onRequest (front.yaml:21:6)", below), config)).toEqual(place);
  expect(scriptPlace(stack("    at front.yaml:21:6", below), config)).toEqual(place);
  expect(scriptPlace(stack("    at async onRequest (front.yaml:21:6)"), config)).toEqual(place);
});

test("an error of a package, or of a file that is no script of the config, is in no script", () => {
  expect(scriptPlace(stack("    at begin (http/script@1f:101:31)"), config)).toBe(undefined);
  expect(scriptPlace(stack("    at onRequest (front.yaml:90:6)"), config)).toBe(undefined);
  expect(scriptPlace("Error: lost", config)).toBe(undefined);
  expect(scriptPlace(stack("    at front.yaml:21:6"), undefined)).toBe(undefined);
});

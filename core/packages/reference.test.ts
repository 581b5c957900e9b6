import { expect, test } from "vitest";
import { entriesOf, unlisted } from "./reference.ts";

test("finds each exported declaration whole, with the comment before it", () => {
  const entries = entriesOf(`import type { A } from "./a.ts";
/** A thing; with "{" in it. */
export interface Thing {
    /** Half of { a pair. */
    readonly one: {
        readonly two: string;
    };
}
declare const hidden: unique symbol;
/**
 * Makes one.
 *
 * \`options\`: how.
 */
export declare function make(options?: {
    readonly deep?: boolean;
}): Thing;
export type Kind = "a" | "b";
/** One of them. */
export declare const Kind: ["a", "b"];
export declare const names: readonly ["{"];
/** Another library's. */
export { type Static, Type };
`);
  expect(entries.map(({ name, doc }) => [name, doc])).toEqual([
    ["Thing", 'A thing; with "{" in it.'],
    ["make", "Makes one.\n\n`options`: how."],
    ["Kind", "One of them."],
    ["names", ""],
    ["Static", "Another library's."],
    ["Type", "Another library's."],
  ]);
  expect(entries[0]!.text.split("\n")).toHaveLength(6);
  expect(entries[1]!.text).toMatch(/\}\): Thing;$/);
  expect(entries[2]!.text).toBe(
    'export type Kind = "a" | "b";\nexport declare const Kind: ["a", "b"];',
  );
});

test("tells which names a reference lacks", () => {
  expect(unlisted("## a\n\n### one\n\n### two\n", ["one", "three", "two"])).toEqual(["three"]);
});

import { expect, test } from "vitest";
import { entriesOf } from "./reference.ts";

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
export declare const names: readonly ["{"];
`);
  expect(entries.map(({ name, doc }) => [name, doc])).toEqual([
    ["Thing", 'A thing; with "{" in it.'],
    ["make", "Makes one.\n\n`options`: how."],
    ["Kind", ""],
    ["names", ""],
  ]);
  expect(entries[0]!.text.split("\n")).toHaveLength(6);
  expect(entries[1]!.text).toMatch(/\}\): Thing;$/);
});

import { LateList, lateEntry, Type } from "@tsproxy/sdk";
import { Ajv } from "ajv";
import { describe, expect, it } from "vitest";
import { check } from "./check.ts";
import type { Schema } from "./schema.ts";

/** Ajv finds the same wrong values, and fills the same defaults in. */
function agree(schema: object, value: unknown): void {
  const ours = structuredClone(value);
  const theirs = structuredClone(value);
  const validate = new Ajv({ allErrors: true, strict: false, useDefaults: true }).compile(schema);
  const ok = validate(theirs);
  const failures = check(ours, schema as Schema);
  const shown = JSON.stringify({ schema, value });
  expect(failures.length === 0, shown).toBe(ok);
  expect(ours, shown).toEqual(theirs);
  if (
    ok ||
    JSON.stringify(schema).match(/anyOf|oneOf|"if"|dependencies|not|propertyNames|contains/)
  )
    return;
  const places = (list: readonly string[]) => [...new Set(list)].sort();
  expect(places(failures.map((found) => found.pointer)), shown).toEqual(
    places((validate.errors ?? []).map((error) => error.instancePath)),
  );
}

const VALUES: readonly unknown[] = [
  0,
  1.5,
  -3,
  10,
  "",
  "ab",
  "😀😀",
  true,
  null,
  [],
  [1, 1],
  ["a", "b", "c"],
  [{ a: 1 }, { a: 1 }],
  {},
  { a: 1 },
  { a: "x", b: [1, "2"] },
  { a: { b: { a: {} } }, c: 3 },
  { "x/y~z": 1, xyz: 2 },
];

describe("check agrees with Ajv on", () => {
  // Written out, an object with a `then` looks like a promise.
  const THEN = "then";
  const leaf = { type: "string", minLength: 2, maxLength: 2 };
  it.each<[string, object]>([
    ["types", { type: ["string", "integer", "null"] }],
    ["numbers", { type: "number", minimum: 0, maximum: 10, multipleOf: 0.5 }],
    ["exclusive limits", { exclusiveMinimum: 0, exclusiveMaximum: 10 }],
    ["strings, whose characters it counts", { ...leaf, pattern: "^.*$" }],
    ["lists", { type: "array", minItems: 1, maxItems: 2, items: { type: "integer" } }],
    ["lists without repeats", { uniqueItems: true }],
    ["tuples", { items: [{ type: "integer", default: 5 }, leaf], additionalItems: false }],
    ["what a list contains", { contains: { type: "object" } }],
    ["words", { enum: ["ab", 10, { a: 1 }] }],
    ["constants", { const: { a: 1 } }],
    ["what must not be", { not: { type: "object" } }],
    [
      "fields, with defaults",
      {
        type: "object",
        required: ["a"],
        properties: { a: {}, d: { default: { deep: [] } }, e: { default: "e" } },
      },
    ],
    ["no other fields", { properties: { a: {} }, additionalProperties: false }],
    ["other fields", { properties: { a: {} }, additionalProperties: { type: "number" } }],
    ["names by pattern", { patternProperties: { "^x": { type: "string" } } }],
    ["names", { propertyNames: { maxLength: 1 } }],
    ["numbers of fields", { minProperties: 1, maxProperties: 1 }],
    ["dependencies", { dependencies: { a: ["b"], c: { required: ["d"] } } }],
    [
      "conditions",
      { if: { type: "object" }, [THEN]: { required: ["a"] }, else: { type: "array" } },
    ],
    ["unions, where no default counts", { anyOf: [{ properties: { d: { default: 1 } } }, leaf] }],
    ["either or", { oneOf: [{ type: "object" }, { required: ["a"] }, { type: "number" }] }],
    ["intersections", { allOf: [{ properties: { d: { default: 1 } } }, { type: "object" }] }],
    [
      "recursion",
      {
        $id: "T",
        type: "object",
        properties: { a: { anyOf: [{ $ref: "T" }, { type: "number" }] }, z: { default: 1 } },
      },
    ],
    [
      "references to definitions",
      {
        definitions: { "a/b": { properties: { q: { default: 1 } } } },
        properties: { a: { $ref: "#/definitions/a~1b" } },
        anyOf: [{ $ref: "#/definitions/a~1b" }, leaf],
      },
    ],
  ])("%s", (_, schema) => {
    for (const value of VALUES) agree(schema, value);
  });
});

describe("a union that nothing fits", () => {
  it("is spoken for by the branch that came nearest", () => {
    const branch = (name: string) => ({
      type: "object",
      required: [name, "both"],
      properties: { [name]: { type: "string" } },
    });
    const failures = check({ right: "r" }, { anyOf: [branch("left"), branch("right")] } as Schema);
    expect(failures.map(({ keyword, name }) => [keyword, name])).toEqual([["required", "both"]]);
  });

  it("of literals is one list of words", () => {
    const failures = check("c", { anyOf: [{ const: "a" }, { const: "b" }] });
    expect(failures.map(({ keyword }) => keyword)).toEqual(["anyOf"]);
  });
});

describe("a late list", () => {
  const limit = Type.Number({ default: 5, minimum: 1 });
  const Tree = Type.Recursive((self) =>
    Type.Object({ limit, leaves: Type.Array(self, { default: [] }) }),
  );
  const Entry = Type.Object({
    name: Type.String(),
    limit,
    tags: Type.Array(Type.Object({ word: Type.String(), limit }), { default: [] }),
    options: Type.Object({ on: Type.Boolean({ default: true }), limit }, { default: {} }),
    more: Type.Optional(Type.Object({ limit })),
    byName: Type.Optional(Type.Record(Type.String(), Type.Object({ limit }))),
    tree: Type.Optional(Tree),
    either: Type.Optional(Type.Union([Type.Object({ limit: Type.Number() }), Type.Null()])),
    inner: LateList(Type.Object({ limit })),
  });
  const Config = Type.Object({ list: LateList(Entry) });
  interface Checked {
    readonly list: LateList<object>;
  }
  const LONG = 101;
  const checked = (entries: readonly object[]) => {
    const value = { list: structuredClone(entries) };
    const failures = check(value, Config as Schema);
    return { failures, list: (value as unknown as Checked).list };
  };
  const ENTRIES = [
    { name: "bare" },
    { name: "", limit: 1, tags: [{ word: "a" }, { word: "b", limit: 2 }], options: { limit: 3 } },
    { name: "more", more: {}, byName: { __proto__x: {} }, either: { limit: 1 } },
    { name: "tree", tree: { leaves: [{ leaves: [{ limit: 9 }] }] } },
    { name: "lists", inner: [{}, { limit: 2 }] },
    { name: "long", inner: Array.from({ length: LONG }, () => ({})) },
  ];

  it.each(ENTRIES)("gives an entry the defaults that it has in a short one: %j", (entry) => {
    const short = checked([entry]);
    const long = checked([...Array.from({ length: LONG }, () => ({ name: "x" })), entry]);
    expect([...short.failures, ...long.failures]).toEqual([]);
    // As threads get it.
    const travelled: LateList<object> = JSON.parse(JSON.stringify(long.list));
    expect(lateEntry(travelled, LONG)).toEqual(lateEntry(short.list, 0));
    expect(short.list.defaults).toBeUndefined();
    expect(JSON.stringify(long.list.entries[0])).toBe('{"name":"x"}');
  });

  it("is one also where nobody has written it", () => {
    const value: Record<string, unknown> = {};
    check(value, Config as Schema);
    expect(value).toEqual({ list: { entries: [] } });
  });

  it.each([1, LONG])("of %i is checked as a whole", (length) => {
    const wrong = { limit: 0, tags: [{}], options: { on: 1 }, inner: [{ limit: 0 }] };
    const { failures } = checked(Array.from({ length }, () => wrong));
    expect(failures.slice(0, 5).map(({ keyword, pointer }) => `${keyword} ${pointer}`)).toEqual([
      "required /list/0",
      "minimum /list/0/limit",
      "required /list/0/tags/0",
      "type /list/0/options/on",
      "minimum /list/0/inner/0/limit",
    ]);
    expect(failures).toHaveLength(5 * length);
  });
});

it("ends where a schema refers to itself alone", () => {
  expect(check(1, { $id: "S", $ref: "S" })).toEqual([]);
});

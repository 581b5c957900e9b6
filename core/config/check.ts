import type { Defaults } from "@tsproxy/sdk";
import { regex, type Schema, target } from "./schema.ts";

/** Core fills in the defaults of a LateList with at most so many entries; those of a longer one are left to the package. */
const EARLY_ENTRIES = 100;

/**
 * When defaults are filled in. `now`: during the check. `later`: by the package, when it reads an entry of a long LateList.
 * `never`: inside unions and conditions, of which it is not known yet which branch applies.
 */
type Filling = "now" | "later" | "never";

/** A keyword of a schema that a value violates. */
export interface Failure {
  readonly keyword: string;
  /** JSON pointer of the value. */
  readonly pointer: string;
  /** The keyword's value, and the schema that it stands in. */
  readonly says: unknown;
  readonly schema: Schema;
  /** The property or the entries that it is about, if not the value as a whole. */
  readonly name?: string;
  readonly entries?: readonly [number, number];
}

/**
 * Checks a value against a JSON Schema (draft 7) and fills defaults in, as Ajv does with `allErrors` and `useDefaults`. The
 * schema is interpreted, not compiled: a config uses a hundredth of what schemas say, and to compile all of it takes longer than
 * the rest of a start. If no branch of a union fits, the failures of the nearest branch are reported.
 */
export function check(value: unknown, schema: Schema): Failure[] {
  const failures: Failure[] = [];
  new Checker(schema).check(value, schema, failures, "now");
  return failures;
}

/** A schema prepared for checks. It is made once, since a large config has a hundred thousand values for the same one. */
class Reading {
  readonly schema: Schema;
  /** True: it has one of the keywords COMBINING. */
  readonly combines: boolean;
  readonly properties: ReadonlyMap<string, Schema | boolean>;
  readonly defaults: readonly (readonly [name: string, schema: Schema])[];
  readonly patterns: readonly (readonly [RegExp, Schema | boolean])[];
  readonly required: readonly string[];
  readonly dependencies: readonly (readonly [name: string, needed: readonly string[] | Schema])[];
  /** Its default, with the defaults inside it; set by `#filled`. */
  filled: { readonly value: unknown } | undefined = undefined;
  /** The defaults that are filled in later; set by `#laterDefaults`. */
  later: { readonly defaults: Defaults | undefined } | undefined = undefined;

  constructor(schema: Schema) {
    this.schema = schema;
    this.combines = COMBINING.some((keyword) => keyword in schema);
    const properties = Object.entries(schema.properties ?? {});
    this.properties = new Map(properties);
    this.defaults = properties.filter(([, own]) => hasDefault(own));
    this.patterns = Object.entries(schema.patternProperties ?? {}).map(
      ([pattern, own]) => [regex(pattern), own] as const,
    );
    this.required = schema.required ?? [];
    this.dependencies = Object.entries(schema.dependencies ?? {});
  }
}

const COMBINING = ["const", "enum", "not", "anyOf", "oneOf", "allOf", "if"] as const;

/** One check of a value against a schema with its root; collects failures and fills defaults in. */
class Checker {
  readonly #root: Schema;
  readonly #readings: WeakMap<Schema, Reading>;
  /** The path of the value that is being checked. */
  readonly #path: (string | number)[] = [];
  #depth = 0;

  constructor(root: Schema) {
    this.#root = root;
    this.#readings = readingsOf(root);
  }

  check(value: unknown, schema: Schema | boolean, failures: Failure[], filling: Filling): void {
    if (typeof schema === "boolean") {
      if (!schema)
        failures.push({ keyword: "false", pointer: this.#at(), says: false, schema: {} });
      return;
    }
    // Ends a reference that leads to itself.
    if (this.#depth > 500) return;
    this.#depth++;
    if (schema.type !== undefined && !isOfType(value, schema.type))
      this.#fail(failures, schema, "type");
    else {
      if (schema.$ref !== undefined) this.#reference(value, schema.$ref, failures, filling);
      const reading = this.#readingOf(schema);
      if (reading.combines) this.#combined(value, schema, failures, filling);
      if (typeof value === "number") this.#number(value, schema, failures);
      else if (typeof value === "string") this.#string(value, schema, failures);
      else if (Array.isArray(value)) this.#list(value, schema, failures, filling);
      else if (typeof value === "object" && value !== null)
        this.#map(value as Fields, reading, failures, filling);
    }
    this.#depth--;
  }

  #readingOf(schema: Schema): Reading {
    let reading = this.#readings.get(schema);
    if (reading === undefined) this.#readings.set(schema, (reading = new Reading(schema)));
    return reading;
  }

  #at(): string {
    return this.#path
      .map((part) => `/${String(part).replaceAll("~", "~0").replaceAll("/", "~1")}`)
      .join("");
  }

  #fail(failures: Failure[], schema: Schema, keyword: string, more?: Partial<Failure>): void {
    const says = (schema as Record<string, unknown>)[keyword];
    failures.push({ keyword, pointer: this.#at(), says, schema, ...more });
  }

  #checkAt(
    key: string | number,
    value: unknown,
    schema: Schema | boolean,
    failures: Failure[],
    filling: Filling,
  ): void {
    this.#path.push(key);
    this.check(value, schema, failures, filling);
    this.#path.pop();
  }

  #reference(value: unknown, ref: string, failures: Failure[], filling: Filling): void {
    const found = target(this.#root, ref);
    // A recursive schema fills its defaults in at once, wherever the reference to it stands.
    if (found !== undefined)
      this.check(value, found, failures, refers(found) ? "now" : atOnce(filling));
  }

  #fits(value: unknown, schema: Schema | boolean): boolean {
    const failures: Failure[] = [];
    this.check(value, schema, failures, "never");
    return failures.length === 0;
  }

  #combined(value: unknown, schema: Schema, failures: Failure[], filling: Filling): void {
    if ("const" in schema && !isEqual(value, schema.const)) this.#fail(failures, schema, "const");
    if (schema.enum?.every((word) => !isEqual(value, word))) this.#fail(failures, schema, "enum");
    if (schema.not !== undefined && this.#fits(value, schema.not))
      this.#fail(failures, schema, "not");
    for (const keyword of ["anyOf", "oneOf"] as const)
      if (schema[keyword] !== undefined) this.#union(value, schema, keyword, failures);
    for (const part of schema.allOf ?? []) this.check(value, part, failures, atOnce(filling));
    if (schema.if === undefined) return;
    const branch = this.#fits(value, schema.if) ? schema.then : schema.else;
    if (branch !== undefined) this.check(value, branch, failures, "never");
  }

  #union(value: unknown, schema: Schema, keyword: "anyOf" | "oneOf", failures: Failure[]): void {
    const branches: Failure[][] = [];
    for (const branch of schema[keyword]!) {
      const found: Failure[] = [];
      this.check(value, branch, found, "never");
      if (found.length === 0 && keyword === "anyOf") return;
      branches.push(found);
    }
    const fitting = branches.filter((found) => found.length === 0).length;
    if (fitting === 1) return;
    const pointer = this.#at();
    const literals = branches
      .flat()
      .every((found) => found.keyword === "const" && found.pointer === pointer);
    if (fitting > 0 || literals) failures.push({ keyword, pointer, says: schema[keyword], schema });
    else
      failures.push(
        ...branches.reduce((a, b) => (misfit(b, pointer) < misfit(a, pointer) ? b : a)),
      );
  }

  #number(value: number, schema: Schema, failures: Failure[]): void {
    const fail = (keyword: string) => this.#fail(failures, schema, keyword);
    if (value > (schema.maximum ?? Infinity)) fail("maximum");
    if (value < (schema.minimum ?? -Infinity)) fail("minimum");
    if (schema.exclusiveMaximum !== undefined && value >= schema.exclusiveMaximum)
      fail("exclusiveMaximum");
    if (schema.exclusiveMinimum !== undefined && value <= schema.exclusiveMinimum)
      fail("exclusiveMinimum");
    if (schema.multipleOf !== undefined && !Number.isInteger(value / schema.multipleOf))
      fail("multipleOf");
  }

  /** Lengths are in characters (code points), not in UTF-16 code units. */
  #string(value: string, schema: Schema, failures: Failure[]): void {
    const { minLength = 0, maxLength = Infinity, pattern } = schema;
    if (value.length > maxLength && [...value].length > maxLength)
      this.#fail(failures, schema, "maxLength");
    // A character has one or two code units, so twice as many code units are always enough.
    if (value.length < 2 * minLength && [...value].length < minLength)
      this.#fail(failures, schema, "minLength");
    if (pattern !== undefined && !regex(pattern).test(value))
      this.#fail(failures, schema, "pattern");
  }

  #list(list: unknown[], schema: Schema, failures: Failure[], filling: Filling): void {
    const { items, contains } = schema;
    const tuple = Array.isArray(items) ? (items as readonly Schema[]) : undefined;
    if (filling !== "never") tuple?.forEach((item, i) => void this.#fill(list, i, item));
    if (list.length > (schema.maxItems ?? Infinity)) this.#fail(failures, schema, "maxItems");
    if (list.length < (schema.minItems ?? 0)) this.#fail(failures, schema, "minItems");
    if (schema.uniqueItems === true) this.#unique(list, schema, failures);
    if (contains !== undefined && !list.some((item) => this.#fits(item, contains)))
      this.#fail(failures, schema, "contains");
    if (tuple !== undefined && schema.additionalItems === false && list.length > tuple.length)
      this.#fail(failures, schema, "maxItems", { says: tuple.length });
    const isLong = schema.late === true && list.length > EARLY_ENTRIES;
    const inner = tuple !== undefined ? atOnce(filling) : isLong ? later(filling) : filling;
    for (let i = 0; i < list.length; i++) {
      const own = tuple === undefined ? items : (tuple[i] ?? schema.additionalItems);
      if (own !== undefined && own !== false)
        this.#checkAt(i, list[i], own as Schema | boolean, failures, inner);
    }
  }

  #unique(list: readonly unknown[], schema: Schema, failures: Failure[]): void {
    for (let i = list.length - 1; i > 0; i--)
      for (let j = i - 1; j >= 0; j--)
        if (isEqual(list[i], list[j])) {
          this.#fail(failures, schema, "uniqueItems", { entries: [j, i] });
          return;
        }
  }

  #map(map: Fields, reading: Reading, failures: Failure[], filling: Filling): void {
    const { schema } = reading;
    const { additionalProperties, propertyNames } = schema;
    // Only written properties are checked: defaults have been when they were made.
    const written = Object.keys(map);
    if (filling === "now") for (const [name, own] of reading.defaults) this.#fill(map, name, own);
    if (schema.maxProperties !== undefined || schema.minProperties !== undefined) {
      const count = Object.keys(map).length;
      if (count > (schema.maxProperties ?? Infinity)) this.#fail(failures, schema, "maxProperties");
      if (count < (schema.minProperties ?? 0)) this.#fail(failures, schema, "minProperties");
    }
    for (const name of reading.required) {
      if (map[name] !== undefined) continue;
      if (filling === "later" && hasDefault(reading.properties.get(name))) continue;
      this.#fail(failures, schema, "required", { name });
    }
    if (reading.dependencies.length > 0) this.#dependencies(map, reading, failures);
    const names =
      propertyNames === undefined && reading.patterns.length === 0 ? written : Object.keys(map);
    for (const name of names) {
      if (propertyNames !== undefined && !this.#fits(name, propertyNames))
        this.#fail(failures, schema, "propertyNames", { name });
      const value = map[name];
      let found = false;
      const own = reading.properties.get(name);
      if (own !== undefined) {
        found = true;
        if (value !== undefined) this.#property(map, name, own, failures, filling);
      }
      for (const [pattern, one] of reading.patterns) {
        if (!pattern.test(name)) continue;
        found = true;
        if (value !== undefined) this.#checkAt(name, value, one, failures, atOnce(filling));
      }
      if (found || additionalProperties === undefined) continue;
      if (additionalProperties === false)
        this.#fail(failures, schema, "additionalProperties", { name });
      else if (value !== undefined)
        this.#checkAt(name, value, additionalProperties, failures, atOnce(filling));
    }
  }

  #property(
    map: Fields,
    name: string,
    schema: Schema | boolean,
    failures: Failure[],
    filling: Filling,
  ): void {
    const value = map[name];
    if (!isLate(schema)) {
      this.#checkAt(name, value, schema, failures, filling);
      return;
    }
    this.#checkAt(name, value, schema, failures, atOnce(filling));
    if (filling !== "never" && Array.isArray(value)) map[name] = this.#lateList(value, schema);
  }

  /** Puts a list into the form of the SDK's LateList. */
  #lateList(entries: readonly unknown[], { items }: Schema): object {
    if (entries.length <= EARLY_ENTRIES) return { entries };
    return { entries, defaults: this.#laterDefaults(items as Schema) };
  }

  /**
   * The defaults that `check` leaves to be filled in later, for the properties and entries that it visits itself. Undefined:
   * there are none.
   */
  #laterDefaults(schema: Schema | boolean | undefined): Defaults | undefined {
    if (typeof schema !== "object") return undefined;
    const reading = this.#readingOf(schema);
    if (reading.later !== undefined) return reading.later.defaults;
    const fields = reading.defaults.map(([name, own]) => [name, this.#filled(own)] as const);
    const inside = [...reading.properties].flatMap(([name, own]) => {
      const inner = isLate(own) ? undefined : this.#laterDefaults(own);
      return inner === undefined ? [] : [[name, inner] as const];
    });
    const entries = Array.isArray(schema.items)
      ? undefined
      : this.#laterDefaults(schema.items as Schema | undefined);
    const isEmpty = fields.length === 0 && inside.length === 0 && entries === undefined;
    const defaults: Defaults | undefined = isEmpty
      ? undefined
      : { fields: Object.fromEntries(fields), inside: Object.fromEntries(inside), entries };
    reading.later = { defaults };
    return defaults;
  }

  #dependencies(map: Fields, { schema, dependencies }: Reading, failures: Failure[]): void {
    for (const [name, needed] of dependencies) {
      if (map[name] === undefined) continue;
      if (!Array.isArray(needed)) this.check(map, needed as Schema, failures, "never");
      else
        for (const other of needed)
          if (map[other] === undefined) this.#fail(failures, schema, "required", { name: other });
    }
  }

  /**
   * Fills a default in where a field is absent, with the defaults inside it. It is made once a schema, and frozen: a hundred
   * thousand routes share the same few objects for fields that nobody wrote.
   */
  #fill(holder: object, key: string | number, schema: Schema | boolean): void {
    if (typeof schema === "boolean" || schema.default === undefined) return;
    const at = holder as Fields;
    if (at[key] === undefined) at[key] = this.#filled(schema);
  }

  #filled(schema: Schema): unknown {
    const reading = this.#readingOf(schema);
    if (reading.filled === undefined) {
      const value = structuredClone(schema.default);
      this.check(value, schema, [], "now");
      const isList = isLate(schema) && Array.isArray(value);
      reading.filled = { value: frozen(isList ? this.#lateList(value, schema) : value) };
    }
    return reading.filled.value;
  }
}

const readings = new WeakMap<Schema, WeakMap<Schema, Reading>>();

/** Prepared schemas, by root: references are relative to it. */
function readingsOf(root: Schema): WeakMap<Schema, Reading> {
  let known = readings.get(root);
  if (known === undefined) readings.set(root, (known = new WeakMap()));
  return known;
}

function hasDefault(schema: Schema | boolean | undefined): boolean {
  return typeof schema === "object" && schema.default !== undefined;
}

function isLate(schema: Schema | boolean): schema is Schema {
  return typeof schema === "object" && schema.late === true;
}

/** For parts that `#laterDefaults` does not visit. */
function atOnce(filling: Filling): Filling {
  return filling === "later" ? "now" : filling;
}
function later(filling: Filling): Filling {
  return filling === "now" ? "later" : filling;
}

function frozen(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  for (const part of Object.values(value)) frozen(part);
  return Object.freeze(value);
}

type Fields = Record<string, unknown>;

/** How far a branch is from fitting: another kind of value is further off than any number of wrong fields. */
function misfit(failures: readonly Failure[], pointer: string): number {
  const isOther = failures.some(
    (found) => found.pointer === pointer && (found.keyword === "type" || found.keyword === "const"),
  );
  return failures.length + (isOther ? 1000 : 0);
}

function isOfType(value: unknown, types: string | readonly string[]): boolean {
  if (typeof types === "string") return isOf(value, types);
  return types.some((type) => isOf(value, type));
}

function isOf(value: unknown, type: string): boolean {
  switch (type) {
    case "object":
      return typeof value === "object" && value !== null && !Array.isArray(value);
    case "array":
      return Array.isArray(value);
    case "integer":
      return Number.isInteger(value);
    case "number":
      return Number.isFinite(value);
    case "null":
      return value === null;
    default:
      return typeof value === type;
  }
}

function isEqual(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const names = Object.keys(a);
  if (names.length !== Object.keys(b).length) return false;
  return names.every(
    (name) => Object.hasOwn(b, name) && isEqual((a as Fields)[name], (b as Fields)[name]),
  );
}

const refer = new WeakMap<object, boolean>();

/** True if a schema has a reference, or a part of it has. */
function refers(schema: object): boolean {
  let known = refer.get(schema);
  if (known === undefined) {
    const inner = Object.values(schema).some(
      (part) => typeof part === "object" && part !== null && refers(part as object),
    );
    known = "$ref" in schema || inner;
    refer.set(schema, known);
  }
  return known;
}

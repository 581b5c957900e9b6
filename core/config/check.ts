import type { Defaults } from "@tsproxy/sdk";
import { regex, type Schema, target } from "./schema.ts";

/** Entries of a LateList get their defaults from core while there are no more than these: what each would take is little then. */
const EARLY_ENTRIES = 100;

/**
 * When defaults are filled in: now; by the package, once it looks at an entry of a long LateList; or not at all, within unions, of
 * which nobody knows which branch will be it.
 */
type Filling = "now" | "later" | "never";

/** A keyword of a schema that a value does not keep to. */
export interface Failure {
  readonly keyword: string;
  /** JSON pointer of the value. */
  readonly pointer: string;
  /** What the keyword says, and the schema that it stands in. */
  readonly says: unknown;
  readonly schema: Schema;
  /** The name or entry that is meant, where it is not the value itself. */
  readonly name?: string;
  readonly entries?: readonly [number, number];
}

/**
 * Checks a value against a JSON Schema (draft 7) and fills defaults in, as Ajv does with `allErrors` and `useDefaults`. It reads the
 * schema as it goes: configs meet a hundredth of what schemas say, and to compile all of it took longer than the rest of a start.
 * Of a union that nothing fits, the branch that comes nearest speaks for all.
 */
export function check(value: unknown, schema: Schema): Failure[] {
  const failures: Failure[] = [];
  new Checker(schema).check(value, schema, failures, "now");
  return failures;
}

/** What a schema says, put in order once: a large config meets the same one a hundred thousand times. */
class Reading {
  readonly schema: Schema;
  /** Beyond type, numbers and strings. */
  readonly combines: boolean;
  readonly properties: ReadonlyMap<string, Schema | boolean>;
  readonly defaults: readonly (readonly [name: string, schema: Schema])[];
  readonly patterns: readonly (readonly [RegExp, Schema | boolean])[];
  readonly required: readonly string[];
  readonly dependencies: readonly (readonly [name: string, needed: readonly string[] | Schema])[];
  /** As a default of it is filled in, with the defaults inside; by `fill`. */
  filled: { readonly value: unknown } | undefined = undefined;
  /** Of values that are filled in later; by `laterDefaults`. */
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

class Checker {
  readonly #root: Schema;
  readonly #readings: WeakMap<Schema, Reading>;
  /** Of the value that is looked at. */
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
    // A reference that leads to itself.
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
    // A recursive schema is a thing of its own: it fills its defaults in, whoever refers to it.
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

  /** Lengths count characters, not UTF-16's halves of them. */
  #string(value: string, schema: Schema, failures: Failure[]): void {
    const { minLength = 0, maxLength = Infinity, pattern } = schema;
    if (value.length > maxLength && [...value].length > maxLength)
      this.#fail(failures, schema, "maxLength");
    // Half as many code units as characters there cannot be.
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
    // What is filled in has been checked when it was made.
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

  /** As the SDK's LateList has it. */
  #lateList(entries: readonly unknown[], { items }: Schema): object {
    if (entries.length <= EARLY_ENTRIES) return { entries };
    return { entries, defaults: this.#laterDefaults(items as Schema) };
  }

  /** What check leaves to be filled in later: the same properties and entries that it would go through itself. */
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
   * A default, with the defaults inside it, made once a schema. Frozen: the fields of a hundred thousand routes that nobody
   * wrote are the same few objects.
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

/** Of schemas within that root, to which their references are relative. */
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

/** In parts that `laterDefaults` does not go into. */
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

import { regex, type Schema, target } from "./schema.ts";

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
  new Checker(schema).check(value, schema, "", failures, true);
  return failures;
}

class Checker {
  readonly #root: Schema;
  #depth = 0;

  constructor(root: Schema) {
    this.#root = root;
  }

  /** `fills`: defaults are filled in; not within unions, of which nobody knows which branch will be it. */
  check(
    value: unknown,
    schema: Schema | boolean,
    pointer: string,
    failures: Failure[],
    fills: boolean,
  ): void {
    if (typeof schema === "boolean") {
      if (!schema) failures.push({ keyword: "false", pointer, says: false, schema: {} });
      return;
    }
    // A reference that leads to itself.
    if (this.#depth > 500) return;
    this.#depth++;
    const fail = (keyword: string, more: Partial<Failure> = {}): void => {
      const says = (schema as Record<string, unknown>)[keyword];
      failures.push({ keyword, pointer, says, schema, ...more });
    };
    if (schema.type !== undefined && !isOfType(value, schema.type)) fail("type");
    else {
      if (schema.$ref !== undefined) this.#reference(value, schema.$ref, pointer, failures, fills);
      if (typeof value === "number") checkNumber(value, schema, fail);
      else if (typeof value === "string") checkString(value, schema, fail);
      this.#combined(value, schema, pointer, failures, fail, fills);
      if (Array.isArray(value)) this.#list(value, schema, pointer, failures, fail, fills);
      else if (typeof value === "object" && value !== null)
        this.#map(value as Fields, schema, pointer, failures, fail, fills);
    }
    this.#depth--;
  }

  #reference(
    value: unknown,
    ref: string,
    pointer: string,
    failures: Failure[],
    fills: boolean,
  ): void {
    const found = target(this.#root, ref);
    // A recursive schema is a thing of its own: it fills its defaults in, whoever refers to it.
    if (found !== undefined) this.check(value, found, pointer, failures, fills || refers(found));
  }

  #fits(value: unknown, schema: Schema | boolean): boolean {
    const failures: Failure[] = [];
    this.check(value, schema, "", failures, false);
    return failures.length === 0;
  }

  #combined(
    value: unknown,
    schema: Schema,
    pointer: string,
    failures: Failure[],
    fail: Fail,
    fills: boolean,
  ): void {
    if ("const" in schema && !isEqual(value, schema.const)) fail("const");
    if (schema.enum?.every((word) => !isEqual(value, word))) fail("enum");
    if (schema.not !== undefined && this.#fits(value, schema.not)) fail("not");
    for (const keyword of ["anyOf", "oneOf"] as const)
      if (schema[keyword] !== undefined) this.#union(value, schema, keyword, pointer, failures);
    for (const part of schema.allOf ?? []) this.check(value, part, pointer, failures, fills);
    if (schema.if === undefined) return;
    const branch = this.#fits(value, schema.if) ? schema.then : schema.else;
    if (branch !== undefined) this.check(value, branch, pointer, failures, false);
  }

  #union(
    value: unknown,
    schema: Schema,
    keyword: "anyOf" | "oneOf",
    pointer: string,
    failures: Failure[],
  ): void {
    const branches = schema[keyword]!.map((branch) => {
      const found: Failure[] = [];
      this.check(value, branch, pointer, found, false);
      return found;
    });
    const fitting = branches.filter((found) => found.length === 0).length;
    if (fitting === 1 || (fitting > 1 && keyword === "anyOf")) return;
    const literals = branches
      .flat()
      .every((found) => found.keyword === "const" && found.pointer === pointer);
    if (fitting > 0 || literals) failures.push({ keyword, pointer, says: schema[keyword], schema });
    else
      failures.push(
        ...branches.reduce((a, b) => (misfit(b, pointer) < misfit(a, pointer) ? b : a)),
      );
  }

  #list(
    list: unknown[],
    schema: Schema,
    pointer: string,
    failures: Failure[],
    fail: Fail,
    fills: boolean,
  ): void {
    const { items, contains } = schema;
    const tuple = Array.isArray(items) ? (items as readonly Schema[]) : undefined;
    if (fills) tuple?.forEach((item, i) => void fill(list, i, item));
    if (list.length > (schema.maxItems ?? Infinity)) fail("maxItems");
    if (list.length < (schema.minItems ?? 0)) fail("minItems");
    if (schema.uniqueItems === true) checkUnique(list, fail);
    if (contains !== undefined && !list.some((item) => this.#fits(item, contains)))
      fail("contains");
    if (tuple !== undefined && schema.additionalItems === false && list.length > tuple.length)
      fail("maxItems", { says: tuple.length });
    list.forEach((item, i) => {
      const own = tuple === undefined ? items : (tuple[i] ?? schema.additionalItems);
      if (own !== undefined && own !== false)
        this.check(item, own as Schema | boolean, `${pointer}/${i}`, failures, fills);
    });
  }

  #map(
    map: Fields,
    schema: Schema,
    pointer: string,
    failures: Failure[],
    fail: Fail,
    fills: boolean,
  ): void {
    const { properties = {}, patternProperties = {}, additionalProperties } = schema;
    if (fills) for (const name in properties) fill(map, name, properties[name]!);
    const names = Object.keys(map);
    if (names.length > (schema.maxProperties ?? Infinity)) fail("maxProperties");
    if (names.length < (schema.minProperties ?? 0)) fail("minProperties");
    for (const name of schema.required ?? [])
      if (map[name] === undefined) fail("required", { name });
    this.#dependencies(map, schema, pointer, failures, fail);
    for (const name of names) {
      const { propertyNames } = schema;
      if (propertyNames !== undefined && !this.#fits(name, propertyNames))
        fail("propertyNames", { name });
      const found: (Schema | boolean)[] = [];
      if (Object.hasOwn(properties, name)) found.push(properties[name]!);
      for (const pattern in patternProperties)
        if (regex(pattern).test(name)) found.push(patternProperties[pattern]!);
      if (found.length === 0 && additionalProperties !== undefined) {
        if (additionalProperties === false) fail("additionalProperties", { name });
        else found.push(additionalProperties);
      }
      if (map[name] === undefined) continue;
      const at = `${pointer}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
      for (const one of found) this.check(map[name], one, at, failures, fills);
    }
  }

  #dependencies(
    map: Fields,
    schema: Schema,
    pointer: string,
    failures: Failure[],
    fail: Fail,
  ): void {
    for (const [name, needed] of Object.entries(schema.dependencies ?? {})) {
      if (map[name] === undefined) continue;
      if (!Array.isArray(needed)) this.check(map, needed as Schema, pointer, failures, false);
      else
        for (const other of needed) if (map[other] === undefined) fail("required", { name: other });
    }
  }
}

type Fields = Record<string, unknown>;
type Fail = (keyword: string, more?: Partial<Failure>) => void;

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

function checkNumber(value: number, schema: Schema, fail: Fail): void {
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
function checkString(value: string, schema: Schema, fail: Fail): void {
  const { minLength = 0, maxLength = Infinity, pattern } = schema;
  if (value.length > maxLength && [...value].length > maxLength) fail("maxLength");
  if (minLength > 0 && (value.length < minLength || [...value].length < minLength))
    fail("minLength");
  if (pattern !== undefined && !regex(pattern).test(value)) fail("pattern");
}

function checkUnique(list: readonly unknown[], fail: Fail): void {
  for (let i = list.length - 1; i > 0; i--)
    for (let j = i - 1; j >= 0; j--)
      if (isEqual(list[i], list[j])) {
        fail("uniqueItems", { entries: [j, i] });
        return;
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

/** Each value gets a default of its own: packages may keep what they get. */
function fill(holder: object, key: string | number, schema: Schema | boolean): void {
  if (typeof schema === "boolean" || schema.default === undefined) return;
  const at = holder as Fields;
  if (at[key] === undefined) at[key] = structuredClone(schema.default);
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

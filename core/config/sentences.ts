import type { ErrorObject } from "ajv";
import { didYouMean, listed, quote } from "./diagnostic.ts";
import { isNull, type Node } from "./document.ts";
import { formatDuration, shown } from "./scalars.ts";
import type { Schema } from "./schema.ts";

export interface Said {
  /** JSON pointer below the checked value. */
  readonly pointer: string;
  /** A field that is not there. */
  readonly missing?: string;
  readonly message: string;
  readonly help?: string;
}

/** ajv's errors as sentences. `at` finds the node a pointer means; `inEnvoy` says whether a word is one of Envoy's own enum. */
export function sentences(
  errors: readonly ErrorObject[],
  at: (pointer: string) => Node | undefined,
  inEnvoy: (pointer: string) => boolean,
): Said[] {
  const said: Said[] = [];
  for (const error of leading(errors)) {
    const one = sentence(error, at(error.instancePath), inEnvoy(error.instancePath));
    if (one !== undefined) said.push(one);
  }
  return said;
}

/**
 * A union reports every branch that failed. Literals are one list of words; otherwise the branch that came nearest speaks for
 * all.
 */
function leading(errors: readonly ErrorObject[]): ErrorObject[] {
  const dropped = new Set<ErrorObject>();
  // Inner unions come before the outer one that holds them.
  for (const union of errors) {
    if (union.keyword !== "anyOf" && union.keyword !== "oneOf") continue;
    const inside = errors.filter(
      (e) => e !== union && !dropped.has(e) && e.schemaPath.startsWith(`${union.schemaPath}/`),
    );
    if (inside.length === 0) continue;
    if (inside.every((e) => e.keyword === "const" && e.instancePath === union.instancePath)) {
      for (const e of inside) dropped.add(e);
      continue;
    }
    const branches = new Map<string, ErrorObject[]>();
    for (const e of inside) {
      const branch = e.schemaPath.slice(union.schemaPath.length + 1).split("/")[0]!;
      branches.set(branch, [...(branches.get(branch) ?? []), e]);
    }
    const best = [...branches.values()].sort((a, b) => misfit(a, union) - misfit(b, union))[0]!;
    for (const e of inside) if (!best.includes(e)) dropped.add(e);
    dropped.add(union);
  }
  return errors.filter((e) => !dropped.has(e));
}

function misfit(errors: readonly ErrorObject[], union: ErrorObject): number {
  const wrongType = errors.some(
    (e) => e.instancePath === union.instancePath && (e.keyword === "type" || e.keyword === "const"),
  );
  return errors.length + (wrongType ? 1000 : 0);
}

/** What ajv says of a failed keyword; each keyword fills its own. */
interface Params {
  readonly missingProperty: string;
  readonly type: string;
  readonly allowedValues: readonly unknown[];
  readonly allowedValue: unknown;
  readonly limit: number;
  readonly multipleOf: number;
  readonly pattern: string;
  readonly i: number;
  readonly j: number;
  readonly additionalProperty?: string;
  readonly unevaluatedProperty?: string;
}

function sentence(error: ErrorObject, node: Node | undefined, inEnvoy: boolean): Said | undefined {
  const pointer = error.instancePath;
  const said = (message: string, help?: string): Said =>
    help === undefined ? { pointer, message } : { pointer, message, help };
  const subject = node?.kind === "scalar" && !isNull(node) ? `${shown(node)} ` : "";
  const limit = (value: number) =>
    (error.parentSchema as Schema).duration ? formatDuration(value) : `${value}`;
  const params = error.params as Params;
  switch (error.keyword) {
    case "required":
      return { pointer, missing: params.missingProperty, message: "is required" };
    case "type":
      return said(
        subject === ""
          ? `a ${WORDS[params.type] ?? params.type} belongs here`
          : `${subject}is not ${WORDS_WITH_ARTICLE[params.type] ?? params.type}`,
      );
    case "enum":
      return notOneOf(said, params.allowedValues, node, subject, inEnvoy);
    case "anyOf":
    case "oneOf": {
      const words = ((error.schema ?? []) as Schema[])
        .map((s) => s.const)
        .filter((w) => w !== undefined);
      if (words.length > 0) return notOneOf(said, words, node, subject, inEnvoy);
      return said(`${subject}fits none of the allowed forms`);
    }
    case "const":
      return said(`${subject}must be ${JSON.stringify(params.allowedValue)}`);
    case "minimum":
      return said(`${subject}is less than ${limit(params.limit)}`);
    case "maximum":
      return said(`${subject}is more than ${limit(params.limit)}`);
    case "exclusiveMinimum":
      return said(`${subject}must be more than ${limit(params.limit)}`);
    case "exclusiveMaximum":
      return said(`${subject}must be less than ${limit(params.limit)}`);
    case "multipleOf":
      return said(`${subject}is not a multiple of ${params.multipleOf}`);
    case "minLength":
      return said(
        params.limit === 1
          ? "must not be empty"
          : `${subject}has fewer than ${params.limit} characters`,
      );
    case "maxLength":
      return said(`${subject}has more than ${params.limit} characters`);
    case "pattern":
      return said(`${subject}does not match ${params.pattern}`);
    case "minItems":
      return said(
        params.limit === 1 ? "needs at least one entry" : `needs at least ${params.limit} entries`,
      );
    case "maxItems":
      return said(`has more than ${params.limit} entries`);
    case "uniqueItems":
      return said(`entry ${params.j} and entry ${params.i} are equal`);
    case "minProperties":
      return said(
        params.limit === 1 ? "needs at least one field" : `needs at least ${params.limit} fields`,
      );
    case "maxProperties":
      return said(`has more than ${params.limit} fields`);
    case "additionalProperties":
    case "unevaluatedProperties": {
      const name = String(params.additionalProperty ?? params.unevaluatedProperty);
      const known = Object.keys((error.parentSchema as Schema).properties ?? {});
      return said(`unknown field ${quote(name)}`, didYouMean(name, known));
    }
    case "if":
      return undefined;
    default:
      return said(`${subject}${error.message ?? "is refused"}`);
  }
}

function notOneOf(
  said: (message: string, help?: string) => Said,
  allowed: readonly unknown[],
  node: Node | undefined,
  subject: string,
  inEnvoy: boolean,
): Said {
  const words = allowed.map(String);
  if (inEnvoy)
    return said(`${subject}is known to Envoy, not implemented here`, `write ${listed(words)}`);
  const written = node?.kind === "scalar" ? String(node.value) : "";
  return said(`${subject}is not one of ${listed(words)}`, didYouMean(written, words));
}

const WORDS: { readonly [type: string]: string } = {
  object: "map of fields",
  array: "list",
  integer: "whole number",
  boolean: "true or false",
};
const WORDS_WITH_ARTICLE: { readonly [type: string]: string } = {
  object: "a map of fields",
  array: "a list",
  integer: "a whole number",
  number: "a number",
  string: "a string",
  boolean: "true or false",
};

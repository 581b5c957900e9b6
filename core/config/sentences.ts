import type { Failure } from "./check.ts";
import { didYouMean, listed, quote } from "./diagnostic.ts";
import { isNull, type Node } from "./document.ts";
import { formatDuration, shown } from "./scalars.ts";
import type { Schema } from "./schema.ts";

/** A failure as a sentence. */
export interface Said {
  /** JSON pointer below the checked value. */
  readonly pointer: string;
  /** The name of the field that is missing. */
  readonly missing?: string;
  readonly message: string;
  readonly help?: string;
}

/**
 * Turns failures into sentences. `at` finds the node that a pointer means; `inEnvoy` says whether the value there is of an enum
 * of Envoy's.
 */
export function sentences(
  failures: readonly Failure[],
  at: (pointer: string) => Node | undefined,
  inEnvoy: (pointer: string) => boolean,
): Said[] {
  const said: Said[] = [];
  for (const failure of failures) {
    said.push(sentence(failure, at(failure.pointer), inEnvoy(failure.pointer)));
  }
  return said;
}

function sentence(failure: Failure, node: Node | undefined, inEnvoy: boolean): Said {
  const { pointer, schema, says } = failure;
  const said = (message: string, help?: string): Said =>
    help === undefined ? { pointer, message } : { pointer, message, help };
  const subject = node?.kind === "scalar" && !isNull(node) ? `${shown(node)} ` : "";
  const limit = schema.duration === true ? formatDuration(Number(says)) : `${says}`;
  switch (failure.keyword) {
    case "required":
      return { pointer, missing: failure.name!, message: "is required" };
    case "type": {
      const type = String(says);
      return said(
        subject === ""
          ? `a ${WORDS[type] ?? type} belongs here`
          : `${subject}is not ${WORDS_WITH_ARTICLE[type] ?? type}`,
      );
    }
    case "enum":
      return notOneOf(said, says as readonly unknown[], node, subject, inEnvoy);
    case "anyOf":
    case "oneOf": {
      const words = (says as Schema[]).map((s) => s.const).filter((w) => w !== undefined);
      if (words.length > 0) return notOneOf(said, words, node, subject, inEnvoy);
      return said(`${subject}fits none of the allowed forms`);
    }
    case "const":
      return said(`${subject}must be ${JSON.stringify(says)}`);
    case "minimum":
      return said(`${subject}is less than ${limit}`);
    case "maximum":
      return said(`${subject}is more than ${limit}`);
    case "exclusiveMinimum":
      return said(`${subject}must be more than ${limit}`);
    case "exclusiveMaximum":
      return said(`${subject}must be less than ${limit}`);
    case "multipleOf":
      return said(`${subject}is not a multiple of ${says}`);
    case "minLength":
      return said(says === 1 ? "must not be empty" : `${subject}has fewer than ${says} characters`);
    case "maxLength":
      return said(`${subject}has more than ${says} characters`);
    case "pattern":
      return said(`${subject}does not match ${says}`);
    case "minItems":
      return said(says === 1 ? "needs at least one entry" : `needs at least ${says} entries`);
    case "maxItems":
      return said(`has more than ${says} entries`);
    case "uniqueItems": {
      const [first, second] = failure.entries!;
      return said(`entry ${first} and entry ${second} are equal`);
    }
    case "minProperties":
      return said(says === 1 ? "needs at least one field" : `needs at least ${says} fields`);
    case "maxProperties":
      return said(`has more than ${says} fields`);
    case "additionalProperties": {
      const known = Object.keys(schema.properties ?? {});
      return said(`unknown field ${quote(failure.name!)}`, didYouMean(failure.name!, known));
    }
    case "propertyNames":
      return said(`the name ${quote(failure.name!)} is not allowed here`);
    case "contains":
      return said("has no entry of the kind that it needs");
    default:
      return said(`${subject}is not allowed here`);
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

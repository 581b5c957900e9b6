import { isIP, isIPv4, isIPv6 } from "node:net";
import type { Field, Rules } from "./descriptor.ts";
import { listed } from "./diagnostic.ts";
import { isNull, type Node, plain } from "./document.ts";
import { formatDuration, parseDuration } from "./scalars.ts";

/** What a field's validation rules object to in its value; undefined: nothing. */
export function violation(
  field: Field,
  node: Node | undefined,
  enumValues: Readonly<Record<string, number>> = {},
): string | undefined {
  if (field.v === undefined) return undefined;
  const set = node !== undefined && !isNull(node);
  for (const [type, rules] of rulesOf(field)) {
    if (node?.kind === "scalar" && node.invalid) continue;
    if (!set && !appliesToAbsent(type, field, rules)) continue;
    const found = set ? check(type, rules, node, field, enumValues) : absent(type, rules);
    if (found !== undefined) return found;
  }
  return undefined;
}

const lists = new WeakMap<Field, readonly (readonly [type: string, rules: Rules])[]>();

function rulesOf(field: Field): readonly (readonly [type: string, rules: Rules])[] {
  let list = lists.get(field);
  if (list === undefined) lists.set(field, (list = Object.entries(field.v ?? {})));
  return list;
}

/** A plain proto3 scalar that is not written counts as 0, "" or false; messages and members of a oneof are just absent. */
function appliesToAbsent(type: string, field: Field, rules: Rules): boolean {
  if (field.o !== undefined) return false;
  if (rules.required === true) return true;
  if (type === "message" || type === "duration" || type === "timestamp" || type === "any")
    return false;
  const implicit = field.p === undefined && !field.t.startsWith("google.");
  return implicit && rules.ignore_empty !== true;
}

function absent(type: string, rules: Rules): string | undefined {
  if (rules.required === true) return "is required";
  const empty: { readonly [type: string]: unknown } = {
    string: "",
    bytes: "",
    bool: false,
    enum: 0,
  };
  if (type === "repeated") return size(rules, 0, "min_items") && "is required";
  if (type === "map") return size(rules, 0, "min_pairs") && "is required";
  return scalarRule(type, rules, empty[type] ?? 0) === undefined ? undefined : "is required";
}

function check(
  type: string,
  rules: Rules,
  node: Node,
  field: Field,
  enumValues: Readonly<Record<string, number>>,
): string | undefined {
  if (type === "message" || type === "any") return undefined;
  if (type === "repeated") {
    if (node.kind !== "list") return undefined;
    if (rules.ignore_empty === true && node.items.length === 0) return undefined;
    return size(rules, node.items.length, "min_items") ?? unique(rules, node.items);
  }
  if (type === "map") {
    if (node.kind !== "map") return undefined;
    if (rules.ignore_empty === true && node.entries.size === 0) return undefined;
    return size(rules, node.entries.size, "min_pairs");
  }
  if (node.kind !== "scalar" || node.value === undefined) return undefined;
  if (type === "enum") return enumRule(rules, node.value, field, enumValues);
  const value = type === "duration" ? parseDuration(String(node.value)) : node.value;
  if (rules.ignore_empty === true && (value === "" || value === 0 || value === false))
    return undefined;
  return scalarRule(type, rules, value);
}

// Names are in canonical form by now; a number that has no name is still a number.
function enumRule(
  rules: Rules,
  value: unknown,
  field: Field,
  enumValues: Readonly<Record<string, number>>,
): string | undefined {
  const number = typeof value === "number" ? value : (enumValues[String(value)] ?? 0);
  if (typeof value === "number" && rules.defined_only === true)
    return `is not a number of ${field.t.slice(field.t.lastIndexOf(".") + 1)}`;
  const not = (asList(rules.not_in) ?? []).map(Number);
  return not.includes(number) ? "may not be set here" : undefined;
}

/** A field with the rules of a list's items or a map's values. Undefined: there are none. */
export function itemField(field: Field): Field | undefined {
  return derived(items, field, field.v?.repeated?.items ?? field.v?.map?.values);
}
/** A field with the rules of a map's keys. Undefined: there are none. */
export function keyField(field: Field): Field | undefined {
  return derived(keys, { n: field.n, t: "string" }, field.v?.map?.keys);
}

const items = new WeakMap<object, Field>();
const keys = new WeakMap<object, Field>();

function derived(known: WeakMap<object, Field>, { n, t, e }: Field, rules: unknown) {
  if (typeof rules !== "object" || rules === null) return undefined;
  let made = known.get(rules);
  if (made === undefined) {
    made = { n, t, ...(e === 1 && { e }), v: rules as { readonly [type: string]: Rules } };
    known.set(rules, made);
  }
  return made;
}

function size(rules: Rules, count: number, min: "min_items" | "min_pairs"): string | undefined {
  const least = num(rules[min]);
  const most = num(rules[min === "min_items" ? "max_items" : "max_pairs"]);
  if (least !== undefined && count < least)
    return `needs ${least === 1 ? "at least one entry" : `at least ${least} entries`}`;
  if (most !== undefined && count > most)
    return `has ${count} entries; at most ${most} are allowed`;
  return undefined;
}

function unique(rules: Rules, items: readonly Node[]): string | undefined {
  if (rules.unique !== true) return undefined;
  const seen = new Set<string>();
  for (const item of items) {
    const text = JSON.stringify(plain(item));
    if (seen.has(text)) return `names ${text} twice`;
    seen.add(text);
  }
  return undefined;
}

function scalarRule(type: string, rules: Rules, value: unknown): string | undefined {
  if (type === "string") return stringRule(rules, String(value));
  if (type === "bytes") return bytesRule(rules, String(value));
  if (type === "bool")
    return rules.const === undefined || rules.const === value
      ? undefined
      : `must be ${rules.const}`;
  if (type === "duration") return rangeRule(rules, Number(value), durationOf, formatDuration);
  if (type === "enum")
    return (asList(rules.not_in) ?? []).includes(value) ? "is required" : undefined;
  return rangeRule(rules, Number(value), num, String);
}

function rangeRule(
  rules: Rules,
  value: number,
  read: (limit: unknown) => number | undefined,
  show: (limit: number) => string,
): string | undefined {
  const [gt, gte, lt, lte] = [read(rules.gt), read(rules.gte), read(rules.lt), read(rules.lte)];
  if (rules.const !== undefined && value !== read(rules.const))
    return `must be ${show(read(rules.const) ?? 0)}`;
  if (gt !== undefined && !(value > gt)) return `must be more than ${show(gt)}`;
  if (gte !== undefined && !(value >= gte)) return `must be at least ${show(gte)}`;
  if (lt !== undefined && !(value < lt)) return `must be less than ${show(lt)}`;
  if (lte !== undefined && !(value <= lte)) return `must be at most ${show(lte)}`;
  const allowed = asList(rules.in)?.map(Number);
  if (allowed !== undefined && !allowed.includes(value))
    return `must be ${listed(allowed.map(show))}`;
  if ((asList(rules.not_in) ?? []).map(Number).includes(value)) return `must not be ${show(value)}`;
  return undefined;
}

function stringRule(rules: Rules, value: string): string | undefined {
  const bytes = Buffer.byteLength(value);
  const points = [...value].length;
  const [least, most] = [num(rules.min_len) ?? 0, num(rules.max_len) ?? Infinity];
  if (value === "" && (least > 0 || (num(rules.min_bytes) ?? 0) > 0)) return "must not be empty";
  if (points < least || bytes < (num(rules.min_bytes) ?? 0)) return "is too short";
  if (points > most) return `is longer than ${most} characters`;
  if (bytes > (num(rules.max_bytes) ?? Infinity)) return `is longer than ${rules.max_bytes} bytes`;
  if (rules.len !== undefined && points !== num(rules.len))
    return `must have ${rules.len} characters`;
  if (rules.const !== undefined && value !== rules.const) return `must be "${rules.const}"`;
  const allowed = asList(rules.in)?.map(String);
  if (allowed !== undefined && !allowed.includes(value)) return `must be ${listed(allowed)}`;
  if ((asList(rules.not_in) ?? []).includes(value)) return `must not be "${value}"`;
  if (typeof rules.prefix === "string" && !value.startsWith(rules.prefix))
    return `must start with "${rules.prefix}"`;
  if (typeof rules.suffix === "string" && !value.endsWith(rules.suffix))
    return `must end with "${rules.suffix}"`;
  if (typeof rules.contains === "string" && !value.includes(rules.contains))
    return `must contain "${rules.contains}"`;
  if (typeof rules.not_contains === "string" && value.includes(rules.not_contains))
    return `must not contain "${rules.not_contains}"`;
  // The patterns of the .proto files are anchored and free of anything that backtracks badly.
  if (typeof rules.pattern === "string" && !new RegExp(rules.pattern, "u").test(value))
    return `does not match ${rules.pattern}`;
  return headerRule(rules, value) ?? formatRule(rules, value);
}

// Strict (the default): a name must be a token, a value has no control characters but tabs. Otherwise only NUL, LF and CR are
// refused.
function headerRule(rules: Rules, value: string): string | undefined {
  const known = rules.well_known_regex;
  if (known === undefined) return undefined;
  const loose = rules.strict === false;
  if (known === "HTTP_HEADER_NAME") {
    const good = loose ? !hasControl(value, false) : /^:?[\w!#$%&'*+.^`|~-]*$/.test(value);
    return good ? undefined : "is not a header name";
  }
  return hasControl(value, !loose) ? "has a character that no header value may have" : undefined;
}

function hasControl(value: string, strict: boolean): boolean {
  for (let i = 0; i < value.length; i++) {
    const code = value.charCodeAt(i);
    if (code === 0 || code === 10 || code === 13) return true;
    if (strict && ((code < 32 && code !== 9) || code === 127)) return true;
  }
  return false;
}

function formatRule(rules: Rules, value: string): string | undefined {
  if (rules.ip === true && isIP(value) === 0) return "is not an IP address";
  if (rules.ipv4 === true && !isIPv4(value)) return "is not an IPv4 address";
  if (rules.ipv6 === true && !isIPv6(value)) return "is not an IPv6 address";
  if (rules.hostname === true && !/^[\w-]+(\.[\w-]+)*\.?$/.test(value)) return "is not a host name";
  if (rules.uri === true && !URL.canParse(value)) return "is not a URI";
  return undefined;
}

function bytesRule(rules: Rules, value: string): string | undefined {
  const length = Buffer.from(value, "base64").length;
  if (length < (num(rules.min_len) ?? 0))
    return length === 0 ? "must not be empty" : "is too short";
  if (length > (num(rules.max_len) ?? Infinity)) return `is longer than ${rules.max_len} bytes`;
  return undefined;
}

function num(limit: unknown): number | undefined {
  return limit === undefined ? undefined : Number(limit);
}
function durationOf(limit: unknown): number | undefined {
  if (limit === undefined) return undefined;
  const { seconds = 0, nanos = 0 } = limit as { seconds?: unknown; nanos?: unknown };
  return Number(seconds) * 1000 + Number(nanos) / 1e6;
}
function asList(value: unknown): readonly unknown[] | undefined {
  if (value === undefined) return undefined;
  return Array.isArray(value) ? value : [value];
}

import type { Descriptor, Field } from "./descriptor.ts";
import { fromValue, ScalarNode } from "./document.ts";
import { itemField, violation } from "./rules.ts";
import { parseDuration, readDuration, readScalar, SCALARS, WRAPPERS } from "./scalars.ts";
import type { Shape } from "./schema.ts";
import type { Unread } from "./unread.ts";

/**
 * True if a map is that message in protobuf's canonical JSON, with all rules kept, so that the Normaliser would change nothing
 * and report nothing. False where that is so or may be so otherwise: maps, Anys and Structs, deprecated fields.
 */
export function isCanonical(descriptor: Descriptor, type: string, map: Unread): boolean {
  return fieldsOf(descriptor, type, map.value) === map.fields;
}

const NOWHERE = { offset: 0, path: "" };

/** How many fields a message has, with those of messages within it. Undefined: it is not in canonical form. */
function fieldsOf(descriptor: Descriptor, type: string, value: unknown): number | undefined {
  const message = descriptor.message(type);
  if (message === undefined || !isMap(value)) return undefined;
  let count = 0;
  let oneofs: string[] | undefined;
  for (const name in value) {
    const field = Object.hasOwn(message.fields, name) ? message.fields[name] : undefined;
    if (field === undefined || field.d === 1 || field.k !== undefined) return undefined;
    if (field.o !== undefined) {
      if (oneofs?.includes(field.o)) return undefined;
      if (oneofs === undefined) oneofs = [field.o];
      else oneofs.push(field.o);
    }
    const inner =
      field.r === 1 ? ofList(descriptor, field, value[name]) : of(descriptor, field, value[name]);
    if (inner === undefined) return undefined;
    count += 1 + inner;
  }
  for (const { name, field, values, absent } of descriptor.ruled(type)) {
    const own = value[name];
    if (own === undefined ? absent !== undefined : breaks(field, own, values)) return undefined;
  }
  for (const oneof of message.required ?? []) if (!oneofs?.includes(oneof)) return undefined;
  return count;
}

function ofList(descriptor: Descriptor, field: Field, list: unknown): number | undefined {
  if (!Array.isArray(list)) return undefined;
  const rules = itemField(field);
  let count = 0;
  for (const item of list) {
    const inner = of(descriptor, field, item);
    if (inner === undefined) return undefined;
    if (rules !== undefined && breaks(rules, item, enumOf(descriptor, rules))) return undefined;
    count += inner;
  }
  return count;
}

function of(descriptor: Descriptor, field: Field, value: unknown): number | undefined {
  const type = field.t;
  if (field.e === 1) {
    const values = descriptor.enum(type);
    return values !== undefined && typeof value === "string" && Object.hasOwn(values, value)
      ? 0
      : undefined;
  }
  if (type === "string") return typeof value === "string" ? 0 : undefined;
  const scalar = SCALARS.has(type) ? type : WRAPPERS[type];
  if (scalar === undefined && !type.startsWith("google.protobuf.")) {
    return fieldsOf(descriptor, type, value);
  }
  if (typeof value === "object") return undefined;
  const node = new ScalarNode(NOWHERE, value as string | number | boolean, "");
  let read: ReturnType<typeof readScalar> | undefined;
  if (scalar !== undefined) read = readScalar(scalar, node);
  else if (type === "google.protobuf.Duration") read = readDuration(node);
  return read !== undefined && "value" in read && read.value === value ? 0 : undefined;
}

function breaks(
  field: Field,
  value: unknown,
  values: Readonly<Record<string, number>> | undefined,
) {
  // Rules of a message only ask for its presence.
  if (isMap(value)) return false;
  return violation(field, fromValue(value, NOWHERE), values) !== undefined;
}

function enumOf(descriptor: Descriptor, field: Field) {
  return field.e === 1 ? descriptor.enum(field.t) : undefined;
}

/**
 * Makes what a package gets of a value in canonical form, as the Builder would; lists and maps are changed in place. Undefined:
 * only the Builder can, since there are extensions in it, or fields that nothing here implements.
 */
export function fitted(value: unknown, shape: Shape): unknown {
  if (shape.extension !== undefined || shape.section !== undefined || shape.typed !== undefined)
    return undefined;
  if (shape.script !== undefined || shape.lua) return undefined;
  if (shape.dataSource) return inlineText(value);
  if (shape.duration) return typeof value === "string" ? parseDuration(value) : undefined;
  if (Array.isArray(value)) return fittedList(value, shape);
  if (!isMap(value)) return value;
  for (const name in value) {
    const field = shape.field(name);
    if (field.perRoute) return undefined;
    if (field.shape === undefined) {
      if (field.open) continue;
      return undefined;
    }
    const own = value[name];
    const made = fitted(own, field.shape);
    if (made === undefined) return undefined;
    if (made !== own) value[name] = made;
  }
  return value;
}

function fittedList(list: unknown[], shape: Shape): unknown {
  if (shape.preference) return undefined;
  for (let k = 0; k < list.length; k++) {
    const inner = shape.item(k);
    if (inner === undefined) continue;
    const made = fitted(list[k], inner);
    if (made === undefined) return undefined;
    if (made !== list[k]) list[k] = made;
  }
  return list;
}

/** A DataSource whose text stands in the config. */
function inlineText(value: unknown): { readonly text: string } | undefined {
  const text = isMap(value) ? value.inline_string : undefined;
  return typeof text === "string" ? { text } : undefined;
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

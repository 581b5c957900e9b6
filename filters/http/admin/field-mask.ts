export type Json = { readonly [key: string]: unknown };

/** Paths of protobuf's FieldMask, each as its segments. */
export type Mask = readonly (readonly string[])[];

/** `bootstrap.node.id,bootstrap.admin`. As in Envoy, what cannot be a path is one that names nothing, and empty ones do not count. */
export function fieldMask(text: string | undefined): Mask | undefined {
  const paths = (text ?? "").split(",").filter((path) => path !== "");
  return paths.length === 0 ? undefined : paths.map((path) => path.split("."));
}

/** Whether the path names something of the message. A field that could be there, and is not, is none: nothing here tells it from others. */
export function names(message: Json, [field, ...below]: readonly string[]): boolean {
  if (field === undefined || field === "@type" || message[field] === undefined) return false;
  const value = message[field];
  return below.length === 0 || (isMessage(value) && names(value, below));
}

/** What the mask keeps of a message. */
export function trimmed(message: Json, mask: Mask): Json {
  return { "@type": message["@type"], ...keep(message, mask, false) };
}

/**
 * The same for messages of one kind; undefined: it names nothing of any of them, or, as in Envoy, a typed message as a whole. One
 * that lacks what others have stays, and so do the typed messages in it.
 */
export function allTrimmed(messages: readonly Json[], mask: Mask): readonly Json[] | undefined {
  const any = (test: (message: Json, path: readonly string[]) => boolean) =>
    messages.some((message) => mask.some((path) => test(message, path)));
  if (!any(names) || any(isTyped)) return undefined;
  return messages.map((message) => ({ "@type": message["@type"], ...keep(message, mask, true) }));
}

function isTyped(message: Json, path: readonly string[]): boolean {
  const value = path.length === 1 ? message[path[0]!] : undefined;
  return isMessage(value) && value["@type"] !== undefined;
}

function isMessage(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `withEmpty`: typed messages on the way of a path stay though it names nothing in them. */
function keep(message: Json, mask: Mask, withEmpty: boolean): Json | undefined {
  const result: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(message)) {
    const below = mask.filter((path) => path[0] === key).map((path) => path.slice(1));
    if (below.length === 0 || key === "@type") continue;
    if (below.some((path) => path.length === 0)) result[key] = value;
    else if (isMessage(value)) {
      const inner = keep(value, below, withEmpty);
      const type = value["@type"];
      if (inner === undefined && !(withEmpty && type !== undefined)) continue;
      result[key] = type === undefined ? inner : { "@type": type, ...inner };
    }
  }
  return Object.keys(result).length === 0 ? undefined : result;
}

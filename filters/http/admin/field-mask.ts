export type Json = { readonly [key: string]: unknown };

/** Paths of protobuf's FieldMask, each as its segments. */
type Mask = readonly (readonly string[])[];

/** `bootstrap.node.id,bootstrap.admin`. As in Envoy, what cannot be a path is one that names nothing, and empty ones do not count. */
export function fieldMask(text: string | undefined): Mask | undefined {
  const paths = (text ?? "").split(",").filter((path) => path !== "");
  return paths.length === 0 ? undefined : paths.map((path) => path.split("."));
}

/** What the mask keeps of a message, or undefined if it names nothing of it. */
export function trimmed(message: Json, mask: Mask | undefined): Json | undefined {
  if (mask === undefined) return message;
  const kept = keep(message, mask, false);
  return kept && { "@type": message["@type"], ...kept };
}

/** The same for messages of one kind. As in Envoy, one that lacks what others have stays, and so do the typed messages in it. */
export function allTrimmed(messages: readonly Json[], mask: Mask | undefined): readonly Json[] {
  if (mask === undefined || messages.every((message) => keep(message, mask, false) === undefined))
    return mask === undefined ? messages : [];
  return messages.map((message) => ({ "@type": message["@type"], ...keep(message, mask, true) }));
}

/** `withEmpty`: typed messages on the way of a path stay though it names nothing in them. */
function keep(message: Json, mask: Mask, withEmpty: boolean): Json | undefined {
  const result: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(message)) {
    const below = mask.filter((path) => path[0] === key).map((path) => path.slice(1));
    if (below.length === 0 || key === "@type") continue;
    if (below.some((path) => path.length === 0)) result[key] = value;
    else if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      const inner = keep(value as Json, below, withEmpty);
      const type = (value as Json)["@type"];
      if (inner === undefined && !(withEmpty && type !== undefined)) continue;
      result[key] = type === undefined ? inner : { "@type": type, ...inner };
    }
  }
  return Object.keys(result).length === 0 ? undefined : result;
}

import type { UpstreamFilter } from "./cluster.ts";
import { ConfigError, type SetupContext } from "./extension.ts";
import { Extension, type Static, Type } from "./schema.ts";

/** Schema of a chain of upstream filters. The last one has to be `upstream_codec`, which stands for the connection. */
export function UpstreamHttpFilters() {
  return Type.Optional(
    Type.Array(Extension("http", { fields: { disabled: Type.Boolean({ default: false }) } })),
  );
}
type UpstreamHttpFilters = Static<ReturnType<typeof UpstreamHttpFilters>>;

const CODEC = "http/upstream_codec";

/** Sets the filters up. Undefined: the config names none. */
export function openUpstreamFilters(
  config: UpstreamHttpFilters | undefined,
  path: string,
  cx: SetupContext,
  statPrefix: string,
): readonly UpstreamFilter[] | undefined {
  if (config === undefined || config.length === 0) return undefined;
  const last = config.length - 1;
  if (config[last]!.package !== CODEC) {
    throw new ConfigError(
      `${path}[${last}]`,
      `"${config[last]!.name}" is the last upstream filter; add "${CODEC}" behind it`,
    );
  }
  const filters: UpstreamFilter[] = [];
  for (const [k, ref] of config.entries()) {
    if (k === last || ref.disabled) continue;
    if (ref.package === CODEC) throw new ConfigError(`${path}[${k}]`, "has filters behind it");
    filters.push({ name: ref.name, slot: cx.extension("http", ref, { statPrefix }) });
  }
  return filters;
}

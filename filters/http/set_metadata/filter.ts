// Hot path: every request of a chain with it.
import { defineHttpFilter, type HttpStream, type Static, Type } from "@tsproxy/sdk";

const Struct = Type.Record(Type.String(), Type.Unknown());

export const Config = Type.Object({
  /** The older form of the config: one entry, which may overwrite. */
  metadata_namespace: Type.String({ default: "" }),
  value: Type.Optional(Struct),
  metadata: Type.Array(
    Type.Object({
      metadata_namespace: Type.String({ minLength: 1 }),
      allow_overwrite: Type.Boolean({ default: false }),
      value: Type.Optional(Struct),
    }),
    { default: [] },
  ),
});

type Fields = Record<string, unknown>;

interface Entry {
  readonly namespace: string;
  readonly value: Fields;
  readonly overwrites: boolean;
}

/** Gives every request the same dynamic metadata. */
export default defineHttpFilter({
  name: "envoy.filters.http.set_metadata",
  types: ["envoy.extensions.filters.http.set_metadata.v3.Config"],
  config: Config,
  setup(config, cx) {
    const entries = entriesOf(config);
    const denied = cx.stats.counter(`${cx.statPrefix ?? ""}set_metadata.overwrite_denied`);
    const set = ({ metadata }: HttpStream) => {
      for (const { namespace, value, overwrites } of entries) {
        const known = metadata.get(namespace);
        if (known === undefined) metadata.set(namespace, { ...value });
        else if (overwrites) metadata.set(namespace, merged(known, value));
        else denied.inc();
      }
    };
    return (stream) => ({ onRequestHeaders: () => set(stream) });
  },
});

function entriesOf(config: Static<typeof Config>): Entry[] {
  const old =
    config.metadata_namespace === ""
      ? []
      : [{ ...config, allow_overwrite: true as boolean | undefined }];
  return [...old, ...config.metadata].flatMap(({ metadata_namespace, value, allow_overwrite }) =>
    value === undefined
      ? []
      : { namespace: metadata_namespace, value, overwrites: allow_overwrite === true },
  );
}

/** As Envoy's StructUtil: maps are merged, lists are lengthened, anything else is replaced. The old value stays as it is. */
function merged(into: Fields, from: Fields): Fields {
  const out = { ...into };
  for (const [key, value] of Object.entries(from)) {
    const old = Object.hasOwn(out, key) ? out[key] : undefined;
    if (Array.isArray(value) && Array.isArray(old)) out[key] = [...old, ...value];
    else if (isMap(value) && isMap(old)) out[key] = merged(old, value);
    else out[key] = value;
  }
  return out;
}

function isMap(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

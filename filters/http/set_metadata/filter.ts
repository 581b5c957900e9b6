// Hot path: every request of a chain with it.
import {
  defineHttpFilter,
  type HttpStream,
  type Static,
  TYPED_METADATA,
  Type,
  typedMetadataOf,
} from "@tsproxy/sdk";

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
      /** An Any: `@type` and the message's fields. */
      typed_value: Type.Optional(Struct),
    }),
    { default: [] },
  ),
});

type Fields = Record<string, unknown>;

interface Entry {
  readonly namespace: string;
  readonly value: Fields | undefined;
  readonly typed: Fields | undefined;
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
    const set = ({ metadata, filterState }: HttpStream) => {
      for (const { namespace, value, typed, overwrites } of entries) {
        if (typed !== undefined) {
          const all = typedMetadataOf(filterState);
          if (all === undefined || !Object.hasOwn(all, namespace) || overwrites)
            filterState.set(TYPED_METADATA, { ...all, [namespace]: typed });
          else denied.inc();
        }
        if (value === undefined) continue;
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
  return [...old, ...config.metadata].map((entry) => {
    const { metadata_namespace: namespace, value, allow_overwrite } = entry;
    const any = "typed_value" in entry ? entry.typed_value : undefined;
    return { namespace, value, typed: any && fieldsOf(any), overwrites: allow_overwrite === true };
  });
}

/** The fields of the message in an Any. A Struct is a message with one field, `fields`. */
function fieldsOf({ "@type": type, ...fields }: Fields): Fields {
  return String(type).endsWith("google.protobuf.Struct") ? { fields: fields.value ?? {} } : fields;
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

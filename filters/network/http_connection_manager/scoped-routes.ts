import {
  ConfigError,
  headerReader,
  type RequestHeaders,
  type SetupContext,
  type Static,
  Type,
  UInt32,
} from "@tsproxy/sdk";
import { RouteConfig } from "./route-config.ts";
import { RouteTable } from "./route-table.ts";

const Fragment = Type.Object({
  header_value_extractor: Type.Object({
    name: Type.String({ minLength: 1 }),
    element_separator: Type.String({ default: "" }),
    index: Type.Optional(UInt32()),
    element: Type.Optional(
      Type.Object({ separator: Type.String({ minLength: 1 }), key: Type.String({ minLength: 1 }) }),
    ),
  }),
});

/** Envoy's ScopedRoutes, with the route tables in the config itself (no SRDS). */
export const ScopedRoutesConfig = Type.Object({
  name: Type.String({ minLength: 1 }),
  scope_key_builder: Type.Object({ fragments: Type.Array(Fragment, { minItems: 1 }) }),
  scoped_route_configurations_list: Type.Object({
    scoped_route_configurations: Type.Array(
      Type.Object({
        name: Type.String({ minLength: 1 }),
        route_configuration: RouteConfig,
        key: Type.Object({
          fragments: Type.Array(Type.Object({ string_key: Type.String() }), { minItems: 1 }),
        }),
      }),
      { minItems: 1 },
    ),
  }),
});
export type ScopedRoutesConfig = Static<typeof ScopedRoutesConfig>;

/** Reads one part of a request's key; undefined: the request has none, so it belongs to no scope. */
type Extract = (headers: RequestHeaders) => string | undefined;

/** The route tables by scope key. The key of a request is composed from its headers. */
export class ScopedRoutes {
  readonly tables: readonly RouteTable[];
  readonly #extracts: readonly Extract[];
  readonly #byKey = new Map<string, RouteTable>();

  constructor(config: ScopedRoutesConfig, path: string, cx: SetupContext) {
    this.#extracts = config.scope_key_builder.fragments.map((fragment, k) =>
      compileExtract(
        fragment.header_value_extractor,
        `${path}.scope_key_builder.fragments[${k}].header_value_extractor`,
      ),
    );
    const scopes = config.scoped_route_configurations_list.scoped_route_configurations;
    const at = `${path}.scoped_route_configurations_list.scoped_route_configurations`;
    this.tables = scopes.map((scope, k) => {
      const table = new RouteTable(
        scope.route_configuration,
        `${at}[${k}].route_configuration`,
        cx,
      );
      const key = keyOf(scope.key.fragments.map((fragment) => fragment.string_key));
      if (this.#byKey.has(key)) {
        throw new ConfigError(
          `${at}[${k}].key`,
          `scope "${scope.name}" has the key of another one`,
        );
      }
      this.#byKey.set(key, table);
      return table;
    });
  }

  /** Undefined: the request belongs to no scope. */
  find(headers: RequestHeaders): RouteTable | undefined {
    const parts: string[] = [];
    for (const extract of this.#extracts) {
      const part = extract(headers);
      if (part === undefined) return undefined;
      parts.push(part);
    }
    return this.#byKey.get(keyOf(parts));
  }
}

const keyOf = (parts: readonly string[]): string => JSON.stringify(parts);

function compileExtract(
  config: Static<typeof Fragment>["header_value_extractor"],
  path: string,
): Extract {
  const read = headerReader(config.name, `${path}.name`);
  const { element_separator: separator, index, element } = config;
  if ((index === undefined) === (element === undefined)) {
    throw new ConfigError(path, "give one of index and element");
  }
  if (separator === "" && (index ?? 0) > 0) {
    throw new ConfigError(`${path}.index`, "is more than 0, and there is no element_separator");
  }
  const split = (value: string) => (separator === "" ? [value] : value.split(separator));
  if (element === undefined) {
    return (headers) => {
      const value = read(headers)[0];
      return value === undefined ? undefined : split(value)[index!];
    };
  }
  const prefix = element.key + element.separator;
  return (headers) => {
    const value = read(headers)[0];
    if (value === undefined) return undefined;
    for (const each of split(value)) {
      if (each.startsWith(prefix)) return each.slice(prefix.length);
      if (each === element.key) return "";
    }
    return undefined;
  };
}

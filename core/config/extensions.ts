import type { PackageInfo } from "../protocol.ts";
import type { BuilderParts } from "./build.ts";
import { didYouMean, type Place, quote } from "./diagnostic.ts";
import { isNull, MapNode, type Node, plain } from "./document.ts";
import { isEnvoyName, modernName } from "./rewrite.ts";

/** An extension that the config uses, and the package that implements it. */
export interface Use {
  readonly name: string;
  readonly package: PackageInfo;
  readonly config: Node | undefined;
  /** The config in its final form, if it was checked before (an ExtensionRef). */
  readonly built?: unknown;
}

/**
 * An entry of `typed_per_filter_config`. Without a package it only says `disabled`, about a filter that the chain gives another
 * name.
 */
export interface RouteUse {
  readonly package: PackageInfo | undefined;
  readonly config: Node | undefined;
  readonly built?: unknown;
  readonly disabled: boolean | undefined;
}

const KIND_WORDS: { readonly [kind: string]: string } = {
  http: "HTTP filter",
  network: "network filter",
  listener: "listener filter",
  access_log: "access logger",
  transport: "transport socket",
};
const PREFIXES: { readonly [kind: string]: string } = {
  http: "envoy.filters.http.",
  network: "envoy.filters.network.",
  listener: "envoy.filters.listener.",
  access_log: "envoy.access_loggers.",
  transport: "envoy.transport_sockets.",
  tracer: "envoy.tracers.",
  stats_sink: "envoy.stat_sinks.",
};
/** Where packages are found that nobody ships. */
const OWN = "put yours into filters/ beside the config, or name its folder with --filters";
const FILTER_CONFIG = "envoy.config.route.v3.FilterConfig";

/** Finds the package that an entry of the config means: by type URL, full name, alias, `kind/name` or bare name. */
export class ExtensionResolver {
  readonly #parts: BuilderParts;

  constructor(parts: BuilderParts) {
    this.#parts = parts;
  }

  /** True if the entry names an extension that is implemented here. */
  has(kind: string, entry: Node | undefined): boolean {
    if (entry?.kind !== "map") return false;
    const { registry } = this.#parts;
    const typed = entry.get("typed_config");
    const type = typed?.kind === "map" ? typeOf(typed) : undefined;
    if (type !== undefined) return registry.typed(kind, type) !== undefined;
    return registry.find(kind, entry.string("name") ?? "") !== undefined;
  }

  /** Called for an entry that another one is preferred to. `isUnknown`: it came before that one, so a warning is reported. */
  leaveOut(entry: Node | undefined, isUnknown: boolean): void {
    if (entry?.kind !== "map") return;
    const { normaliser, report } = this.#parts;
    const typed = entry.get("typed_config");
    if (typed !== undefined && normaliser.loose.get(typed)?.isStruct === true)
      normaliser.loose.delete(typed);
    const name = entry.get("name");
    const place = name?.place ?? entry.place;
    const what = quote(entry.string("name") ?? "");
    if (isUnknown) report.warn(place, `${what} is not implemented here; the next one is taken`);
  }

  /** Resolves an entry. `skipped`: an optional one that is not implemented. Undefined: an error has been reported. */
  use(kind: string, node: Node): Use | "skipped" | undefined {
    const { report, registry } = this.#parts;
    if (node.kind !== "map") {
      report.error(
        node.place,
        `${article(word(kind))} belongs here: a map with name and typed_config`,
      );
      return undefined;
    }
    this.#canonical(node);
    const name = node.string("name") ?? "";
    const resolved = this.#parts.resolved ? node.string("package") : undefined;
    const known = registry.packages.find((p) => p.package === resolved);
    if (known !== undefined) {
      const config = node.get("config") ?? new MapNode(node.place);
      this.#parts.normaliser.loose.delete(config);
      return { name, package: known, config, built: plain(config) };
    }
    const discovery = node.entries.get("config_discovery");
    if (discovery !== undefined) {
      report.error(discovery.place, "known to Envoy, not implemented here", "write typed_config");
      return undefined;
    }
    const typed = node.get("typed_config");
    const short = node.entries.get("config");
    if (short !== undefined) this.#parts.normaliser.loose.delete(short.value);
    if (typed !== undefined && short !== undefined) {
      report.error(short.place, '"config" stands beside "typed_config"', "keep one of them");
      return undefined;
    }
    if (
      typed === undefined ||
      (typed.kind === "map" && !typed.has("@type") && this.#parts.era === "v2")
    )
      return this.#byName(kind, node, name, short?.value ?? typed);
    return this.#byType(kind, node, name, typed);
  }

  /** Normalises an entry that no protobuf message describes: one within the config of a dropped-in filter. */
  #canonical(node: MapNode): void {
    if (node.message !== undefined) return;
    for (const [from, to] of [
      ["typedConfig", "typed_config"],
      ["isOptional", "is_optional"],
    ] as const) {
      const entry = node.entries.get(from);
      if (entry === undefined) continue;
      node.delete(from);
      node.entries.set(to, entry);
    }
    const typed = node.entries.get("typed_config");
    if (typed !== undefined && !isNull(typed.value))
      node.set(
        "typed_config",
        this.#parts.normaliser.message("google.protobuf.Any", typed.value),
        typed.place,
      );
  }

  #byType(kind: string, node: MapNode, name: string, typed: Node): Use | "skipped" | undefined {
    const { registry, normaliser, report } = this.#parts;
    const type = typed.kind === "map" ? typeOf(typed) : undefined;
    if (typed.kind !== "map" || type === undefined) return undefined;
    // A UDP listener has its filter in listener_filters.
    const found =
      registry.typed(kind, type) ?? (kind === "listener" ? registry.typed("udp", type) : undefined);
    if (found !== undefined) {
      normaliser.loose.delete(typed);
      return { name: name === "" ? found.name : name, package: found, config: typed };
    }
    if (isTrue(node.get("is_optional"))) return this.#skip(node, typed, name);
    const other = registry.anyTyped(type);
    const place = typed.get("@type")?.place ?? typed.place;
    if (other !== undefined)
      report.error(
        place,
        `${other.package} is ${article(word(other.kind))}; ${article(word(kind))} belongs here`,
      );
    else if (normaliser.descriptor.knows(type)) {
      report.unservable(place, `Envoy's ${this.#envoyName(type)} is not implemented here`);
      if (report.explains) return this.#leave(typed);
    } else this.#noType(kind, typed, type, place);
    return undefined;
  }

  #noType(kind: string, typed: MapNode, type: string, place: Place): void {
    const { normaliser, registry, report } = this.#parts;
    normaliser.loose.delete(typed);
    const own = registry.packages.filter((p) => p.kind === kind).flatMap((p) => p.types);
    const near = didYouMean(type, [...own, ...normaliser.descriptor.types()]);
    report.error(place, `no ${word(kind)} has the type "${type}"`, near);
  }

  #leave(typed: Node): "skipped" {
    this.#parts.normaliser.loose.delete(typed);
    return "skipped";
  }

  #skip(node: MapNode, typed: Node | undefined, name: string): "skipped" {
    if (typed !== undefined) this.#leave(typed);
    const place = node.get("name")?.place ?? node.place;
    this.#parts.report.warn(
      place,
      `optional filter ${quote(name)} is not implemented here and left out`,
    );
    return "skipped";
  }

  #byName(
    kind: string,
    node: MapNode,
    name: string,
    config: Node | undefined,
  ): Use | "skipped" | undefined {
    const { registry, report, era, normaliser } = this.#parts;
    const place = node.get("name")?.place ?? node.place;
    if (name === "") {
      report.error(node.place, '"name" is required');
      return undefined;
    }
    const found =
      registry.find(kind, name) ??
      (kind === "listener" ? registry.find("udp", name) : undefined) ??
      (isEnvoyName(name)
        ? registry.named(kind, modernName(name, PREFIXES[kind] ?? "envoy."))
        : undefined);
    if (found === undefined) {
      if (isTrue(node.get("is_optional"))) return this.#skip(node, undefined, name);
      return this.#noSuch(kind, name, place);
    }
    if (
      isEnvoyName(name) &&
      found.origin === "shipped" &&
      era === "v3" &&
      node.message !== undefined
    ) {
      const type = found.types.find((t) => normaliser.descriptor.knows(t)) ?? found.types[0];
      const line = `typed_config: {"@type": type.googleapis.com/${type}}`;
      const short = `, or name it "${found.package}"`;
      report.error(place, `"${name}" needs a typed_config`, `add ${line}${short}`);
      return undefined;
    }
    return { name, package: found, config: this.#bare(node, found.types, config, place) };
  }

  /** The config of a short form: read as the package's message if Envoy has it, else left to the package's schema. */
  #bare(node: MapNode, types: readonly string[], config: Node | undefined, place: Place): Node {
    const { normaliser } = this.#parts;
    const given = config === undefined || isNull(config) ? new MapNode(place) : config;
    const type = types.find((t) => normaliser.descriptor.message(t) !== undefined);
    if (given.kind !== "map" || type === undefined) return given;
    const built = normaliser.any(given, type);
    node.delete("config");
    node.set("typed_config", built);
    return built;
  }

  #noSuch(kind: string, name: string, place: Place): "skipped" | undefined {
    const { registry, report, normaliser } = this.#parts;
    const other = registry.anyNamed(name);
    if (other !== undefined && other.kind !== kind) {
      report.error(
        place,
        `"${name}" is ${article(word(other.kind))}; ${article(word(kind))} belongs here`,
      );
      return undefined;
    }
    const broken = registry.brokenFile(name.replace(new RegExp(`^${kind}/`), ""));
    if (broken !== undefined) {
      report.error(place, `${broken} is ${quote(name)} and has errors of its own`, "mend those");
      return undefined;
    }
    const prefix = PREFIXES[kind] ?? "envoy.";
    const modern = modernName(name.replace(new RegExp(`^${kind}/`), "envoy."), prefix);
    if (normaliser.descriptor.extensions.has(modern)) {
      report.unservable(place, `Envoy's ${modern} is not implemented here`);
      return report.explains ? "skipped" : undefined;
    }
    // Only the last parts of names are compared: what stands before is the same in all names of a kind.
    const byTail = new Map(registry.names(kind).map((n) => [tail(n), n]));
    const near = didYouMean(tail(name), byTail.keys(), (found) => byTail.get(found)!);
    report.error(place, `no ${word(kind)} ${quote(name)}`, near ?? OWN);
    return undefined;
  }

  #envoyName(type: string): string {
    for (const [name, message] of this.#parts.normaliser.descriptor.extensions)
      if (message === type) return name;
    return `"${type}"`;
  }

  /** Resolves an entry of typed_per_filter_config. Undefined: an error has been reported, or the entry is left out. */
  routeUse(key: string, place: Place, node: Node): RouteUse | undefined {
    const { normaliser, registry, report } = this.#parts;
    if (node.kind !== "map") return undefined;
    const type = typeOf(node);
    if (type === FILTER_CONFIG) return this.#filterConfig(key, place, node);
    const found = type === undefined ? this.#routePackage(key) : registry.near("http", type);
    if (found === undefined) {
      if (type !== undefined && normaliser.descriptor.knows(type))
        this.#leaveRoute(
          node,
          place,
          `per-route config of Envoy's "${type}" is not implemented here`,
        );
      else if (type === undefined && this.#parts.era === "v2") {
        normaliser.loose.delete(node);
        this.#noSuch("http", key, place);
      }
      return undefined;
    }
    normaliser.loose.delete(node);
    if (type === undefined && isOnlyDisabled(node, found.routeSchema))
      return { package: found, config: undefined, disabled: isTrue(node.get("disabled")) };
    if (found.routeSchema === undefined || found.routeSchema === null) {
      const what =
        found.origin === "shipped"
          ? "per-route config is not implemented here"
          : "takes no per-route config";
      report.error(place, `${found.package}: ${what}`);
      return undefined;
    }
    const config = type === undefined ? this.#routeMessage(found, node) : node;
    return { package: found, config, disabled: undefined };
  }

  #leaveRoute(node: MapNode, place: Place, message: string): void {
    const { normaliser, report } = this.#parts;
    report.unservable(place, message);
    if (report.explains) normaliser.loose.delete(node);
  }

  /**
   * The package that a per-route config without a type means by its key. Any file may use the names of tsproxy, only v2 those of
   * Envoy.
   */
  #routePackage(key: string): PackageInfo | undefined {
    const { registry, era } = this.#parts;
    const found =
      registry.find("http", key) ?? registry.named("http", modernName(key, PREFIXES.http!));
    if (found?.origin === "shipped" && isEnvoyName(key) && era === "v3") return undefined;
    return found;
  }

  #routeMessage(found: PackageInfo, node: MapNode): Node {
    const { normaliser } = this.#parts;
    const main = found.types.find((t) => normaliser.descriptor.message(t) !== undefined);
    if (main === undefined) return node;
    const perRoute = normaliser.descriptor.siblings(main).find((t) => /PerRoute(Config)?$/.test(t));
    return normaliser.any(node, perRoute ?? main);
  }

  #filterConfig(key: string, place: Place, node: MapNode): RouteUse | undefined {
    const { registry } = this.#parts;
    const disabled = isTrue(node.get("disabled")) ? true : undefined;
    const inner = node.get("config");
    // An empty `config`, as Envoy's documents write it, switches the filter on as its chain configures it.
    const isEmpty = inner?.kind === "map" && inner.entries.size === 0;
    if (inner === undefined || isEmpty) {
      if (isEmpty) this.#parts.normaliser.loose.delete(inner);
      const found = registry.find("http", key);
      return { package: found, config: undefined, disabled: disabled ?? false };
    }
    const type = inner.kind === "map" ? typeOf(inner) : undefined;
    if (
      isTrue(node.get("is_optional")) &&
      (type === undefined || registry.near("http", type) === undefined)
    ) {
      this.#parts.normaliser.loose.delete(inner);
      this.#parts.report.warn(place, "this optional config is not implemented here and left out");
      return undefined;
    }
    const use = this.routeUse(key, inner.place, inner);
    return use === undefined ? undefined : { ...use, disabled: disabled ?? false };
  }
}

function typeOf(node: MapNode): string | undefined {
  const url = node.string("@type");
  return url?.slice(url.lastIndexOf("/") + 1);
}
function tail(name: string): string {
  return name.slice(Math.max(name.lastIndexOf("/"), name.lastIndexOf(".")) + 1);
}
function isTrue(node: Node | undefined): boolean {
  return node?.kind === "scalar" && (node.value === true || node.value === "true");
}
function word(kind: string): string {
  return KIND_WORDS[kind] ?? kind.replaceAll("_", " ");
}
function article(noun: string): string {
  return `${/^[aeiouH]/.test(noun) ? "an" : "a"} ${noun}`;
}

/** True of a map with nothing but `disabled`, which the package itself has no field for: it says what Envoy's FilterConfig does. */
function isOnlyDisabled(node: MapNode, routeSchema: unknown): boolean {
  if (node.entries.size !== 1 || !node.has("disabled")) return false;
  const { properties } = (routeSchema ?? {}) as { readonly properties?: object };
  return properties === undefined || !("disabled" in properties);
}

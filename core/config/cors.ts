import { MapNode, type Node, scalar } from "./document.ts";

const POLICY = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy";
const SHORT_NAMES = ["envoy.cors", "envoy.filters.http.cors", "http/cors"];

/**
 * Moves the deprecated field `cors` of virtual hosts and routes, which Envoy still reads, into their per-route config of the
 * connection manager's CORS filter. Without such a filter the field is only removed, as it has no effect.
 */
export function moveCors(manager: MapNode): void {
  const filter = manager.list("http_filters").find(isCors);
  const name = filter?.kind === "map" ? filter.string("name") : undefined;
  for (const host of virtualHosts(manager)) {
    if (host.unread !== undefined) continue;
    move(host, host, name);
    for (const route of host.list("routes")) {
      const isRead = route.kind === "map" && route.unread === undefined;
      const action = isRead ? route.map("route") : undefined;
      if (action !== undefined) move(action, route as MapNode, name);
    }
  }
}

function isCors(filter: Node): boolean {
  if (filter.kind !== "map") return false;
  const type = filter.map("typed_config")?.string("@type");
  if (type !== undefined) return /\.cors\.v[23]\.Cors$/.test(type);
  return SHORT_NAMES.includes(filter.string("name") ?? "");
}

function* virtualHosts(manager: MapNode): Generator<MapNode> {
  const tables = [manager.map("route_config")];
  const scoped = manager.map("scoped_routes")?.map("scoped_route_configurations_list");
  for (const scope of scoped?.list("scoped_route_configurations") ?? [])
    if (scope.kind === "map") tables.push(scope.map("route_configuration"));
  for (const table of tables)
    for (const host of table?.list("virtual_hosts") ?? []) if (host.kind === "map") yield host;
}

/** Moves `from.cors` into the per-route config of `to` for `filter`, unless `to` has one. Without a `filter`, only removes it. */
function move(from: MapNode, to: MapNode, filter: string | undefined): void {
  const policy = from.map("cors");
  if (policy === undefined) return;
  const { place } = from.entries.get("cors")!;
  from.delete("cors");
  if (filter === undefined) return;
  // v2 files call the field `per_filter_config`; it is renamed when the virtual host or route itself is rewritten.
  const field = to.has("per_filter_config") ? "per_filter_config" : "typed_per_filter_config";
  const configs = to.map(field) ?? new MapNode(place);
  if (configs.has(filter)) return;
  const config = new MapNode(policy.place);
  config.set("@type", scalar(place, POLICY), place);
  for (const [key, { value, place: at }] of policy.entries) config.set(key, value, at);
  configs.set(filter, config, place);
  to.set(field, configs, place);
}

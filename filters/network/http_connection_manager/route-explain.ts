import { type RouteAction, Runtime, type RuntimeValue, type SetupContext } from "@tsproxy/sdk";
import type { Config } from "./config.ts";
import { TestRequest, tableContext } from "./route-check.ts";
import { RouteTable } from "./route-table.ts";
import { ScopedRoutes } from "./scoped-routes.ts";

export interface ExplainInput {
  readonly config: Config;
  /** Names of the clusters that there are. */
  readonly clusters: readonly string[];
  /** What the config's layers say. */
  readonly runtime: readonly (readonly [key: string, value: RuntimeValue])[];
  readonly method: string;
  readonly authority: string;
  readonly path: string;
  readonly tls: boolean;
  readonly headers: readonly (readonly [string, string])[];
}

/** Returns lines for people: the virtual host, route and cluster of a request, and why earlier routes did not match. */
export function explainRoute(input: ExplainInput, cx: SetupContext): readonly string[] {
  const { config } = input;
  const subject = new TestRequest({
    input: {
      method: input.method,
      authority: input.authority,
      path: input.path,
      ssl: input.tls,
      additional_request_headers: input.headers.map(([key, value]) => ({ key, value })),
    },
  });
  const runtime = new Runtime();
  runtime.replace(input.runtime);
  const context = tableContext(cx, runtime);
  const table =
    config.route_config === undefined
      ? new ScopedRoutes(config.scoped_routes!, "scoped_routes", context).find(subject.request)
      : new RouteTable(config.route_config, "route_config", context);
  if (table === undefined) return ["scope: none has the request's key: 404"];
  const found = table.explain(subject);
  if (found === undefined) {
    return [`virtual host: none has the domain "${input.authority}": 404`];
  }
  const lines = [`virtual host: ${found.virtualHost}`];
  for (const { label, why } of found.skipped)
    lines.push(`  not ${found.virtualHost} ${label}: ${why}`);
  const { route } = found;
  if (route === undefined) return [...lines, "route: none matches: 404"];
  lines.push(`route: ${found.label}`);
  const { action } = route;
  if (action.type === "redirect") {
    return [
      ...lines,
      `redirect: ${action.status} to ${action.location(subject.request, subject as never)}`,
    ];
  }
  if (action.type === "direct_response") return [...lines, `direct response: ${action.status}`];
  lines.push(`cluster: ${clusterLine(action, input.clusters)}`);
  const before = `${subject.request.authority}${subject.request.path}`;
  // A weighted cluster's host is among the header rules.
  route.editRequest(subject.request, subject.info, subject as never);
  action.rewrite(subject.request, false, subject as never);
  const after = `${subject.request.authority}${subject.request.path}`;
  if (after !== before) lines.push(`rewritten to: ${after}`);
  return lines;
}

function clusterLine(action: RouteAction, clusters: readonly string[]): string {
  const { cluster, clusterNotFoundStatus: status } = action;
  if (cluster === undefined) return `none: the header that names it is missing: ${status}`;
  return clusters.includes(cluster) ? cluster : `${cluster}: there is none of that name: ${status}`;
}

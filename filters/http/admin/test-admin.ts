import {
  Chunk,
  type ClusterManagerStatus,
  type HttpStream,
  RequestHeaders,
  type ResponseHeaders,
  utf8Decode,
  utf8Encode,
} from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import type { ConfigSnapshot, PackageSnapshot, StatsSnapshot } from "./core-data.ts";
import admin from "./filter.ts";

/** A cluster with a host on each of these ports. */
export const cluster = (
  name: string,
  hosts: number[] = [],
): ClusterManagerStatus["clusters"][number] => ({
  name,
  observabilityName: name,
  addedViaApi: false,
  thresholds: [
    { maxConnections: 1024, maxPendingRequests: 1024, maxRequests: 1024, maxRetries: 3 },
    { maxConnections: 1024, maxPendingRequests: 1024, maxRequests: 1024, maxRetries: 3 },
  ],
  hosts: hosts.map((port) => ({
    ip: "127.0.0.1",
    port,
    key: `127.0.0.1:${port}`,
    hostname: "",
    weight: 1,
    priority: 0,
    healthStatus: "UNKNOWN",
    healthFlags: "healthy",
    canary: false,
  })),
});

/** Stats of a test: what is at 0 was never written. */
interface GivenStats {
  readonly counters?: readonly (readonly [string, number])[];
  readonly gauges?: readonly (readonly [string, number])[];
  readonly histograms?: StatsSnapshot["histograms"];
}
const written = (list: readonly (readonly [string, number])[] = []) =>
  list.map(([name, value]) => [name, value, value !== 0] as const);

interface World {
  stats?: GivenStats;
  state?: string;
  clusters?: ClusterManagerStatus;
  bootstrap?: ConfigSnapshot["bootstrap"];
  packages?: readonly PackageSnapshot[];
}

/** Plays core for a proxy of two listeners; answers the names of the operations that have been asked for, as they come. */
function playCore(cx: TestContext, world: World): string[] {
  const ran: string[] = [];
  const operation = (name: string, answer: unknown) =>
    cx.operations.set(name, () => {
      ran.push(name);
      return answer;
    });
  const { counters, gauges, histograms = [] } = world.stats ?? {};
  operation("core.stats", { counters: written(counters), gauges: written(gauges), histograms });
  operation("core.server_info", {
    version: "0.1.0",
    state: world.state ?? "LIVE",
    uptimeSeconds: 35.9,
    options: { concurrency: 2, config_path: "front.yaml" },
    node: { id: "n1", cluster: "c1", locality: { region: "r" } },
  });
  operation("core.listeners", [
    { name: "main", address: { ip: "127.0.0.1", port: 10000 }, additional: [] },
    {
      name: "two",
      address: { ip: "::1", port: 1 },
      additional: [{ ip: "", port: 0, path: "/run/two" }],
    },
  ]);
  operation("core.packages", world.packages ?? []);
  const bootstrap = world.bootstrap ?? {};
  operation("core.config", { bootstrap, loadedAt: "2026-11-20T09:30:50.219Z" });
  for (const name of ["healthcheck", "drain_listeners", "reopen_logs", "change_lookups"])
    operation(`core.${name}`, {});
  for (const name of ["reset_counters", "quit"]) operation(`core.${name}`, {});
  operation("core.runtime_modify", true);
  const bytes = { unmapped: 0, free: 1, cached: 0, physical: 3 };
  operation("core.memory", { allocated: 1, heapSize: 2, ...bytes });
  operation("core.log_levels", [
    ["http/router", "info"],
    ["main", "info"],
  ]);
  operation("core.recent_lookups", { total: 7 });
  return ran;
}

/** The filter in a proxy that a test describes. */
export function start(world: World = {}) {
  const cx = new TestContext();
  const ran = playCore(cx, world);
  cx.clusters.status = () => world.clusters ?? { clusters: [] };
  const factory = cx.setup(admin, {});

  function open(method: string, path: string) {
    const request = new RequestHeaders();
    request.method = method;
    request.path = path;
    const sent = {
      status: 0,
      headers: {} as Record<string, string>,
      body: "",
      bytes: [] as number[],
      pieces: 0,
      ended: false,
    };
    const hooks = { onSend: () => {} };
    const filter = factory({
      request,
      responder: {
        sendHeaders(headers: ResponseHeaders, endStream: boolean) {
          sent.status = headers.status;
          sent.headers = Object.fromEntries(headers);
          sent.ended = endStream;
        },
        sendBody(memory: Uint8Array, at: number, end: number, endStream: boolean) {
          sent.body += utf8Decode(memory, at, end);
          sent.bytes.push(...memory.subarray(at, end));
          sent.pieces++;
          sent.ended = endStream;
          hooks.onSend();
        },
      },
    } as unknown as HttpStream);
    return { filter, request, sent, hooks };
  }

  async function ask(path: string, method = "GET", { form = "", accept = "" } = {}) {
    const { filter, request, sent } = open(method, path);
    if (accept !== "") request.append("accept", accept);
    if (form !== "") request.append("content-type", "application/x-www-form-urlencoded");
    filter.onRequestHeaders!(request, form === "");
    const bytes = utf8Encode(form);
    if (form !== "") filter.onRequestBody!(new Chunk(bytes, 0, bytes.length), true);
    await cx.turn();
    filter.onEnd!();
    return sent;
  }
  return { cx, ran, open, ask };
}

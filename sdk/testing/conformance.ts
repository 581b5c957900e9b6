import type { AccessLogger } from "../access-log.ts";
import { Chunk } from "../bytes.ts";
import type { BalancerPolicy } from "../cluster.ts";
import { ConfigError, type Definition } from "../extension.ts";
import { RequestHeaders, ResponseHeaders } from "../headers.ts";
import type { HttpFilterFactory } from "../http.ts";
import type { ListenerFilterFactory, NetworkFilterFactory } from "../network.ts";
import { balancerFor, TestHost } from "./cluster.ts";
import { httpConformance } from "./conformance-http.ts";
import { networkConformance } from "./conformance-network.ts";
import { TestContext } from "./context.ts";
import { withDefaults } from "./defaults.ts";
import { testStreamInfo } from "./http.ts";
import { groupPlace, type Place } from "./place.ts";

/** One thing that holds for every package of a kind: `run` throws if it does not for this one. */
export interface ConformanceCheck {
  readonly name: string;
  run(): void | Promise<void>;
}

/** A fresh use of the package in a context of its own, as after a start of the proxy. */
export type FreshUse<T> = () => Promise<{ readonly cx: TestContext; readonly value: T }>;

/** Why the package refuses this config: required fields are missing, or `setup` says so. Undefined: it accepts the config. */
export function refusal(definition: Definition, config: unknown = {}): string | undefined {
  const filled = withDefaults(definition.config, config) as Record<string, unknown>;
  const required = (definition.config.required ?? []) as readonly string[];
  const missing = required.filter((name) => !(name in filled));
  if (missing.length > 0) return `its config must have ${missing.join(", ")}`;
  try {
    const cx = new AnyClusterContext();
    cx.setup(definition, filled);
    cx.dispose();
  } catch (error) {
    // Any other error is a fault of the package, which the checks will show.
    if (error instanceof ConfigError) return error.message;
  }
  return undefined;
}

/**
 * What holds for every package of a kind: nothing that a peer sends makes it throw, what it keeps is bounded, its stream may end in
 * any hook, it leaves nothing behind, and its results do not depend on how bytes are cut. `tsproxy filter test` runs
 * these for each package with the config `{}`, or with `sampleConfig` where fields are required; a package that has more to show
 * with another one runs them in a test of its own:
 *
 *     describe.each([{ max_bytes: 4 }, { max_bytes: 1e6 }])("with %o", (config) => {
 *       for (const { name, run } of conformance(filter, config)) test(name, run);
 *     });
 *
 * `config` is as `setup` gets it; defaults are filled in. `place`: where the package runs, as `places` makes them; absent: in the
 * test's isolate. Kinds without checks (services, clusters, codecs) have an empty list.
 */
export function conformance(
  definition: Definition,
  config: unknown = {},
  place: Place = groupPlace(definition, () => new AnyClusterContext()),
): readonly ConformanceCheck[] {
  const fresh = (() => place.use(config)) as FreshUse<never>;
  // The memory of another isolate cannot be measured here; its quota bounds it.
  const measured = ({ name }: ConformanceCheck): boolean =>
    place.name === "group" || !name.startsWith("bounds");
  switch (definition.kind) {
    case "http":
      return definition.terminal === true
        ? []
        : httpConformance(fresh as FreshUse<HttpFilterFactory>).filter(measured);
    case "network":
      return networkConformance(fresh as FreshUse<NetworkFilterFactory>).filter(measured);
    case "listener":
      return listenerConformance(fresh as FreshUse<ListenerFilterFactory>);
    case "access_log":
      return accessLogConformance(fresh as FreshUse<AccessLogger>);
    case "balancer":
      return balancerConformance(fresh as FreshUse<BalancerPolicy>);
    default:
      return [];
  }
}

/** A context in which every cluster exists, and answers `{}`. */
class AnyClusterContext extends TestContext {
  override readonly clusters = {
    get: (name: string) => this.clusterMap.get(name) ?? this.cluster(name, () => ({ body: "{}" })),
  };
}

/** Bytes that no parser may stumble over. */
export const ODD_BYTES: readonly string[] = [
  "\0",
  "\xff\xfe\xfd",
  "\r\n\r\n",
  "{",
  "\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
  "\xed\xa0\x80\xc0\x80",
  "PROXY TCP4 ",
  Array.from({ length: 256 }, (_, k) => String.fromCharCode(k)).join(""),
  "a".repeat(100_000),
];

const CLIENT = { ip: "192.0.2.1", port: 40_000 };

function listenerConformance(fresh: FreshUse<ListenerFilterFactory>): ConformanceCheck[] {
  const look = async (text: string): Promise<void> => {
    const { cx, value: create } = await fresh();
    const protocols = { transportProtocol: "", serverName: "", applicationProtocols: [] };
    const socket = { remoteAddress: CLIENT, localAddress: CLIENT, ...protocols };
    const filter = create(socket);
    // Each call gets all bytes that have come so far: none, one, two, and so on.
    for (let size = 0; size <= text.length; size = size < 64 ? size + 1 : size * 2) {
      const bytes = Uint8Array.from(text.slice(0, size), (char) => char.charCodeAt(0));
      const result = filter.onBytes(new Chunk(bytes, 0, bytes.length));
      await cx.turn();
      const answer = await result;
      if (typeof answer === "number" && (answer < 0 || answer > size || !Number.isInteger(answer)))
        throw new Error(`onBytes answered ${answer} of ${size} bytes`);
      if (answer !== "more") return;
    }
    filter.onAbandoned?.();
    await cx.turn();
  };
  return [
    {
      name: "takes no more bytes than there are, and throws at none",
      run: async () => {
        for (const text of ODD_BYTES) await look(text);
      },
    },
  ];
}

function accessLogConformance(fresh: FreshUse<AccessLogger>): ConformanceCheck[] {
  const run = async (): Promise<void> => {
    const { cx, value } = await fresh();
    const request = new RequestHeaders();
    const response = new ResponseHeaders();
    for (const text of ODD_BYTES)
      request.append("x-odd", text.slice(0, 8000).replace(/[^\x20-\x7e\x80-\xff]/g, ""));
    for (const head of [undefined, request])
      for (const answer of [undefined, response])
        value.log({
          info: testStreamInfo(),
          request: head,
          response: answer,
          trailers: undefined,
        });
    for (let k = 0; k < 60; k++) cx.clock.advance(1000);
    await cx.turn();
    cx.dispose();
  };
  return [{ name: "logs requests without an answer, and connections without a request", run }];
}

function balancerConformance(fresh: FreshUse<BalancerPolicy>): ConformanceCheck[] {
  const run = async (): Promise<void> => {
    const made = (await fresh()).value as BalancerPolicy & { create: unknown };
    // A policy without `create` chooses between priority levels, not between hosts.
    if (!("create" in made)) return;
    const all = Array.from({ length: 5 }, (_, k) => new TestHost({ ip: "192.0.2.9", port: k + 1 }));
    for (let count = 0; count <= all.length; count++) {
      const hosts = all.slice(0, count);
      const balancer = balancerFor(made, hosts);
      for (let k = 0; k < 100; k++) {
        const host = balancer.choose({});
        if (host !== undefined && !hosts.includes(host as TestHost))
          throw new Error(`of ${count} hosts it chose another one: ${host.key}`);
        if (host !== undefined) (host as TestHost).activeRequests++;
      }
    }
  };
  return [{ name: "chooses one of its hosts, and none of none", run }];
}

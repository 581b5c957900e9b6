import { readFileSync } from "node:fs";
import http from "node:http";
import { freePort } from "../../core/command/free-port.ts";
import {
  address,
  bootstrap,
  cluster,
  direct,
  http as httpFilter,
  type Json,
  listener,
  route,
} from "./config.ts";
import { Proxy } from "./proxy.ts";

/** Code of a filter of each kind that loops for as long as it is let, and where the config names it. */
interface Culprit {
  /** The package to blame. */
  readonly name: string;
  readonly files?: Readonly<Record<string, string>>;
  /** HTTP filters before the router, more of the connection manager's config, and network filters, for a listener of their own. */
  readonly httpFilters?: readonly Json[];
  readonly manager?: Json;
  readonly networkFilters?: readonly Json[];
  readonly cluster?: Json;
  /** What a request for /bad gets once the failure policy answers. */
  readonly answer: number | string;
}

const OFF = {
  "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
  disabled: true,
};
const LOOP = "for (;;) {}";
const BAD = [{ name: "bad", config: {} }];
const dropIn = (define: string, setup: string) => ({
  "filters/bad.ts": `import { ${define}, Type } from "@tsproxy/sdk";
export default ${define}({ name: "bad", config: Type.Object({}), setup: () => (${setup}) });`,
});

export const CULPRITS = {
  http: {
    name: "http/bad",
    files: dropIn(
      "defineHttpFilter",
      `() => ({ onRequestHeaders(h) { if (h.path === "/bad") ${LOOP} } })`,
    ),
    httpFilters: BAD,
    answer: 500,
  },
  script: {
    name: "http/script",
    httpFilters: [
      { name: "http/script", config: { onRequest: `if (req.path === "/bad") ${LOOP}` } },
    ],
    answer: 500,
  },
  lua: {
    name: "http/lua",
    httpFilters: [
      {
        name: "http/lua",
        config: {
          default_source_code: {
            inline_string: `function envoy_on_request(handle)
  if handle:headers():get(":path") == "/bad" then string.rep("a", 30000):find(string.rep("a*", 30000) .. "b") end
end`,
          },
        },
      },
    ],
    answer: 500,
  },
  network: {
    name: "network/bad",
    files: dropIn("defineNetworkFilter", `{ create: () => ({ onData() { ${LOOP} } }) }`),
    networkFilters: BAD,
    answer: "ECONNRESET",
  },
  access_log: {
    name: "access_log/bad",
    files: dropIn(
      "defineAccessLogger",
      `{ log({ request }) { if (request?.path === "/bad") ${LOOP} } }`,
    ),
    manager: { access_log: BAD },
    answer: 200,
  },
  balancer: {
    name: "balancer/bad",
    files: dropIn("defineBalancer", `{ create: () => ({ choose() { ${LOOP} } }) }`),
    cluster: { load_balancing_policy: { policies: [{ typed_extension_config: BAD[0] }] } },
    answer: 503,
  },
} as const satisfies Readonly<Record<string, Culprit>>;
export type Kind = keyof typeof CULPRITS;

/** A filter that every request passes, on the same threads: nobody must blame it. */
const GOOD = {
  "filters/good.ts": `import { defineHttpFilter, Type } from "@tsproxy/sdk";
export default defineHttpFilter({ name: "good", config: Type.Object({}),
  setup: () => () => ({ onRequestHeaders(h) { h.set("x-good", "1"); } }) });`,
};

interface Configured {
  readonly json: Json;
  /** Where / is asked for, and where /bad is. */
  readonly port: number;
  readonly badPort: number;
}

async function config(culprit: Culprit): Promise<Configured> {
  const { httpFilters = [], manager = {}, networkFilters = [], cluster: more } = culprit;
  // Every process must have the same port.
  const port = await freePort();
  const badRoute = more === undefined ? direct("/bad", "passed") : route("/bad", "chosen");
  const filters = [{ name: "good", config: {} }, ...httpFilters];
  // The failure policy is to answer for /bad alone.
  const off = Object.fromEntries(httpFilters.map(({ name }) => [name, OFF]));
  const healthy = { ...direct("/", "healthy"), typed_per_filter_config: off };
  const hcm = httpFilter([badRoute, healthy], manager, filters);
  const clusters = more === undefined ? [] : [cluster("chosen", [port], more)];
  const main = listener("main", hcm, { address: address(port) });
  if (networkFilters.length === 0)
    return { json: bootstrap([main], clusters), port, badPort: port };
  const badPort = await freePort();
  const chain = [{ filters: [...networkFilters, hcm] }];
  const bad = listener("bad", hcm, { address: address(badPort), filter_chains: chain });
  return { json: bootstrap([main, bad], clusters), port, badPort };
}

export interface Crashed {
  readonly proxy: Proxy;
  /** Answers for /bad and for / once the process without the filter serves. */
  readonly answers: readonly (number | string)[];
  /** How long nobody served after the second crash. */
  readonly awayMs: number;
}

/** Kills the process of a proxy twice, the second time while it is inside the culprit, as a crash of V8 would. */
export async function crash(kind: Kind, concurrency: number): Promise<Crashed> {
  const culprit: Culprit = CULPRITS[kind];
  const { port, badPort, json } = await config(culprit);
  const files = { ...culprit.files, ...GOOD };
  const proxy = await Proxy.start({ config: json, files, concurrency });
  const served = async (): Promise<void> => {
    while ((await ask(port, "/")) !== 200) await pause();
  };
  let from = proxy.lines.length;
  process.kill(proxy.processes()[0]!, "SIGABRT");
  await proxy.line(/SIGABRT; starting it again at once/);
  // The last line of a start.
  await proxy.line(/^watching /, from);
  from = proxy.lines.length;
  await killInside(proxy, culprit.name, badPort);
  const died = performance.now();
  await served();
  const awayMs = performance.now() - died;
  await proxy.line(/inside the filter/);
  await proxy.line(/^watching /, from);
  return { proxy, answers: [await ask(badPort, "/bad"), await ask(port, "/")], awayMs };
}

/** Asks for /bad until the marks of the process (descriptor 4) show that it is inside the package, and kills it there. */
async function killInside(proxy: Proxy, name: string, port: number): Promise<void> {
  const [pid] = proxy.processes();
  let isAsked = false;
  for (;;) {
    if (!isAsked) {
      isAsked = true;
      void ask(port, "/bad").then(() => {
        isAsked = false;
      });
    }
    if (readFileSync(`/proc/${pid}/fd/4`, "latin1").includes(name)) break;
    await pause();
  }
  process.kill(pid!, "SIGSEGV");
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 1));

function ask(port: number, path: string): Promise<number | string> {
  return new Promise((resolve) => {
    const request = http.get({ host: "127.0.0.1", port, path, agent: false }, (response) => {
      response.resume();
      response.on("end", () => resolve(response.statusCode ?? 0));
    });
    request.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}

/**
 * What a client that opens streams only to reset them costs, and what others lose by it.
 *
 *   node test/bench/resets.ts [--seconds 5] [--clients 50]
 *
 * Measures the streams that the proxy begins before it hangs up, CPU a reset beside CPU a request of polite clients (100 requests/s
 * each, proxied), what those lose while the attack goes on, and how much memory grows. Each has a bar; exits with 1 if one is missed.
 * The proxy has one worker.
 */
import { spawn } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import http2 from "node:http2";
import net, { type AddressInfo } from "node:net";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "5" },
    clients: { type: "string", default: "50" },
  },
});
const MS = Number(values.seconds) * 1000;
/** Half of overload.premature_reset_total_stream_count: as many resets at least are needed before a connection is closed. */
const LIMIT = 250;
const MAX_STREAMS = LIMIT + 200;
const MAX_GROWTH_MIB = 64;
const T = "type.googleapis.com/envoy.extensions.";

const origin = http.createServer((request, response) => {
  request.resume();
  response.end("ok");
});
await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
const [port, admin] = [await freePort(), await freePort()];
const socket = (number: number) => ({
  socket_address: { address: "127.0.0.1", port_value: number },
});
const dir = fs.mkdtempSync(path.join(os.tmpdir(), "tsproxy-resets-"));
const config = path.join(dir, "envoy.json");
fs.writeFileSync(
  config,
  JSON.stringify({
    admin: { address: socket(admin) },
    static_resources: {
      listeners: [
        {
          address: socket(port),
          filter_chains: [
            {
              filters: [
                {
                  name: "hcm",
                  typed_config: {
                    "@type": `${T}filters.network.http_connection_manager.v3.HttpConnectionManager`,
                    stat_prefix: "test",
                    route_config: {
                      virtual_hosts: [
                        {
                          name: "all",
                          domains: ["*"],
                          routes: [{ match: { prefix: "/" }, route: { cluster: "origin" } }],
                        },
                      ],
                    },
                    http_filters: [
                      {
                        name: "router",
                        typed_config: { "@type": `${T}filters.http.router.v3.Router` },
                      },
                    ],
                  },
                },
              ],
            },
          ],
        },
      ],
      clusters: [
        {
          name: "origin",
          // Without it, what is turned away for want of speed, with an attack or without, would count as lost.
          circuit_breakers: {
            thresholds: [
              { max_connections: 100_000, max_pending_requests: 100_000, max_requests: 100_000 },
            ],
          },
          load_assignment: {
            cluster_name: "origin",
            endpoints: [
              {
                lb_endpoints: [
                  { endpoint: { address: socket((origin.address() as AddressInfo).port) } },
                ],
              },
            ],
          },
        },
      ],
    },
  }),
);
const program = path.join(import.meta.dirname, "../../core/bin/tsproxy.js");
const args = [program, "run", "-c", config, "--concurrency", "1", "-l", "error"];
const proxy = spawn(process.execPath, args, { stdio: "inherit" });
while ((await stat("server.state").catch(() => -1)) !== 0)
  await new Promise((resolve) => setTimeout(resolve, 100));

const ATTACK = attackBytes();
// Both once, so that the code is compiled.
await Promise.all([politeClients(1000), attacks(1000)]);
const quiet = await measure(() => politeClients(MS));
const before = memory();
const streams = await stat("http.test.downstream_rq_total");
const alone = await measure(() => attacks(MS));
// Later it is also what waits for the polite clients.
const after = memory();
const resets = (await stat("http.test.downstream_rq_total")) - streams;
const [result] = await Promise.all([politeClients(MS), attacks(MS)]);
const eachRequest = quiet.cpuUs / quiet.result.asked;
const eachReset = alone.cpuUs / resets;
const percentile = (times: readonly number[], of: number) =>
  times.toSorted((a, b) => a - b)[Math.floor(times.length * of)]!.toFixed(1);
const begun = resets / alone.result;
for (const [name, { times }] of [
  ["alone", quiet.result],
  ["under attack", result],
] as const)
  console.log(
    `their time ${name.padEnd(12)}                   p50 ${percentile(times, 0.5)} ms, p99 ${percentile(times, 0.99)} ms`,
  );
const verdicts = [
  verdict("an attacker is disconnected", begun <= MAX_STREAMS, [
    `after ${begun.toFixed(0)} streams, at most ${MAX_STREAMS}`,
    `${((resets * 1000) / MS).toFixed(0)} resets/s`,
  ]),
  verdict("a reset costs no more than a request", eachReset <= eachRequest, [
    `${eachReset.toFixed(1)} µs, at most ${eachRequest.toFixed(1)} µs`,
  ]),
  verdict("polite clients lose nothing", result.asked > 0 && result.failed === 0, [
    `${result.failed} of ${result.asked} requests`,
  ]),
  verdict("memory is bounded", after - before <= MAX_GROWTH_MIB, [
    `${before} MiB, then ${after} MiB, at most ${MAX_GROWTH_MIB} MiB more`,
  ]),
];
if (verdicts.includes(false)) process.exitCode = 1;
proxy.kill("SIGTERM");
origin.close();
origin.closeAllConnections();
fs.rmSync(dir, { recursive: true });

/** Prints how one of the bars was met. */
function verdict(bar: string, isMet: boolean, facts: readonly string[]): boolean {
  console.log(`${isMet ? "met   " : "MISSED"} ${bar.padEnd(38)} ${facts.join("; ")}`);
  return isMet;
}

// ---- clients

async function politeClients(ms: number) {
  const all = await Promise.all(
    Array.from({ length: Number(values.clients) }, () => politeClient(performance.now() + ms)),
  );
  return {
    asked: all.reduce((sum, { asked }) => sum + asked, 0),
    failed: all.reduce((sum, { failed }) => sum + failed, 0),
    times: all.flatMap(({ times }) => times),
  };
}

async function politeClient(until: number) {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  session.on("error", () => {});
  const times: number[] = [];
  let failed = 0;
  const pending: Promise<void>[] = [];
  // What this process was too late for is left out, and not made up for in one burst.
  for (let due = performance.now(); due < until; due = Math.max(due + 10, performance.now() - 50)) {
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
    const begun = performance.now();
    pending.push(
      new Promise((resolve) => {
        const stream = session.request({ ":path": "/" });
        let status = 0;
        stream.on("response", (head) => (status = Number(head[":status"])));
        stream.on("error", () => {});
        stream.on("close", () => {
          times.push(performance.now() - begun);
          if (status !== 200) failed++;
          resolve();
        });
        stream.resume();
      }),
    );
  }
  await Promise.all(pending);
  session.close();
  return { asked: pending.length, failed, times };
}

function frame(type: number, flags: number, id: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(id, 5);
  return Buffer.concat([head, payload]);
}

/** One after the other; answers how many. */
async function attacks(ms: number): Promise<number> {
  let n = 0;
  for (const until = performance.now() + ms; performance.now() < until; n++) await attack();
  return n;
}

/** Many streams, the end of each at once, in one write; done when the proxy has hung up. */
function attack(): Promise<void> {
  return new Promise((resolve) => {
    const client = net.connect(port, "127.0.0.1", () => client.write(ATTACK));
    client.on("error", () => {});
    client.on("close", () => resolve());
    client.resume();
  });
}

/** Made once: this process is the polite clients' and the origin's as well, and its time is theirs. */
function attackBytes(): Buffer {
  const hello = [Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(4, 0, 0, Buffer.alloc(0))];
  // GET http://h/
  const get = Buffer.from([0x82, 0x86, 0x84, 0x01, 1, 0x68]);
  const pairs = Array.from({ length: 2000 }, (_, k) => [
    frame(1, 5, 2 * k + 1, get),
    frame(3, 0, 2 * k + 1, Buffer.from([0, 0, 0, 8])),
  ]);
  return Buffer.concat([...hello, ...pairs.flat()]);
}

// ---- the proxy from outside

async function measure<R>(run: () => Promise<R>): Promise<{ result: R; cpuUs: number }> {
  const start = cpu();
  const result = await run();
  return { result, cpuUs: (cpu() - start) / 1000 };
}

/** The supervisor's child is the proxy. */
function proxyPid(): number {
  const children = `/proc/${proxy.pid}/task/${proxy.pid}/children`;
  return Number(fs.readFileSync(children, "utf8").trim().split(" ")[0] || proxy.pid);
}

/** Nanoseconds of all its threads. */
function cpu(): number {
  const tasks = `/proc/${proxyPid()}/task`;
  let sum = 0;
  for (const task of fs.readdirSync(tasks))
    sum += Number(fs.readFileSync(`${tasks}/${task}/schedstat`, "utf8").split(" ")[0]);
  return sum;
}

function memory(): number {
  const status = fs.readFileSync(`/proc/${proxyPid()}/status`, "utf8");
  return Math.round(Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]) / 1024);
}

async function stat(name: string): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${admin}/stats?filter=^${name}$`)).text();
  return Number(/: (\d+)/.exec(text)?.[1] ?? 0);
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port: free } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return free;
}

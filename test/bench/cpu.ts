/**
 * Measures the CPU of the whole proxy process per request, beside nginx, HAProxy and Envoy, in interleaved rounds of one run.
 *
 *   node test/bench/cpu.ts [mode] [--rounds 3] [--seconds 2] [--only tsproxy,nginx]
 *
 * Modes: `http` (default): HTTP/1.1 on kept connections, a few words each; `1m`: the same with 1 MiB; `tcp`, `tcp1m`: the same
 * requests, and nobody but the backend knows what HTTP is; and:
 * `filter`: with a dropped-in filter that reads a header and sets two, and Envoy with a Lua script that does the same.
 * `new`: HTTP/1.1 with a connection for each request.
 * `idle`: with the filters `fault` and `local_ratelimit`, which do nothing to these requests, beside `tsproxy` without them.
 * `production`: the cluster has retries, circuit breakers with a retry budget, outlier detection and active health checks; and the
 * same with a JSON access log to a file.
 * `log`: tsproxy and Envoy without an access log, with one of Envoy's default text and with one of JSON, each to a file.
 * `lua`: tsproxy and Envoy without a script, with one and with five that edit headers of request and response.
 * `h2`: downstream HTTP/2 (h2load, 8 connections of 32 streams), upstream HTTP/1.1; `h2h2`: HTTP/2 on both sides, cleartext.
 * `tls`: HTTP/1.1 over TLS 1.3 on kept connections; `hs`: a full handshake (P-256) and one request per connection; `hs-resumed`:
 * the same, each resuming the session before it (TLS 1.2); beside a bare server of node:tls, which passes nothing on.
 * `h2-16k`, `h2-1m`, `tls-16k`, `tls-1m`: responses of that size; prints CPU per MiB as well.
 *
 * Needs wrk, h2load, ab and nginx (Debian: wrk nghttp2-client apache2-utils nginx-light libnginx-mod-stream haproxy); HAProxy and ENVOY=/path/to/envoy take part
 * if present. The proxy is pinned to core 1 with one worker; the load, the backend and this script to core 0.
 */
import { type ChildProcess, execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { isProduction } from "./cpu-configs.ts";
import { load } from "./cpu-loads.ts";
import { cpuOf, cpuSince, ready, run, stopped } from "./cpu-processes.ts";
import {
  BACKEND,
  connections,
  dir,
  isHandshake,
  isHttp2,
  isTls,
  mode,
  only,
  pageMiB,
  rounds,
  seconds,
  write,
} from "./cpu-run.ts";
import { type Subject, subjects } from "./cpu-subjects.ts";

execFileSync("taskset", ["-cp", "0", String(process.pid)]);
fs.mkdirSync(path.join(dir, "www"));
fs.writeFileSync(path.join(dir, "www/1m"), "x".repeat(1 << 20));
fs.writeFileSync(path.join(dir, "www/16k"), "x".repeat(1 << 14));
const backend = run(0, [
  "nginx",
  "-e",
  `${dir}/backend.err`,
  "-c",
  write(
    "backend.conf",
    `worker_processes 1; daemon off; pid ${dir}/backend.pid; error_log ${dir}/backend.err warn; events { worker_connections 16384; }
    http { access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; sendfile on; open_file_cache max=10; default_type text/plain;
    server { listen 127.0.0.1:${BACKEND} backlog=8192; listen 127.0.0.1:${BACKEND + 1} http2; root ${dir}/www;
    location = / { return 200 "hello from backend, this is a small body of text\\n"; } } }`,
  ),
]);
await ready(BACKEND);
const isEnvoy = (s: Subject): boolean => s.name.startsWith("envoy");
const chosen = subjects.filter(
  (s) =>
    (only === undefined || only.includes(s.name)) &&
    // nginx speaks HTTP/1 to upstreams, and this HAProxy's config is of HTTP/1.
    !(isHttp2 && s.name === "haproxy") &&
    !(mode === "h2h2" && s.name === "nginx") &&
    (s.name.startsWith("tsproxy") ||
      s.name === "node:tls" ||
      spawnSync(isEnvoy(s) ? process.env.ENVOY! : s.name, [isEnvoy(s) ? "--version" : "-v"])
        .error === undefined),
);
const rows = new Map<string, { us: number[]; rps: number[]; bad: number }>(
  chosen.map((s) => [s.name, { us: [], rps: [], bad: 0 }]),
);
let port = 22_000 + (process.pid % 500) * 10;
// All are started and warmed up first: what compilers do in the first seconds is no request's.
const running: { readonly subject: Subject; readonly child: ChildProcess; readonly at: number }[] =
  [];
for (const subject of chosen) {
  const at = port++;
  const child = run(1, subject.start(at));
  await ready(at, isHttp2, isTls);
  // Turbofan compiles a function after 3000 calls. Connections come at a few hundred a second, requests at thousands.
  await load(at, isHandshake ? 10 : 6);
  running.push({ subject, child, at });
}
for (let round = 0; round < rounds; round++) {
  for (const { subject, child, at } of running) {
    await load(at, 1);
    const before = cpuOf(child.pid!);
    const { n, bad } = await load(at, seconds);
    const row = rows.get(subject.name)!;
    row.us.push(cpuSince(before, child.pid!) / 1000 / n);
    row.rps.push(n / seconds);
    row.bad += bad;
  }
}
for (const { child } of running) await stopped(child);
await stopped(backend);
const median = (list: readonly number[]): number =>
  [...list].sort((a, b) => a - b)[list.length >> 1]!;
/** What tsproxy is to cost at most, as a multiple of these. */
const BARS: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  http: { nginx: 1.25 },
  tcp: { haproxy: 1.2 },
  "1m": { nginx: 0.85 },
  production: { nginx: 1.25 },
  h2: { nginx: 1 },
  h2h2: { envoy: 1 },
  tls: { nginx: 1.2, envoy: 0.75 },
  hs: { nginx: 2 },
  "hs-resumed": { nginx: 2 },
  "h2-16k": { envoy: 1.2 },
  "h2-1m": { envoy: 1.2 },
  "tls-16k": { envoy: 1.2 },
  "tls-1m": { envoy: 1.2 },
};
const times = (row: { readonly us: readonly number[] }, name: string): string => {
  const other = rows.get(name);
  return other === undefined ? "-" : (median(row.us) / median(other.us)).toFixed(2);
};
console.log(
  `${mode}: ${connections} connections, ${rounds} rounds of ${seconds} s; CPU µs a request`,
);
console.log(
  "| proxy | min | median | × nginx (medians) | × Envoy | requests/s | not 200 |\n|---|---|---|---|---|---|---|",
);
for (const [name, row] of rows) {
  const { us } = row;
  const each = pageMiB === 0 ? "" : `, ${(median(us) / pageMiB).toFixed(0)} a MiB`;
  console.log(
    `| ${name}${each} | ${Math.min(...row.us).toFixed(1)} | ${median(row.us).toFixed(1)} | ${times(row, "nginx")} | ${times(row, "envoy")} | ${Math.round(median(row.rps))} | ${row.bad} |`,
  );
}
if (mode === "filter") {
  const [without, more] = [rows.get("tsproxy"), rows.get("tsproxy +filter")];
  if (without !== undefined && more !== undefined)
    console.log(
      `the filter: ${(median(more.us) - median(without.us)).toFixed(2)} µs more (bar: 3)`,
    );
}
if (mode === "idle") {
  const without = rows.get("tsproxy");
  for (const [name, { us }] of rows)
    if (without !== undefined && name.startsWith("tsproxy +"))
      console.log(`${name}: ${(median(us) - median(without.us)).toFixed(2)} µs more (bar: 0.5)`);
}
if (isProduction) {
  for (const name of ["tsproxy", "envoy"]) {
    const [without, logged] = [rows.get(name), rows.get(`${name} +log`)];
    if (without === undefined || logged === undefined) continue;
    const more = median(logged.us) - median(without.us);
    console.log(`the log of ${name}: ${more.toFixed(2)} µs a request (bar: 2.6)`);
  }
}
if (mode === "log") {
  for (const [kind, bar] of Object.entries({ text: 2.6, json: 4 }))
    for (const name of ["tsproxy", "envoy"]) {
      const [without, logged] = [rows.get(name), rows.get(`${name} +${kind}`)];
      if (without === undefined || logged === undefined) continue;
      const more = median(logged.us) - median(without.us);
      console.log(`${kind} log of ${name}: ${more.toFixed(2)} µs a request (bar: ${bar})`);
    }
}
for (const [name, bar] of Object.entries(BARS[mode] ?? {})) {
  const row = rows.get("tsproxy");
  if (row !== undefined)
    console.log(`bar: at most ${bar} × ${name}; this run: ${times(row, name)}`);
}
process.exit(0);

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
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import http2 from "node:http2";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import tls from "node:tls";
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "2" },
    only: { type: "string" },
    connections: { type: "string" },
  },
});
const MODES =
  "http 1m tcp tcp1m filter new idle production log lua h2 h2h2 tls hs hs-resumed h2-16k h2-1m tls-16k tls-1m".split(
    " ",
  );
const mode = positionals[0] ?? "http";
if (!MODES.includes(mode)) {
  console.error(`there is no mode "${mode}"; take one of ${MODES.join(", ")}`);
  process.exit(1);
}
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
const usual: Record<string, string> = {
  "1m": "16",
  tcp1m: "16",
  h2: "8",
  h2h2: "8",
  "h2-16k": "8",
  "h2-1m": "2",
  "tls-1m": "16",
  hs: "200",
  "hs-resumed": "1",
};
const connections = values.connections ?? usual[mode] ?? "64";
const root = path.join(import.meta.dirname, "../..");
const dir = fs.mkdtempSync(path.join(os.tmpdir(), "tsproxy-bench-"));
fs.chmodSync(dir, 0o755); // nginx's workers are another user
const isHttp2 = mode.startsWith("h2");
const isHandshake = mode.startsWith("hs");
const isTls = mode.startsWith("tls") || isHandshake;
/** What clients ask for, and its size in MiB (0: a few words). */
const page = mode.endsWith("1m") ? "1m" : mode.endsWith("16k") ? "16k" : "";
const pageMiB = page === "1m" ? 1 : page === "16k" ? 1 / 64 : 0;
/** The one for HTTP/1.1; the next port speaks HTTP/2. Runs side by side have each their own. */
const BACKEND = 20_000 + (process.pid % 900) * 2;
const UPSTREAM = mode === "h2h2" ? BACKEND + 1 : BACKEND;

/** What a browser sends beside Host. */
const HEADERS = [
  "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
  "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
  "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
  "Accept-Encoding: gzip, deflate, br, zstd",
  "Cookie: session=4f1c9a7be2d34c0f9b8a; theme=dark; consent=yes",
  "Referer: http://127.0.0.1/start",
  "Cache-Control: max-age=0",
  "Upgrade-Insecure-Requests: 1",
];

const write = (name: string, text: string): string => {
  const file = path.join(dir, name);
  fs.writeFileSync(file, text);
  return file;
};
/** One certificate for all, as rigs usually have it: an EC key on P-256. */
const certificate = path.join(dir, "cert.pem");
const key = path.join(dir, "key.pem");
if (isTls) {
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
  execFileSync(
    "openssl",
    ["req", "-x509", ...curve, "-days", "2", ...names, "-keyout", key, "-out", certificate],
    { stdio: "ignore" },
  );
  fs.chmodSync(key, 0o644);
}
const socket = (port: number) => ({ socket_address: { address: "127.0.0.1", port_value: port } });
const T = "type.googleapis.com/envoy.extensions.";

const OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const http2Upstream = {
  "@type": `type.googleapis.com/${OPTIONS}`,
  explicit_http_config: { http2_protocol_options: {} },
};

const downstreamTls = {
  name: "tls",
  typed_config: {
    "@type": `${T}transport_sockets.tls.v3.DownstreamTlsContext`,
    common_tls_context: {
      alpn_protocols: ["http/1.1"],
      tls_certificates: [
        { certificate_chain: { filename: certificate }, private_key: { filename: key } },
      ],
    },
  },
};

const isProduction = mode === "production";
const retries = {
  retry_policy: {
    retry_on: "connect-failure,refused-stream,reset,gateway-error",
    num_retries: 2,
    per_try_timeout: "5s",
    retry_host_predicate: [
      {
        name: "envoy.retry_host_predicates.previous_hosts",
        typed_config: {
          "@type": `${T}retry.host.previous_hosts.v3.PreviousHostsPredicate`,
        },
      },
    ],
    host_selection_retry_max_attempts: 3,
  },
};
const limit = { max_connections: 4096, max_pending_requests: 4096, max_requests: 4096 };
const resilience = {
  circuit_breakers: {
    thresholds: [{ ...limit, retry_budget: { budget_percent: { value: 20 } } }],
  },
  outlier_detection: { consecutive_5xx: 5, interval: "5s", base_ejection_time: "30s" },
  health_checks: [
    {
      timeout: "1s",
      interval: "1s",
      unhealthy_threshold: 3,
      healthy_threshold: 2,
      http_health_check: { path: "/" },
    },
  ],
};
const jsonLog = (file: string): { name: string; typed_config: Record<string, unknown> }[] => [
  {
    name: "file",
    typed_config: {
      "@type": `${T}access_loggers.file.v3.FileAccessLog`,
      path: file,
      log_format: {
        json_format: {
          start_time: "%START_TIME%",
          method: "%REQ(:METHOD)%",
          path: "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
          protocol: "%PROTOCOL%",
          status: "%RESPONSE_CODE%",
          flags: "%RESPONSE_FLAGS%",
          details: "%RESPONSE_CODE_DETAILS%",
          bytes_received: "%BYTES_RECEIVED%",
          bytes_sent: "%BYTES_SENT%",
          duration: "%DURATION%",
          authority: "%REQ(:AUTHORITY)%",
          user_agent: "%REQ(USER-AGENT)%",
          request_id: "%REQ(X-REQUEST-ID)%",
          forwarded_for: "%REQ(X-FORWARDED-FOR)%",
          upstream_host: "%UPSTREAM_HOST%",
          upstream_cluster: "%UPSTREAM_CLUSTER%",
          route: "%ROUTE_NAME%",
        },
      },
    },
  },
];

/** The front proxy as shipped: request ids, stats, routing; in the mode `production` with what a file there has besides. */
function envoyConfig(port: number, extraFilters: object[] = [], log: object[] = []): string {
  const hcm = {
    "@type": `${T}filters.network.http_connection_manager.v3.HttpConnectionManager`,
    stat_prefix: "ingress_http",
    ...(log.length > 0 && { access_log: log }),
    // What ab and openssl's client speak.
    ...(isHandshake && {
      http_protocol_options: { accept_http_10: true, default_host_for_http_10: "a" },
    }),
    route_config: {
      name: "local_route",
      virtual_hosts: [
        {
          name: "backend",
          domains: ["*"],
          routes: [
            {
              match: { prefix: "/" },
              route: { cluster: "backend", ...(isProduction && retries) },
            },
          ],
        },
      ],
    },
    http_filters: [
      ...extraFilters,
      {
        name: "envoy.filters.http.router",
        typed_config: { "@type": `${T}filters.http.router.v3.Router` },
      },
    ],
  };
  const tcp = {
    "@type": `${T}filters.network.tcp_proxy.v3.TcpProxy`,
    stat_prefix: "tcp",
    cluster: "backend",
  };
  const filter = mode.startsWith("tcp")
    ? { name: "tcp", typed_config: tcp }
    : { name: "hcm", typed_config: hcm };
  return JSON.stringify({
    static_resources: {
      listeners: [
        {
          name: "main",
          address: socket(port),
          filter_chains: [{ filters: [filter], ...(isTls && { transport_socket: downstreamTls }) }],
        },
      ],
      clusters: [
        {
          name: "backend",
          type: "STATIC",
          connect_timeout: "0.25s",
          lb_policy: "ROUND_ROBIN",
          ...(isProduction && resilience),
          ...(mode === "h2h2" && {
            typed_extension_protocol_options: { [OPTIONS]: http2Upstream },
          }),
          load_assignment: {
            cluster_name: "backend",
            endpoints: [{ lb_endpoints: [{ endpoint: { address: socket(UPSTREAM) } }] }],
          },
        },
      ],
    },
  });
}

/** A server that answers by itself, with Node's own TLS: what Node takes without any proxy on top. */
const bareTls = (port: number): string => `
const fs = require("node:fs");
const at = (file) => fs.readFileSync(file);
const certificate = { cert: at(${JSON.stringify(certificate)}), key: at(${JSON.stringify(key)}) };
require("node:tls").createServer(certificate, (socket) => {
  socket.on("error", () => socket.destroy());
  socket.once("data", () =>
    socket.end("HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 2\\r\\n\\r\\nok"),
  );
}).listen({ port: ${port}, host: "127.0.0.1", backlog: 8192 });`;

interface Subject {
  readonly name: string;
  start(port: number): readonly string[];
}

const envoyWith = (envoy: string, config: string): string[] => [
  ...[envoy, "-c", config],
  ...["--concurrency", "1", "-l", "error", "--disable-hot-restart"],
];
const tsproxy = (config: string, extra: string[] = []): string[] => [
  process.execPath,
  path.join(root, "core/bin/tsproxy.js"),
  "run",
  "-c",
  config,
  "--concurrency",
  "1",
  "-l",
  "error",
  ...extra,
];

const nginxTls = isTls
  ? `ssl_certificate ${certificate}; ssl_certificate_key ${key}; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:s:8m;`
  : "";
const combined = path.join(dir, "combined.pem");
if (isTls) fs.writeFileSync(combined, fs.readFileSync(certificate, "utf8") + fs.readFileSync(key));

const subjects: Subject[] = [
  { name: "tsproxy", start: (port) => tsproxy(write(`tsproxy-${port}.json`, envoyConfig(port))) },
  {
    name: "nginx",
    start: (port) => {
      const http = `http { access_log off; keepalive_requests 1000000000;
        upstream be { server 127.0.0.1:${BACKEND}; keepalive 512; keepalive_requests 1000000000; }
        server { listen 127.0.0.1:${port}${isHttp2 ? " http2" : ""}${isTls ? " ssl" : ""} backlog=8192; ${nginxTls} location / { proxy_pass http://be; proxy_http_version 1.1;
          proxy_set_header Connection ""; proxy_set_header Host $host; proxy_set_header X-Request-Id $request_id;
          proxy_set_header X-Forwarded-Proto $scheme; } } }`;
      const stream = `stream { server { listen 127.0.0.1:${port} backlog=8192; proxy_pass 127.0.0.1:${BACKEND}; } }`;
      const modules = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;";
      const tcp = mode.startsWith("tcp");
      const file = write(
        `nginx-${port}.conf`,
        `${tcp ? modules : ""} worker_processes 1; daemon off; pid ${dir}/nginx-${port}.pid; error_log ${dir}/nginx.err warn;
        events { worker_connections 16384; } ${tcp ? stream : http}`,
      );
      return ["nginx", "-e", `${dir}/nginx.err`, "-c", file];
    },
  },
  {
    name: "haproxy",
    start: (port) => [
      "haproxy",
      "-db",
      "-f",
      write(
        `haproxy-${port}.cfg`,
        `global\n nbthread 1\n maxconn 9000\ndefaults\n mode ${mode.startsWith("tcp") ? "tcp" : "http"}\n timeout connect 5s\n timeout client 300s\n timeout server 300s
${mode.startsWith("tcp") ? "" : " http-reuse always\n unique-id-format %[uuid()]\n unique-id-header x-request-id\n"}frontend f\n bind 127.0.0.1:${port} backlog 8192${isTls ? ` ssl crt ${combined} alpn http/1.1` : ""}\n default_backend b\nbackend b\n server s1 127.0.0.1:${BACKEND}\n`,
      ),
    ],
  },
];
if (isHandshake)
  subjects.push({
    name: "node:tls",
    start: (port) => [process.execPath, write(`bare-${port}.cjs`, bareTls(port))],
  });
if (process.env.ENVOY !== undefined) {
  const envoy = process.env.ENVOY;
  subjects.push({
    name: "envoy",
    start: (port) => envoyWith(envoy, write(`envoy-${port}.json`, envoyConfig(port))),
  });
}
if (isProduction) {
  const { ENVOY: envoy } = process.env;
  const config = (name: string, port: number) =>
    write(
      `${name}-log-${port}.json`,
      envoyConfig(port, [], jsonLog(path.join(dir, `${name}.log`))),
    );
  subjects.push({ name: "tsproxy +log", start: (port) => tsproxy(config("tsproxy", port)) });
  if (envoy !== undefined)
    subjects.push({
      name: "envoy +log",
      start: (port) => envoyWith(envoy, config("envoy", port)),
    });
}
if (mode === "log") {
  const { ENVOY: envoy } = process.env;
  for (const kind of ["text", "json"]) {
    const config = (name: string, port: number) => {
      const log = jsonLog(path.join(dir, `${name}-${kind}.log`));
      if (kind === "text") for (const { typed_config } of log) delete typed_config.log_format;
      return write(`${name}-${kind}-${port}.json`, envoyConfig(port, [], log));
    };
    const name = `tsproxy +${kind}`;
    subjects.push({ name, start: (port) => tsproxy(config("tsproxy", port)) });
    if (envoy !== undefined)
      subjects.push({
        name: `envoy +${kind}`,
        start: (port) => envoyWith(envoy, config("envoy", port)),
      });
  }
}
if (mode === "filter") {
  const filters = path.join(dir, "filters");
  fs.mkdirSync(filters);
  fs.writeFileSync(
    path.join(filters, "stamp.ts"),
    `import { defineHttpFilter, Type, type RequestHeaders, type ResponseHeaders } from "@tsproxy/sdk";
class Stamp {
  onRequestHeaders(headers: RequestHeaders) { if (headers.get("user-agent") !== undefined) headers.set("x-stamp", "seen"); }
  onResponseHeaders(headers: ResponseHeaders) { headers.set("x-stamped", "yes"); }
}
export default defineHttpFilter({ name: "stamp", config: Type.Object({}), setup: () => () => new Stamp() });
`,
  );
  subjects.unshift({
    name: "tsproxy +filter",
    start: (port) =>
      tsproxy(
        write(`tsproxy-filter-${port}.json`, envoyConfig(port, [{ name: "stamp", config: {} }])),
        ["--filters", filters],
      ),
  });
  const { ENVOY: envoy } = process.env;
  const same = {
    name: "stamp",
    typed_config: {
      "@type": `${T}filters.http.lua.v3.Lua`,
      default_source_code: {
        inline_string: `
          function envoy_on_request(handle)
            local headers = handle:headers()
            if headers:get("user-agent") then headers:replace("x-stamp", "seen") end
          end
          function envoy_on_response(handle)
            handle:headers():replace("x-stamped", "yes")
          end`,
      },
    },
  };
  if (envoy !== undefined)
    subjects.push({
      name: "envoy +lua",
      start: (port) =>
        envoyWith(envoy, write(`envoy-filter-${port}.json`, envoyConfig(port, [same]))),
    });
}

if (mode === "idle") {
  const never = { numerator: 0, denominator: "HUNDRED" };
  const always = { default_value: { numerator: 100, denominator: "HUNDRED" } };
  const fault = (more: object) => ({
    name: "fault",
    typed_config: {
      "@type": `${T}filters.http.fault.v3.HTTPFault`,
      abort: { http_status: 503, percentage: never },
      delay: { fixed_delay: "1s", percentage: never },
      ...more,
    },
  });
  const limit = (more: object) => ({
    name: "local_ratelimit",
    typed_config: {
      "@type": `${T}filters.http.local_ratelimit.v3.LocalRateLimit`,
      stat_prefix: "idle",
      token_bucket: { max_tokens: 4e9, tokens_per_fill: 4e9, fill_interval: "1s" },
      ...more,
    },
  });
  const forOthers = { headers: [{ name: "x-fault", present_match: true }] };
  const certain = { abort: { http_status: 503, percentage: { numerator: 100 } }, ...forOthers };
  const rows: Readonly<Record<string, object>> = {
    "fault, 0 %": fault({}),
    "fault, for other requests": fault(certain),
    "local_ratelimit, 0 %": limit({}),
    "local_ratelimit, never empty": limit({ filter_enabled: always, filter_enforced: always }),
  };
  for (const [name, filter] of Object.entries(rows))
    subjects.push({
      name: `tsproxy +${name}`,
      start: (port) => tsproxy(write(`idle-${port}.json`, envoyConfig(port, [filter]))),
    });
}

if (mode === "lua") {
  const script = (n: number) => ({
    name: `lua-${n}`,
    typed_config: {
      "@type": `${T}filters.http.lua.v3.Lua`,
      default_source_code: {
        inline_string: `
          function envoy_on_request(handle)
            local headers = handle:headers()
            local agent = headers:get("user-agent")
            if agent and agent:find("Mozilla", 1, true) then headers:add("x-stamp-${n}", "seen") end
          end
          function envoy_on_response(handle)
            handle:headers():replace("x-stamped-${n}", "yes")
          end`,
      },
    },
  });
  const scripts = (count: number) => Array.from({ length: count }, (_, k) => script(k));
  const { ENVOY: envoy } = process.env;
  for (const count of [1, 5]) {
    const config = (name: string, port: number) =>
      write(`${name}-lua${count}-${port}.json`, envoyConfig(port, scripts(count)));
    subjects.push({
      name: `tsproxy +${count} lua`,
      start: (port) => tsproxy(config("tsproxy", port)),
    });
    if (envoy !== undefined)
      subjects.push({
        name: `envoy +${count} lua`,
        start: (port) => envoyWith(envoy, config("envoy", port)),
      });
  }
}

// ---- measuring

const children = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
  fs.rmSync(dir, { recursive: true, force: true });
});
function run(core: number, argv: readonly string[]): ChildProcess {
  const log = fs.openSync(path.join(dir, "proc.log"), "a");
  const child = spawn("taskset", ["-c", String(core), ...argv], { stdio: ["ignore", log, log] });
  children.add(child);
  child.on("exit", () => children.delete(child));
  return child;
}
const stopped = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve();
    const timer = setTimeout(() => child.kill("SIGKILL"), 8000);
    child.on("exit", () => {
      clearTimeout(timer);
      resolve();
    });
    child.kill("SIGTERM");
  });

/** Nanoseconds on CPU of each thread of a process and its children, from schedstat. */
function cpuOf(pid: number): ReadonlyMap<string, number> {
  const parents = new Map<number, number[]>();
  for (const entry of fs.readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const stat = fs.readFileSync(`/proc/${entry}/stat`, "utf8");
      const parent = Number(stat.slice(stat.lastIndexOf(")") + 4).split(" ")[0]);
      parents.set(parent, [...(parents.get(parent) ?? []), Number(entry)]);
    } catch {}
  }
  const all = [pid];
  for (let k = 0; k < all.length; k++) all.push(...(parents.get(all[k]!) ?? []));
  const found = new Map<string, number>();
  for (const p of all) {
    try {
      for (const task of fs.readdirSync(`/proc/${p}/task`)) {
        const text = fs.readFileSync(`/proc/${p}/task/${task}/schedstat`, "utf8");
        found.set(task, Number(text.split(" ")[0]));
      }
    } catch {}
  }
  return found;
}

/** One that has ended in between, like the bundler's a minute after its last build, takes what it did with it: it counts nothing. */
function cpuSince(before: ReadonlyMap<string, number>, pid: number): number {
  let sum = 0;
  for (const [task, now] of cpuOf(pid)) sum += now - (before.get(task) ?? 0);
  return sum;
}

/** HTTP/2 by prior knowledge answers. */
function answersHttp2(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const session = http2.connect(`http://127.0.0.1:${port}`);
    session.on("error", () => resolve(false));
    const stream = session.request({});
    stream.on("error", () => resolve(false));
    stream.on("response", (headers) => {
      resolve(headers[":status"] === 200);
      session.destroy();
    });
  });
}

async function ready(port: number, speaksHttp2 = false, speaksTls = false): Promise<void> {
  for (let k = 0; k < 400; k++) {
    if (speaksHttp2 && (await answersHttp2(port))) return;
    const ok = await new Promise<boolean>((resolve) => {
      if (speaksHttp2) return resolve(false);
      const ask = () => s.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
      const at = { port, host: "127.0.0.1", rejectUnauthorized: false };
      const s: net.Socket = speaksTls ? tls.connect(at, ask) : net.connect(at, ask);
      let text = "";
      s.on("data", (d) => {
        text += d;
        if (text.includes(" 200 ")) s.destroy();
      });
      s.on("error", () => resolve(false));
      s.on("close", () => resolve(text.includes(" 200 ")));
      s.setTimeout(1000, () => s.destroy());
    });
    if (ok) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(
    `nothing answers on port ${port}: ${fs.readFileSync(path.join(dir, "proc.log"), "utf8").slice(-2000)}`,
  );
}

async function load(port: number, secs: number): Promise<{ n: number; bad: number }> {
  const url = `http${isTls ? "s" : ""}://127.0.0.1:${port}/${page}`;
  if (isHttp2) return loadHttp2(url, secs);
  if (isHandshake) return loadHandshakes(port, secs);
  const argv = [
    "-c",
    "0",
    "wrk",
    "-t1",
    `-c${connections}`,
    `-d${secs}s`,
    ...HEADERS.flatMap((h) => ["-H", h]),
    ...(mode === "new" ? ["-H", "Connection: close"] : []),
    url,
  ];
  const child = spawn("taskset", argv, { stdio: ["ignore", "pipe", "inherit"] });
  children.add(child);
  let text = "";
  child.stdout.on("data", (d) => {
    text += d;
  });
  await new Promise((resolve) => child.on("close", resolve));
  children.delete(child);
  const n = Number(/(\d+) requests in/.exec(text)?.[1] ?? 0);
  const errors = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(text);
  const bad =
    Number(/Non-2xx or 3xx responses: (\d+)/.exec(text)?.[1] ?? 0) +
    (errors === null ? 0 : errors.slice(1).reduce((sum, e) => sum + Number(e), 0));
  return { n, bad };
}

async function loadHttp2(url: string, secs: number): Promise<{ n: number; bad: number }> {
  const headers = HEADERS.flatMap((h) => ["-H", h]);
  const argv = ["-c", "0", "h2load", "-t1", `-c${connections}`, "-m32", "-D", String(secs)];
  const child = spawn("taskset", [...argv, ...headers, url], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.add(child);
  let text = "";
  child.stdout.on("data", (d) => {
    text += d;
  });
  await new Promise((resolve) => child.on("close", resolve));
  children.delete(child);
  const [, done = "0", failed = "0"] = /(\d+) done, \d+ succeeded, (\d+) failed/.exec(text) ?? [];
  const n = Number(done);
  const ok = Number(/status codes: (\d+) 2xx/.exec(text)?.[1] ?? 0);
  return { n, bad: Number(failed) + Math.max(0, n - ok) };
}

/** `ab` makes a new TLS session for each request; OpenSSL's own client resumes one, a connection at a time. */
async function loadHandshakes(port: number, secs: number): Promise<{ n: number; bad: number }> {
  const argv =
    mode === "hs-resumed"
      ? ["openssl", "s_time", "-connect", `127.0.0.1:${port}`, "-reuse", "-tls1_2", "-www", "/"]
      : ["ab", "-q", "-n", "1000000", "-c", connections, "-f", "TLS1.3"];
  argv.push(mode === "hs-resumed" ? "-time" : "-t", String(secs));
  if (mode === "hs") argv.push(`https://127.0.0.1:${port}/`);
  const child = spawn("taskset", ["-c", "0", ...argv], { stdio: ["ignore", "pipe", "ignore"] });
  children.add(child);
  let text = "";
  child.stdout.on("data", (d) => {
    text += d;
  });
  await new Promise((resolve) => child.on("close", resolve));
  children.delete(child);
  const counts =
    /^Complete requests: +(\d+)/m.exec(text) ??
    /^(\d+) connections in \d+ real seconds/m.exec(text);
  const bad = /^Non-2xx responses: +(\d+)/m.exec(text);
  return { n: Number(counts?.[1] ?? 0), bad: Number(bad?.[1] ?? 0) };
}

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
const only = values.only?.split(",");
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

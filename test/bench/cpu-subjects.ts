// The proxies of a run, as they are started.
import fs from "node:fs";
import path from "node:path";
import { bareTls, certificate, envoyConfig, isProduction, jsonLog, key, T } from "./cpu-configs.ts";
import { BACKEND, dir, isHandshake, isHttp2, isTls, mode, write } from "./cpu-run.ts";

const root = path.join(import.meta.dirname, "../..");

export interface Subject {
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

export const subjects: Subject[] = [
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
/** Rows for tsproxy and Envoy with the same config. */
function addBoth(more: string, config: (name: string, port: number) => string): void {
  const { ENVOY: envoy } = process.env;
  const file = (name: string, port: number) =>
    write(`${name}-${more}-${port}.json`, config(name, port));
  subjects.push({ name: `tsproxy +${more}`, start: (port) => tsproxy(file("tsproxy", port)) });
  if (envoy !== undefined)
    subjects.push({
      name: `envoy +${more}`,
      start: (port) => envoyWith(envoy, file("envoy", port)),
    });
}

if (isProduction)
  addBoth("log", (name, port) => envoyConfig(port, [], jsonLog(path.join(dir, `${name}.log`))));
if (mode === "log") {
  for (const kind of ["text", "json"])
    addBoth(kind, (name, port) => {
      const log = jsonLog(path.join(dir, `${name}-${kind}.log`));
      if (kind === "text") for (const { typed_config } of log) delete typed_config.log_format;
      return envoyConfig(port, [], log);
    });
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
  for (const count of [1, 5])
    addBoth(`${count} lua`, (_, port) => envoyConfig(port, scripts(count)));
}

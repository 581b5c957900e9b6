import { type Definition, HeaderMap, type Route } from "@tsproxy/sdk";
import {
  TestContext,
  TestStream,
  type TestStreamOptions,
  withDefaults,
} from "@tsproxy/sdk/testing";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { bundle } from "../packages/bundle.ts";
import { discoverShipped } from "../packages/packages.ts";
import { FakeWorker, stubs } from "./fake-worker.ts";

// The same source in the group and in an isolate of its own: the same requests come to the same answers, bytes, metadata and stats.

const ALL = { numerator: 100, denominator: "HUNDRED" };
const ALWAYS = { default_value: ALL };
const ROUTE = { action: { type: "route", cluster: "a" } } as Route;
const OK = { allow_origin_string_match: [{ exact: "https://ok.test" }] };

/** As core hands it over: with its place in the config. */
const SCRIPT = {
  code: 'req.headers.set("x-s", req.path); stats.counter("seen").inc();',
  file: "front.yaml",
  line: 20,
  indent: 8,
};

const append = (key: string, value: string) => ({ append: { header: { key, value } } });

interface Case {
  readonly config?: object;
  readonly routeConfigs?: readonly object[];
  /** Exchanges, one after the other. */
  readonly drive: readonly ((stream: TestStream) => unknown)[];
  /** What the first of them comes to, so that both cannot do nothing alike. */
  readonly shows: object;
}

const get =
  (path: string, headers: Record<string, string> = {}, method = "GET") =>
  (stream: TestStream) => {
    stream.requestHeaders(method, path, headers);
  };

const post = (chunks: readonly string[]) => (stream: TestStream) =>
  stream
    .requestHeaders("POST", "/", { "content-length": String(chunks.join("").length) }, false)
    .requestChunks(chunks);

function trailers(lines: Record<string, string>): HeaderMap {
  const map = new HeaderMap();
  for (const [name, value] of Object.entries(lines)) map.append(name, value);
  return map;
}
const DONE = { "grpc-status": "0", "grpc-message": "fine" };

/** The others need clusters of their own. */
const CASES: Readonly<Record<string, Case>> = {
  "http/buffer": {
    config: { max_request_bytes: 8 },
    drive: [
      post(["one", "two"]),
      post(["one", "two", "three"]),
      get("/"),
      // A length that the client has not told.
      (s) => s.requestHeaders("POST", "/", {}, false).requestChunks(["one", "two"]),
      (s) =>
        s
          .requestHeaders("POST", "/", {}, false)
          .requestBody("one", false)
          .requestTrailers(trailers({ "x-t": "1" })),
    ],
    shows: { request: { body: "onetwo", chunks: ["onetwo"] } },
  },
  "http/grpc_web": {
    drive: [
      (s) =>
        s
          .requestHeaders("POST", "/s/m", { "content-type": "application/grpc-web-text" }, false)
          .requestChunks(["AAAA", "AAFh"])
          .responseHeaders(200, { "content-type": "application/grpc" }, false)
          .responseBody("\0\0\0\0\x01b", false)
          .responseTrailers(trailers(DONE)),
      (s) =>
        s
          .requestHeaders("POST", "/s/m", { "content-type": "application/grpc-web" }, false)
          .requestBody("\0\0\0\0\0")
          .responseHeaders(503, { "content-type": "text/plain" }, false)
          .responseChunks(["no ", "upstream"]),
    ],
    shows: {
      request: {
        body: "\0\0\0\0\x01a",
        headers: [
          ["host", "test"],
          ["content-type", "application/grpc"],
          ["te", "trailers"],
          ["grpc-accept-encoding", "identity"],
        ],
      },
      response: { trailers: [], ended: true },
    },
  },
  "http/grpc_http1_bridge": {
    config: { upgrade_protobuf_to_grpc: true },
    drive: [
      (s) =>
        s
          .requestHeaders("POST", "/s/m", { "content-type": "application/x-protobuf" }, false)
          .requestChunks(["a", "b"])
          .responseHeaders(200, { "content-type": "application/grpc" }, false)
          .responseBody("\0\0\0\0\x02c", false)
          .responseBody("d", false)
          .responseTrailers(trailers({ "grpc-status": "5", "grpc-message": "gone" })),
      (s) =>
        s
          .requestHeaders("POST", "/s/m", { "content-type": "application/grpc" }, false)
          .requestBody("\0\0\0\0\0")
          .responseHeaders(200, {}, false)
          .responseBody("\0\0\0\0\0"),
    ],
    shows: {
      request: { body: "\0\0\0\0\x02ab" },
      response: {
        status: 503,
        body: "cd",
        headers: [
          ["content-type", "application/grpc"],
          ["grpc-status", "5"],
          ["grpc-message", "gone"],
          ["content-length", "2"],
        ],
      },
    },
  },
  "http/cors": {
    routeConfigs: [{ ...OK, allow_methods: "GET, PUT", max_age: "600" }],
    drive: [
      get("/", { origin: "https://ok.test", "access-control-request-method": "PUT" }, "OPTIONS"),
      get("/", { origin: "https://bad.test", "access-control-request-method": "PUT" }, "OPTIONS"),
      (s) => s.requestHeaders("GET", "/", { origin: "https://ok.test" }).responseHeaders(200),
    ],
    shows: { reply: { status: 200, details: "cors_response" } },
  },
  "http/csrf": {
    config: { filter_enabled: ALWAYS },
    drive: [
      get("/", { origin: "http://evil.test" }, "POST"),
      get("/", { origin: "http://test" }, "POST"),
      get("/", { origin: "http://evil.test" }),
    ],
    shows: { reply: { status: 403 } },
  },
  "http/fault": {
    config: {
      abort: { http_status: 418, percentage: ALL },
      delay: { fixed_delay: 5, percentage: ALL },
    },
    drive: [get("/")],
    shows: { reply: { status: 418, details: "fault_filter_abort", flags: ["FI"] } },
  },
  "http/header_mutation": {
    config: {
      mutations: {
        request_mutations: [append("x-a", "%REQ(:path)%"), { remove: "x-gone" }],
        response_mutations: [append("x-b", "2")],
      },
    },
    routeConfigs: [{ mutations: { request_mutations: [append("x-route", "1")] } }],
    drive: [(s) => s.requestHeaders("GET", "/p", { "x-gone": "1" }).responseHeaders(200)],
    shows: {
      request: {
        headers: [
          ["host", "test"],
          ["x-a", "/p"],
          ["x-route", "1"],
        ],
      },
    },
  },
  "http/local_ratelimit": {
    config: {
      stat_prefix: "rl",
      token_bucket: { max_tokens: 2, tokens_per_fill: 2, fill_interval: 60_000 },
      filter_enabled: ALWAYS,
      filter_enforced: ALWAYS,
    },
    drive: [get("/"), get("/"), get("/")],
    shows: { request: { ended: true } },
  },
  "http/rbac": {
    config: {
      rules: {
        action: "DENY",
        policies: {
          admin: {
            permissions: [{ url_path: { path: { prefix: "/admin" } } }],
            principals: [{ any: true }],
          },
        },
      },
    },
    drive: [get("/admin"), get("/open")],
    shows: { reply: { status: 403 } },
  },
  "http/set_metadata": {
    config: { metadata: [{ metadata_namespace: "a", value: { x: { y: [1, true] } } }] },
    drive: [get("/")],
    shows: { metadata: { a: { x: { y: [1, true] } } } },
  },
  "http/script": {
    config: { onRequest: SCRIPT },
    drive: [get("/script")],
    shows: {
      request: {
        headers: [
          ["host", "test"],
          ["x-s", "/script"],
        ],
      },
    },
  },
};

/** What a stream has come to. */
function outcome(stream: TestStream): unknown {
  const { reply, upstream, downstream, response, metadata, tooLarge, error } = stream;
  const of = ({ headers, body, chunks, trailers, ended }: typeof upstream) => ({
    headers,
    body,
    chunks,
    trailers: [...(trailers ?? [])],
    ended,
  });
  return {
    // Only a sandbox has to say that a reply was early.
    reply: reply && { ...reply, early: undefined },
    error,
    tooLarge,
    request: of(upstream),
    response: { status: response?.status, ...of(downstream) },
    metadata: Object.fromEntries(metadata),
    details: stream.info.responseCodeDetails,
  };
}

let worker: FakeWorker;
beforeEach(() => {
  worker = new FakeWorker();
});
afterEach(() => worker.dispose());

const shipped = discoverShipped();

test.each(Object.entries(CASES))("%s does the same in both placements", async (id, spec) => {
  const { entry } = shipped.find((source) => source.id === id)!;
  const definition = (await import(entry)).default as Definition<"http">;
  const config = withDefaults(definition.config, spec.config ?? {});
  const schema = definition.routeConfig ?? definition.config;
  const routeConfigs = (spec.routeConfigs ?? []).map((own) => withDefaults(schema, own));
  const options: TestStreamOptions = { routeConfigs, route: ROUTE };
  const cx = new TestContext();
  cx.statPrefix = "http.x.";

  const inGroup: unknown[] = [];
  const factory = cx.setup(definition, config);
  for (const drive of spec.drive) {
    const stream = new TestStream(cx, factory, options);
    drive(stream);
    await stream.advance(64);
    inGroup.push(outcome(stream));
    stream.end();
  }

  const { code } = await bundle({ entry, filename: id });
  const sandbox = await worker.unprepared(code);
  const use = { id: 1, config, place: `/http:${definition.name}`, statPrefix: cx.statPrefix };
  expect(await sandbox.prepare([use])).toEqual([]);
  const stub = stubs(worker, sandbox);
  const inIsolate: unknown[] = [];
  for (const drive of spec.drive) {
    const stream = new TestStream(new TestContext(), stub, options);
    drive(stream);
    await worker.until(() => !stream.waiting);
    inIsolate.push(outcome(stream));
    stream.end();
  }
  await worker.until(() => sandbox.live === 0);

  expect(inGroup[0]).toMatchObject(spec.shows);
  expect(inIsolate).toEqual(inGroup);
  const counted = [...cx.stats.values].filter(([, value]) => value !== 0);
  const ofIsolate = () => counted.map(([name]) => [name, worker.stat(name)]);
  // Counts come over a few milliseconds later.
  await vi.waitFor(() => expect(ofIsolate()).toEqual(counted), { timeout: 120_000 });
  expect(worker.faults).toEqual([]);
});

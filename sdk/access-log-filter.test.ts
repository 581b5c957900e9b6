import { describe, expect, it } from "vitest";
import type { LogEntry } from "./access-log.ts";
import { type AccessLogFilter, compileAccessLogFilter } from "./access-log-filter.ts";
import { RequestHeaders, ResponseHeaders } from "./headers.ts";
import { newStreamInfo, type StreamInfo } from "./http.ts";
import { TestContext } from "./testing/index.ts";

const nowhere = { ip: "", port: 0 };
const info = (over: Partial<StreamInfo> = {}): StreamInfo =>
  newStreamInfo({
    startTime: 0,
    downstreamRemoteAddress: nowhere,
    downstreamDirectAddress: nowhere,
    downstreamLocalAddress: nowhere,
    ...over,
  });

function entry(over: Partial<StreamInfo> = {}, more: Partial<LogEntry> = {}): LogEntry {
  const request = new RequestHeaders();
  const bare = { request, response: undefined, trailers: undefined };
  return { info: info(over), ...bare, ...more };
}

const cx = new TestContext();
const passes = (filter: AccessLogFilter, ...entries: LogEntry[]) =>
  entries.map(compileAccessLogFilter(filter, "filter", cx));
const status = (op: "EQ" | "GE" | "LE" | "NE", n: number, runtime_key = ""): AccessLogFilter => ({
  status_code_filter: { comparison: { op, value: { default_value: n, runtime_key } } },
});
const codes = [199, 404, 500].map((responseCode) => entry({ responseCode }));

describe("comparisons", () => {
  it.each([
    ["EQ", [false, true, false]],
    ["GE", [false, true, true]],
    ["LE", [true, true, false]],
    ["NE", [true, false, true]],
  ] as const)("%s of a status", (op, expected) => {
    expect(passes(status(op, 404), ...codes)).toEqual(expected);
  });

  it("takes the limit from the runtime", () => {
    const filter = status("GE", 500, "log.min");
    const compiled = compileAccessLogFilter(filter, "filter", cx);
    expect(codes.map(compiled)).toEqual([false, false, true]);
    cx.runtime.replace([["log.min", 404]]);
    expect(codes.map(compiled)).toEqual([false, true, true]);
    cx.runtime.replace([]);
  });

  it("compares whole milliseconds, until now where a stream tells that", () => {
    const le: AccessLogFilter = {
      duration_filter: {
        comparison: { op: "LE", value: { default_value: 10, runtime_key: "" } },
      },
    };
    const ended = [10, 10.9, 11].map((duration) => entry({ duration }));
    expect(passes(le, entry(), ...ended)).toEqual([false, true, true, false]);
    expect(passes(le, entry({ elapsed: 10 }), entry({ elapsed: 11 }))).toEqual([true, false]);
  });
});

it("asks an expression, whose errors are a no", () => {
  const of = (expression: string): AccessLogFilter => ({
    extension_filter: {
      name: "cel",
      typed_config: {
        "@type": "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
        expression,
      },
    },
  });
  expect(passes(of("response.code >= 404"), ...codes)).toEqual([false, true, true]);
  expect(passes(of("response.code"), ...codes)).toEqual([false, false, false]);
  expect(passes(of("request.headers['x'] == 'y' || response.code == 404"), ...codes)).toEqual([
    false,
    true,
    false,
  ]);
  expect(() => passes(of("response.code >"))).toThrow("ends too early");
});

it("joins filters with and, or", () => {
  const both = { filters: [status("GE", 400), status("LE", 499)] };
  expect(passes({ and_filter: both }, ...codes)).toEqual([false, true, false]);
  expect(passes({ or_filter: both }, ...codes)).toEqual([true, true, true]);
});

it("leaves health checks out, and passes only what is traced on demand", () => {
  const entries = [entry(), entry({ healthCheck: true, traceForced: true })];
  expect(passes({ not_health_check_filter: {} }, ...entries)).toEqual([true, false]);
  expect(passes({ traceable_filter: {} }, ...entries)).toEqual([false, true]);
});

describe("response_flag_filter", () => {
  const entries = [entry(), entry({ flags: ["UF"] }), entry({ flags: ["DC", "UT"] })];
  it("takes any flag when none is named", () => {
    expect(passes({ response_flag_filter: { flags: [] } }, ...entries)).toEqual([
      false,
      true,
      true,
    ]);
  });
  it("takes those that are named", () => {
    expect(passes({ response_flag_filter: { flags: ["UT", "NR"] } }, ...entries)).toEqual([
      false,
      false,
      true,
    ]);
  });
  it("refuses a flag that Envoy does not have", () => {
    expect(() => passes({ response_flag_filter: { flags: ["XX"] } })).toThrow(/"XX"/);
  });
});

describe("grpc_status_filter", () => {
  const answered = (text: string | undefined, responseCode = 200) => {
    const response = new ResponseHeaders();
    if (text !== undefined) response.append("grpc-status", text);
    return entry({ responseCode }, { response });
  };
  const entries = [answered("0"), answered("14"), answered(undefined, 503), answered(undefined)];
  it("reads the status as gRPC clients do, from the HTTP status where there is no other", () => {
    const filter = { statuses: ["UNAVAILABLE" as const], exclude: false };
    expect(passes({ grpc_status_filter: filter }, ...entries)).toEqual([false, true, true, false]);
  });
  it("excludes", () => {
    const filter = { statuses: ["UNKNOWN" as const], exclude: true };
    expect(passes({ grpc_status_filter: filter }, ...entries)).toEqual([true, true, true, false]);
  });
});

it("matches headers of the request, also where there is no request", () => {
  const request = new RequestHeaders();
  request.append("x-debug", "1");
  const header = {
    name: "x-debug",
    present_match: true,
    invert_match: false,
    treat_missing_header_as_empty: false,
  };
  const entries = [entry({}, { request }), entry(), entry({}, { request: undefined })];
  expect(passes({ header_filter: { header } }, ...entries)).toEqual([true, false, false]);
});

describe("metadata_filter", () => {
  const matcher = {
    filter: "ns",
    path: [{ key: "a" }, { key: "b" }],
    value: { bool_match: true },
    invert: false,
  };
  const left = (b: unknown) => entry({}, { metadata: new Map([["ns", { a: { b } }]]) });
  it("asks for the value, and else takes the default", () => {
    const entries = [left(true), left(false), entry()];
    const filter = (match_if_key_not_found: boolean) => ({
      metadata_filter: { matcher, match_if_key_not_found },
    });
    expect(passes(filter(true), ...entries)).toEqual([true, false, true]);
    expect(passes(filter(false), ...entries)).toEqual([true, false, false]);
  });
});

it("tells moments of a stream apart", () => {
  const entries = [entry(), entry({}, { logType: "DownstreamStart" })];
  const filter = (exclude: boolean): AccessLogFilter => ({
    log_type_filter: { types: ["DownstreamStart"], exclude },
  });
  expect(passes(filter(false), ...entries)).toEqual([false, true]);
  expect(passes(filter(true), ...entries)).toEqual([true, false]);
});

describe("runtime_filter", () => {
  const filter: AccessLogFilter = {
    runtime_filter: {
      runtime_key: "log.share",
      percent_sampled: { numerator: 50, denominator: "HUNDRED" },
      use_independent_randomness: false,
    },
  };
  const identified = (id: string) => {
    const request = new RequestHeaders();
    request.append("x-request-id", id);
    return entry({}, { request });
  };
  it("decides by the request id, so that all proxies agree", () => {
    // 0x00000031 is 49, 0x00000032 is 50.
    const entries = ["00000031-0000", "00000032-0000"].map(identified);
    expect(passes(filter, ...entries)).toEqual([true, false]);
    cx.runtime.replace([["log.share", 51]]);
    expect(passes(filter, ...entries)).toEqual([true, true]);
    cx.runtime.replace([]);
  });
});

it.each<[AccessLogFilter]>([[{}], [{ traceable_filter: {}, not_health_check_filter: {} }]])(
  "wants exactly one field: %j",
  (filter) => {
    expect(() => passes(filter)).toThrow(/give one of/);
  },
);

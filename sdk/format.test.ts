import { describe, expect, it } from "vitest";
import { compileDateFormat } from "./date-format.ts";
import {
  compileFormat,
  compileJsonFormat,
  DEFAULT_LOG_FORMAT,
  FormatError,
  type FormatSource,
} from "./format.ts";
import { RequestHeaders, ResponseHeaders } from "./headers.ts";
import type { StreamInfo } from "./http.ts";

const info = (changes: Partial<StreamInfo> = {}): StreamInfo => ({
  protocol: "HTTP/1.1",
  startTime: Date.UTC(2026, 10, 20, 9, 30, 52, 143),
  requestDuration: 1,
  responseDuration: 5,
  duration: 12,
  bytesReceived: 7,
  bytesSent: 98,
  responseCode: 503,
  responseCodeDetails: "via upstream",
  flags: [],
  routeName: "",
  virtualHostName: "",
  clusterName: "",
  upstreamHost: undefined,
  upstreamLocalAddress: undefined,
  upstreamTransportFailure: "",
  attempts: 0,
  connectionId: 3,
  downstreamRemoteAddress: { ip: "1.2.3.4", port: 0 },
  downstreamDirectAddress: { ip: "127.0.0.1", port: 5000 },
  downstreamLocalAddress: { ip: "::1", port: 10000 },
  ...changes,
});

function request(path: string, headers: Record<string, string> = {}): RequestHeaders {
  const head = new RequestHeaders();
  head.method = "GET";
  head.path = path;
  for (const [name, value] of Object.entries(headers)) head.append(name, value);
  return head;
}

function source(changes: Partial<FormatSource> = {}): FormatSource {
  return { info: info(), request: request("/"), response: undefined, ...changes };
}

const print = (format: string, from: FormatSource = source()) => compileFormat(format).format(from);

describe("text formats", () => {
  it("prints the default line of a failed request", () => {
    const response = new ResponseHeaders();
    response.status = 503;
    const line = print(
      DEFAULT_LOG_FORMAT,
      source({
        request: request("/dead", { host: "127.0.0.1:10000", "user-agent": "curl/7.88.1" }),
        response,
        info: info({ flags: ["UF"], upstreamHost: { ip: "127.0.0.1", port: 1 }, bytesReceived: 0 }),
      }),
    );
    expect(line).toBe(
      '[2026-11-20T09:30:52.143Z] "GET /dead HTTP/1.1" 503 UF 0 98 12 - "-" "curl/7.88.1" "-" "127.0.0.1:10000" "127.0.0.1:1"\n',
    );
  });

  it("prints the default line of a TCP connection", () => {
    const line = print(
      DEFAULT_LOG_FORMAT,
      source({
        request: undefined,
        info: info({ responseCode: 0, upstreamHost: { ip: "127.0.0.1", port: 1 } }),
      }),
    );
    expect(line).toBe(
      '[2026-11-20T09:30:52.143Z] "- - -" 0 - 7 98 12 - "-" "-" "-" "-" "127.0.0.1:1"\n',
    );
  });

  it.each([
    ["%REQ(X-A?X-B):3%", "abc"],
    ["%REQ(X-A)%", "-"],
    ["%REQ(:METHOD)% %REQ(:authority)% %REQ(:SCHEME)%", "GET h.test http"],
    ["%RESP(:STATUS)% %RESP(X-RESP)%", "503 r"],
    ["%TRAILER(X)%", "-"],
    ["%PATH(NQ)% %PATH(WQ:PATH)% %REQ_WITHOUT_QUERY(:PATH)%", "/v /v?q=1&r /v"],
    ["%PATH(NQ:ORIG)% %PATH%", "/old /old?x"],
    ["%QUERY_PARAM(q)% %QUERY_PARAM(r)% %QUERY_PARAM(s)%", "1 - -"],
    ["100%%", "100%"],
    ["%RESPONSE_CODE_DETAILS%", "via_upstream"],
    [
      "%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%",
      "URX,UF UpstreamRetryLimitExceeded,UpstreamConnectionFailure",
    ],
    ["%DURATION% %REQUEST_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%", "12 1 5 7"],
    ["%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", "1.2.3.4:0 127.0.0.1:5000"],
    [
      "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT%",
      "[::1]:10000 ::1 10000",
    ],
    ["%UPSTREAM_HOST% %UPSTREAM_CLUSTER% %ROUTE_NAME%", "- - -"],
    [
      "%DYNAMIC_METADATA(ns:a:b)% %DYNAMIC_METADATA(ns)% %DYNAMIC_METADATA(ns:x)%",
      '4 {"a":{"b":4}} -',
    ],
    ["%METADATA(ROUTE:my:key)%", "meta"],
    ["%START_TIME(%Y)% %START_TIME(%s.%3f)%", "2026 1795167052.143"],
    ["%ACCESS_LOG_TYPE% %LOCAL_REPLY_BODY%", "DownstreamEnd "],
    ["%CONNECTION_ID% %STREAM_ID%", "3 -"],
  ])("%s", (format, expected) => {
    const response = new ResponseHeaders();
    response.status = 503;
    response.append("x-resp", "r");
    const from = source({
      request: request("/v?q=1&r", {
        host: "h.test",
        "x-b": "abcdef",
        "x-envoy-original-path": "/old?x",
      }),
      response,
      info: info({ flags: ["URX", "UF"] }),
      metadata: new Map([["ns", { a: { b: 4 } }]]),
      routeMetadata: { my: { key: "meta" } },
    });
    const original = from.request!.get("x-envoy-original-path");
    if (format.includes("PATH") && !format.includes("ORIG"))
      from.request!.remove("x-envoy-original-path");
    expect(print(format, from)).toBe(expected);
    expect(original).toBe("/old?x");
  });

  it("reads the bytes of headers as UTF-8", () => {
    const from = source({ request: request("/", { "x-name": "caf\u00c3\u00a9" }) });
    expect(print("é %REQ(x-name)%", from)).toBe("é café");
  });

  it("finds gRPC status in the trailers before the headers", () => {
    const response = new ResponseHeaders();
    response.append("grpc-status", "0");
    const trailers = new ResponseHeaders();
    trailers.append("grpc-status", "14");
    const from = source({ response, trailers });
    expect(print("%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS_NUMBER%", from)).toBe(
      "Unavailable UNAVAILABLE 14",
    );
  });

  it.each([
    ["%NOPE%", /%NOPE% is not a command/],
    ["50% of", /is not a command; a percent sign is written %%/],
    ["%DURATION:3%", /%DURATION%: takes no length/],
    ["%DURATION(x)%", /%DURATION%: takes no parameter/],
    ["%REQ()%", /%REQ%: header name is empty/],
    ["%REQ(a?b?c)%", /X\?Y/],
    ["%START_TIME(%Q)%", /not a date conversion/],
    ["%PATH(XX)%", /WQ or NQ/],
    ["%QUERY_PARAM%", /name of a parameter/],
    ["%DYNAMIC_METADATA%", /takes a namespace/],
    ["%METADATA(CLUSTER:a)%", /ROUTE or DYNAMIC/],
  ])("refuses %s", (format, message) => {
    expect(() => compileFormat(format)).toThrow(FormatError);
    expect(() => compileFormat(format)).toThrow(message);
  });

  it("leaves it to the caller what becomes of an unknown command", () => {
    const told: string[] = [];
    const format = compileFormat("a %NOPE% 5% b", {
      onUnknown: (_, command) => told.push(command),
    });
    expect(format.format(source())).toBe("a - 5% b");
    expect(told).toEqual(["NOPE", "% b"]);
  });

  it("tells of commands that have no data here", () => {
    const told: string[] = [];
    const format = compileFormat("%DOWNSTREAM_TLS_VERSION% %ENVIRONMENT(X)%", {
      onUnsupported: (command) => told.push(command),
    });
    expect(format.format(source())).toBe("- -");
    expect(told).toEqual(["DOWNSTREAM_TLS_VERSION", "ENVIRONMENT"]);
  });
});

describe("values of headers", () => {
  it("keeps one char a byte and prints nothing for a missing value", () => {
    const from = source({ request: request("/", { "x-name": "caf\u00c3\u00a9" }) });
    const format = compileFormat("é%REQ(x-name)%%REQ(x-none)%", { purpose: "header" });
    expect(format.format(from)).toBe("\u00c3\u00a9caf\u00c3\u00a9");
  });

  it("lets no metadata break out of its line", () => {
    const from = source({ metadata: new Map([["ns", { k: "a\r\nx: y" }]]) });
    const format = compileFormat("%DYNAMIC_METADATA(ns:k)%", { purpose: "header" });
    expect(format.format(from)).toBe("a  x: y");
  });
});

describe("JSON formats", () => {
  it("keeps types, sorts keys and nests", () => {
    const format = compileJsonFormat({
      status: "%RESPONSE_CODE%",
      text: "%RESPONSE_CODE% %REQ(X)%",
      none: "%REQ(X)%",
      deep: { b: ["%DURATION%", 1, true], a: "x" },
    });
    expect(format.format(source())).toBe(
      '{"deep":{"a":"x","b":[12,1,true]},"none":null,"status":503,"text":"503 -"}\n',
    );
  });

  it("drops missing values when asked to", () => {
    const format = compileJsonFormat({ a: "%REQ(X)%", b: "%DURATION%" }, { omitEmpty: true });
    expect(format.format(source())).toBe('{"b":12}\n');
  });

  it("escapes what a client sends", () => {
    const from = source({ request: request("/", { "x-q": '"\\' }) });
    expect(compileJsonFormat({ __proto__: null, q: "%REQ(x-q)%" }).format(from)).toBe(
      '{"q":"\\"\\\\"}\n',
    );
  });
});

describe("date formats", () => {
  const time = Date.UTC(2027, 0, 3, 0, 5, 7, 40);
  it.each([
    ["%Y-%m-%dT%H:%M:%E3SZ", "2027-01-03T00:05:07.040Z"],
    ["%E*S|%E*f|%f|%2f|%E0S", "07.04|04|040000000|04|07"],
    ["%a %A %b %B %e %j %u %w", "Sun Sunday Jan January  3 003 7 0"],
    ["%G-W%V %U %W %y %C", "2026-W53 01 00 27 20"],
    ["%I:%M %p %l %k|%r", "12:05 AM 12  0|12:05:07 AM"],
    ["%D %F %T %R %z %Ez %Z %%", "01/03/27 2027-01-03 00:05:07 00:05 +0000 +00:00 UTC %"],
    ["%c", "Sun Jan  3 00:05:07 2027"],
    ["%s", String(time / 1000 - 0.04)],
  ])("%s", (format, expected) => {
    expect(compileDateFormat(format)(time)).toBe(expected);
  });
});

import { describe, expect, it } from "vitest";
import { compileDateFormat } from "./date-format.ts";
import {
  compileFormat,
  compileJsonFormat,
  DEFAULT_LOG_FORMAT,
  type Format,
  FormatError,
  type FormatSource,
} from "./format.ts";
import { RequestHeaders, ResponseHeaders } from "./headers.ts";
import { newStreamInfo, type StreamInfo } from "./http.ts";
import { surroundings } from "./surroundings.ts";
import { lineOf as writtenLine } from "./testing/line.ts";
import type { Certificate, TlsInfo } from "./transport.ts";

const info = (changes: Partial<StreamInfo> = {}): StreamInfo =>
  newStreamInfo({
    startTime: Date.UTC(2026, 10, 20, 9, 30, 52, 143),
    requestDuration: 1,
    responseDuration: 5,
    duration: 12,
    downstreamTxEnd: 12,
    bytesReceived: 7,
    bytesSent: 98,
    responseCode: 503,
    responseCodeDetails: "via upstream",
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

/** What a format prints, after a look that its bytes are those of its text. */
function lineOf(format: Format, from: FormatSource): string {
  const text = format.format(from);
  expect(writtenLine(format, from)).toBe(text.toWellFormed());
  return text;
}

const print = (format: string, from: FormatSource = source()) =>
  lineOf(compileFormat(format), from);

describe("text formats", () => {
  it("has REQ_WITHOUT_QUERY where it is listed", () => {
    const format = compileFormat("%REQ_WITHOUT_QUERY(:PATH)%", { withoutQuery: true });
    expect(lineOf(format, source({ request: request("/v?q=1") }))).toBe("/v");
  });

  it.each([
    ["SNI_ONLY", "sni.test", "sni.test"],
    ["SNI_ONLY", "", "-"],
    ["SNI_FIRST", "sni.test", "sni.test"],
    ["SNI_FIRST", "", "old.test"],
    ["SNI_FIRST:HOST", "", "new.test"],
    ["HOST_FIRST", "sni.test", "old.test"],
    ["HOST_FIRST:HOST", "sni.test", "new.test"],
    ["HOST_FIRST:ORIG", "sni.test", "old.test"],
  ])("takes REQUESTED_SERVER_NAME(%s) of SNI %j for %s", (parameter, serverName, printed) => {
    const asked = request("/", { host: "new.test", "x-envoy-original-host": "old.test" });
    const from = source({ request: asked, serverName });
    expect(print(`%REQUESTED_SERVER_NAME(${parameter})%`, from)).toBe(printed);
  });

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
    ["%PATH(NQ)% %PATH(WQ:PATH)%", "/v /v?q=1&r"],
    ["%PATH(NQ:ORIG)% %PATH%", "/old /old?x"],
    ["%CEL(request.query.size() > 3 ? 'long' : 'short'):2% %CEL(nothing)%", "lo -"],
    ["%QUERY_PARAM(q)% %QUERY_PARAM(r)% %QUERY_PARAM(s)%", "1  -"],
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

  it("knows how an upstream closed once one was tried, also where no host was", () => {
    const closeType = (changes: Parameters<typeof info>[0]) =>
      print("%UPSTREAM_DETECTED_CLOSE_TYPE%", source({ info: info(changes) }));
    expect(closeType({})).toBe("-");
    expect(closeType({ upstreamPoolReady: 0 })).toBe("Normal");
    expect(closeType({ upstreamHost: { ip: "127.0.0.1", port: 1 } })).toBe("Normal");
    expect(closeType({ upstreamCloseType: "RemoteReset" })).toBe("RemoteReset");
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
    const grpc = request("/", { "content-type": "application/grpc" });
    expect(print("%GRPC_STATUS%", source({ response, trailers }))).toBe("-");
    const from = source({ request: grpc, response, trailers });
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
    ["%PATH(XX)%", /WQ or NQ/],
    ["%QUERY_PARAM%", /name of a parameter/],
    ["%DYNAMIC_METADATA%", /takes a namespace/],
    ["%METADATA(NOPE:a)%", /"NOPE" is not one of/],
    ["%COMMON_DURATION(DS_RX_BEG)%", /START:END:PRECISION/],
    ["%COMMON_DURATION(DS_RX_BEG:DS_TX_END:)%", /START:END:PRECISION/],
    ["%REQUESTED_SERVER_NAME(HOST)%", /"HOST" is not SNI_ONLY/],
    ["%REQUESTED_SERVER_NAME(HOST_FIRST:X)%", /"X" is not ORIG_OR_HOST/],
    ["%REQ_WITHOUT_QUERY(:path)%", /needs an entry of formatters/],
    ["%FILTER_STATE(a:JSON)%", /PLAIN, TYPED or FIELD/],
    ["%COALESCE(x)%", /COALESCE/],
    ["%QUERY_PARAMS(x)%", /ORIG or DECODED/],
  ])("refuses %s", (format, message) => {
    expect(() => compileFormat(format)).toThrow(FormatError);
    expect(() => compileFormat(format)).toThrow(message);
  });

  it("lists the hosts of all attempts of a TCP connection, and that of a request's last one", () => {
    const format =
      "%UPSTREAM_HOSTS_ATTEMPTED% %UPSTREAM_HOST_NAMES_ATTEMPTED% %UPSTREAM_CONNECTION_IDS_ATTEMPTED% " +
      "%UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT% %UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT%";
    expect(print(format)).toBe("- - - - -");
    const failed = info({ upstreamHost: { ip: "10.0.0.2", port: 80 } });
    expect(print(format, source({ info: failed }))).toBe("- - - - -");
    const host = { hostname: "b.test:80", metadata: undefined };
    const one = { ...failed, upstreamConnectionId: 9, host };
    expect(print(format, source({ info: one }))).toBe("10.0.0.2:80 b.test:80 9 10.0.0.2 b.test");
    const attemptedBefore = [{ address: { ip: "10.0.0.1", port: 80 }, hostname: "" }];
    const two = { ...one, attemptedBefore };
    expect(print(format, source({ info: two, request: undefined }))).toBe(
      "10.0.0.1:80,10.0.0.2:80 10.0.0.1:80,b.test:80 9 10.0.0.1,10.0.0.2 10.0.0.1,b.test",
    );
  });

  it("has the connections of attempts as a text in JSON, and the last one as a number", () => {
    const format = compileJsonFormat({
      all: "%UPSTREAM_CONNECTION_IDS_ATTEMPTED%",
      last: "%UPSTREAM_CONNECTION_ID%",
    });
    const from = source({ info: info({ upstreamConnectionId: 9 }) });
    expect(lineOf(format, from)).toBe('{"all":"9","last":9}\n');
  });

  it("has no log type in a header", () => {
    const format = compileFormat("%ACCESS_LOG_TYPE%", { purpose: "header" });
    expect(lineOf(format, source())).toBe("NotSet");
  });

  it("masks addresses", () => {
    const format = (bits: string) => `%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(${bits})%`;
    expect(print(format("24") + format("0"))).toBe("1.2.3.0/240.0.0.0/0");
    expect(() => compileFormat(format("129"))).toThrow("0 to 128");
    expect(() => compileFormat(format("x"))).toThrow("0 to 128");
  });

  it("leaves it to the caller what becomes of an unknown command", () => {
    const told: string[] = [];
    const format = compileFormat("a %NOPE% 5% b", {
      onUnknown: (_, command) => told.push(command),
    });
    expect(lineOf(format, source())).toBe("a - 5% b");
    expect(told).toEqual(["NOPE", "% b"]);
  });

  it("tells of commands that have no data here", () => {
    const told: string[] = [];
    const format = compileFormat("%DOWNSTREAM_CX_RTT% %DYNAMIC_MODULE%", {
      onUnsupported: (command) => told.push(command),
    });
    expect(lineOf(format, source())).toBe("- -");
    expect(told).toEqual(["DOWNSTREAM_CX_RTT", "DYNAMIC_MODULE"]);
  });
});

describe("commands, as Envoy 1.40 printed them", () => {
  const head = request("/d?q=%41&b=%20x&q=2", {
    host: "127.0.0.1:24911",
    "x-b": "beta",
    "x-request-id": "65afd24c-2810-4231-a460-10df069e40c8",
  });
  const one = { filter_metadata: { ns: { k: "v", n: 1.5, l: [1, "a"] } } };
  const full = source({
    request: head,
    routeMetadata: { my: { k: [1, "a"] } },
    virtualHostMetadata: { vh: { k: "vhv" } },
    metadata: new Map([["dyn", { a: { b: true } }]]),
    filterState: new Map<string, unknown>([
      ["plain", "text"],
      ["map", { x: 5 }],
    ]),
    downstream: {
      listener: { name: "main", statPrefix: "", direction: "INBOUND", metadata: one },
      serverName: "a.test",
      filterChainName: "fc",
      tls: tlsInfo(),
    },
    info: info({
      routeName: "rt",
      clusterName: "up",
      cluster: { observabilityName: "alt", metadata: one },
      host: { hostname: "localhost:80", metadata: one, locality: { zone: "z1" } },
      upstreamHost: { ip: "127.0.0.1", port: 24912 },
      upstreamRemoteAddress: { ip: "127.0.0.1", port: 24912 },
      requestDuration: 2.4,
      responseDuration: 10.25,
      duration: 42.207,
      downstreamTxEnd: 42.207,
      upstreamPoolReady: 3.9,
      upstreamTxBegin: 1,
      upstreamTxEnd: 3.9,
    }),
  });
  it.each([
    ["%REQ(X-A?X-B):2%", "be"],
    ["%QUERY_PARAM(q)% %QUERY_PARAM(b)% %QUERY_PARAM(none)%", "A  x -"],
    ["%QUERY_PARAMS% %QUERY_PARAMS(DECODED):5%", "q=%41&b=%20x&q=2 q=A&b"],
    ["%PATH% %PATH(NQ)% %PATH:3%", "/d?q=%41&b=%20x&q=2 /d /d?"],
    ["%METADATA(ROUTE:my:k)% %METADATA(ROUTE:my)%", '[1,"a"] {"k":[1,"a"]}'],
    ["%METADATA(VIRTUAL_HOST:vh:k)% %METADATA(LISTENER:ns:k)%", "vhv v"],
    ["%CLUSTER_METADATA(ns:n)% %UPSTREAM_METADATA(ns:k)%", "1.5 v"],
    ["%METADATA(CLUSTER:ns:k):1% %METADATA(UPSTREAM_HOST:none)%", "v -"],
    ["%DYNAMIC_METADATA(dyn:a:b)% %DYNAMIC_METADATA(dyn:a):3%", 'true {"b'],
    ["%UPSTREAM_CONNECTION_POOL_READY_DURATION%", "3"],
    [
      "%CEL(upstream.locality)%|%CEL(upstream.locality.zone)%|%CEL(upstream.locality.region)%",
      'zone: "z1" |z1|',
    ],
    ["%CEL(has(upstream.locality.zone))% %CEL(has(upstream.locality.region))%", "true false"],
    ["%CEL(upstream.cx_pool_ready_duration)%", "3.9ms"],
    ["%PER_REQUEST_STATE(plain)% %PER_REQUEST_STATE(no)%", "text -"],
    ["%FILTER_STATE(plain:PLAIN)% %FILTER_STATE(map:FIELD:x)% %FILTER_STATE(no)%", "text 5 -"],
    ["%FILTER_STATE(plain)% %FILTER_STATE(plain:TYPED):3%", '"text" "te'],
    ["%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%", "42207"],
    ["%COMMON_DURATION(DS_RX_BEG:DS_TX_END)%", "42"],
    ["%COMMON_DURATION(US_TX_BEG:US_RX_BEG:ms)% %COMMON_DURATION(US_CX_BEG:DS_TX_END:ns)%", "9 -"],
    ["%REQUEST_DURATION% %REQUEST_TX_DURATION% %DURATION%", "2 3 42"],
    ["%RESPONSE_TX_DURATION% %ROUNDTRIP_DURATION%", "32 -"],
    ["%UPSTREAM_CLUSTER% %UPSTREAM_CLUSTER_RAW%", "alt up"],
    ["%UPSTREAM_HOST_NAME% %UPSTREAM_HOST_NAME_WITHOUT_PORT%", "localhost:80 localhost"],
    ["%UPSTREAM_REMOTE_PORT% %DOWNSTREAM_DIRECT_LOCAL_PORT%", "24912 10000"],
    ["%LISTENER_NAME% %FILTER_CHAIN_NAME% %REQUESTED_SERVER_NAME%", "main fc a.test"],
    ["%STREAM_ID%", "65afd24c-2810-4231-a460-10df069e40c8"],
    ["%CUSTOM_FLAGS%%TRACE_ID%%DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID%", "-"],
    [
      "%RESPONSE_CODE_DETAILS% %RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%",
      "via_upstream via upstream",
    ],
    ['%COALESCE({"operators": [{"command":"REQ","param":"nope"}, "ROUTE_NAME"]})%', "rt"],
    [
      "%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER% %UPSTREAM_TLS_VERSION%",
      "TLSv1.3 TLS_AES -",
    ],
    ["%DOWNSTREAM_PEER_DNS_SAN% %DOWNSTREAM_PEER_URI_SAN%", "a.test,b.test spiffe://x"],
    ["%DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256% %DOWNSTREAM_PEER_CHAIN_SERIALS%", "aa,cc 1a,2b"],
    ["%DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1%", "bb,dd"],
    ["%DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_LOCAL_SUBJECT%", "CN=peer -"],
    ["%DOWNSTREAM_PEER_CERT% %DOWNSTREAM_PEER_CERT_V_END(%Y)%", "a%2Bb%0A 2027"],
  ])("%s", (format, line) => {
    expect(print(format, full)).toBe(line);
  });

  it("counts header bytes with pseudo headers, as HTTP/2 would have them", () => {
    const bare = request("/d?q=1&b=%20x", {
      host: "127.0.0.1:24911",
      "accept-encoding": "identity",
      "user-agent": "Python-urllib/3.11",
      "x-forwarded-proto": "http",
      "x-request-id": "65afd24c-2810-4231-a460-10df069e40c8",
    });
    expect(print("%REQUEST_HEADERS_BYTES%", source({ request: bare }))).toBe("184");
    const connect = new RequestHeaders();
    connect.method = "CONNECT";
    connect.authority = "a:1";
    expect(print("%REQUEST_HEADERS_BYTES%", source({ request: connect }))).toBe(
      `${":methodCONNECT:scheme:authoritya:1".length + connect.scheme.length}`,
    );
    const unread = source({ request: new RequestHeaders() });
    expect(print("%REQUEST_HEADERS_BYTES%", unread)).toBe("0");
    const refused = new RequestHeaders();
    refused.method = "GET";
    refused.path = "/ok";
    refused.scheme = "";
    expect(print("%REQUEST_HEADERS_BYTES%", source({ request: refused }))).toBe("18");
  });

  it("counts the `connection: close` that the codec adds", () => {
    const response = new ResponseHeaders();
    const size = (changes: Partial<StreamInfo>) =>
      Number(print("%RESPONSE_HEADERS_BYTES%", source({ info: info(changes), response })));
    expect(size({ downstreamWire: { saidClose: true } }) - size({})).toBe(15);
  });

  it("tells the bytes of heads before compression, over HTTP/1 those of the wire", () => {
    const fields = ["RECEIVED", "SENT"].map((way) => `%UPSTREAM_DECOMPRESSED_HEADER_BYTES_${way}%`);
    const of = (upstreamWire: StreamInfo["upstreamWire"]) =>
      print(fields.join(" "), source({ info: info({ upstreamWire }) }));
    expect(of({ headerReceived: 1, headerSent: 2 })).toBe("1 2");
    expect(of({ headerReceived: 1, headerSent: 2, fieldsReceived: 3, fieldsSent: 4 })).toBe("3 4");
    expect(of(undefined)).toBe("0 0");
  });

  it("makes another unique id for every line", () => {
    const format = compileFormat("%UNIQUE_ID%");
    const lines = [writtenLine(format, source()), writtenLine(format, source())];
    expect(lines[0]).toMatch(
      /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    );
    expect(lines[0]).not.toBe(lines[1]);
  });

  it("reads the environment once", () => {
    surroundings.environment = { HOME: "/root" };
    surroundings.hostname = "vm";
    expect(print("%ENVIRONMENT(HOME)% %ENVIRONMENT(HOME):3% %ENVIRONMENT(NO)% %HOSTNAME%")).toBe(
      "/root /ro - vm",
    );
  });
});

function tlsInfo(): TlsInfo {
  const peer: Certificate = {
    subject: "CN=peer",
    issuer: "CN=ca",
    commonName: "peer",
    serial: "1a",
    sha256: "aa",
    sha1: "bb",
    spki: "",
    notBefore: 0,
    notAfter: Date.UTC(2027, 0, 1),
    names: [
      { type: "DNS", value: "a.test" },
      { type: "URI", value: "spiffe://x" },
      { type: "DNS", value: "b.test" },
    ],
    keyType: "ec",
    curve: "",
    bits: 0,
    pem: "a+b\n",
  };
  return {
    version: "TLSv1.3",
    cipher: "TLS_AES",
    curve: "",
    alpn: "",
    serverName: "a.test",
    sessionId: "",
    resumed: false,
    peer,
    peerChain: [],
    peerChainMarks: [peer, { serial: "2b", sha256: "cc", sha1: "dd" }],
    verifyError: "",
    peerValidated: true,
    local: undefined,
  };
}

describe("values of headers", () => {
  it("keeps one char a byte and prints nothing for a missing value", () => {
    const from = source({ request: request("/", { "x-name": "caf\u00c3\u00a9" }) });
    const format = compileFormat("é%REQ(x-name)%%REQ(x-none)%", { purpose: "header" });
    expect(lineOf(format, from)).toBe("\u00c3\u00a9caf\u00c3\u00a9");
  });

  it("writes names beyond one byte a char in UTF-8, as a header can carry them", () => {
    const from = source({ info: info({ routeName: "путь" }) });
    const format = compileFormat("%ROUTE_NAME%", { purpose: "header" });
    expect(lineOf(format, from)).toBe(Buffer.from("путь").toString("latin1"));
  });

  it("lets no metadata break out of its line", () => {
    const from = source({ metadata: new Map([["ns", { k: "a\r\nx: y" }]]) });
    const format = compileFormat("%DYNAMIC_METADATA(ns:k)%", { purpose: "header" });
    expect(lineOf(format, from)).toBe("a  x: y");
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
    expect(lineOf(format, source())).toBe(
      '{"deep":{"a":"x","b":[12,1,true]},"none":null,"status":503,"text":"503 -"}\n',
    );
  });

  it("escapes a value that is no UTF-8 byte by byte", () => {
    const format = compileJsonFormat({ a: "%REQ(X-BYTES)%" });
    const line = (value: string) => {
      const request = new RequestHeaders();
      request.set("x-bytes", value);
      return lineOf(format, source({ request }));
    };
    expect(line("\xc3\xa9 \xf0\x9f\x98\x80")).toBe('{"a":"é 😀"}\n');
    expect(line('"\t')).toBe('{"a":"\\"\\t"}\n');
    expect(line('"\t\xe9')).toBe('{"a":"\\u0022\\u0009\\u00e9"}\n');
    const both = compileJsonFormat({ a: "%REQ(x-a)% %REQ(x-b)%" }, {});
    const values = request("/", { "x-a": "\t", "x-b": "\t\xe9" });
    expect(lineOf(both, source({ request: values }))).toBe('{"a":"\\t \\u0009\\u00e9"}\n');
  });

  it("drops missing values when asked to", () => {
    const format = compileJsonFormat({ a: "%REQ(X)%", b: "%DURATION%" }, { omitEmpty: true });
    expect(lineOf(format, source())).toBe('{"b":12}\n');
  });

  it("drops lists' entries and maps that have nothing left", () => {
    const tree = { a: ["%REQ(X)%", "%DURATION%", 3, "x%REQ(X)%"], e: { q: "%REQ(X)%" }, z: null };
    expect(lineOf(compileJsonFormat(tree, { omitEmpty: true }), source())).toBe(
      '{"a":[12,3,"x"]}\n',
    );
    expect(lineOf(compileJsonFormat({ e: "%REQ(X)%" }, { omitEmpty: true }), source())).toBe(
      "{}\n",
    );
  });

  it("tells of retransmission what Envoy does over TCP", () => {
    const tree = { a: "%BYTES_RETRANSMITTED%", b: "x%PACKETS_RETRANSMITTED%" };
    expect(lineOf(compileJsonFormat(tree), source())).toBe('{"a":0,"b":"x0"}\n');
  });

  it("escapes what a client sends", () => {
    const from = source({ request: request("/", { "x-q": '"\\' }) });
    expect(lineOf(compileJsonFormat({ __proto__: null, q: "%REQ(x-q)%" }), from)).toBe(
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
    ["%Q %E4n %!|%", "%Q %E4n %!|%"],
    ["%s", String(time / 1000 - 0.04)],
  ])("%s", (format, expected) => {
    expect(compileDateFormat(format)(time)).toBe(expected);
  });
});

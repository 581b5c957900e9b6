import { ConfigError, type LogEntry, newStreamInfo, RequestHeaders } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import file from "./filter.ts";

const info = newStreamInfo({
  startTime: Date.UTC(2026, 10, 20, 9, 30, 52, 143),
  requestDuration: 0,
  duration: 3,
  bytesReceived: 4,
  bytesSent: 10,
  clusterName: "e",
  upstreamHost: { ip: "127.0.0.1", port: 1 },
  attempts: 1,
  connectionId: 1,
  downstreamRemoteAddress: { ip: "127.0.0.1", port: 2 },
  downstreamDirectAddress: { ip: "127.0.0.1", port: 2 },
  downstreamLocalAddress: { ip: "127.0.0.1", port: 3 },
});

const tcp: LogEntry = { info, request: undefined, response: undefined, trailers: undefined };

function http(path: string): LogEntry {
  const request = new RequestHeaders();
  request.method = "GET";
  request.path = path;
  return { ...tcp, info: { ...info, responseCode: 200 }, request };
}

function lines(config: Record<string, unknown>, ...entries: LogEntry[]): string | undefined {
  const cx = new TestContext();
  const logger = cx.setup(file, { path: "/log", ...config });
  for (const entry of entries) logger.log(entry);
  return cx.files.get("/log");
}

it("writes Envoy's default line for requests and connections", () => {
  expect(lines({}, http("/a"), tcp)).toBe(
    '[2026-11-20T09:30:52.143Z] "GET /a HTTP/1.1" 200 - 4 10 3 - "-" "-" "-" "-" "127.0.0.1:1"\n' +
      '[2026-11-20T09:30:52.143Z] "- - -" 0 - 4 10 3 - "-" "-" "-" "-" "127.0.0.1:1"\n',
  );
});

it.each([
  [{ format: "%BYTES_SENT%\n" }],
  [{ log_format: { text_format: "%BYTES_SENT%\n" } }],
  [{ log_format: { text_format_source: { inline_string: "%BYTES_SENT%\n" } } }],
])("takes a text format from %j", (config) => {
  expect(lines(config, tcp)).toBe("10\n");
});

it.each([
  [{ json_format: { sent: "%BYTES_SENT%", route: "%ROUTE_NAME%" } }],
  [{ typed_json_format: { sent: "%BYTES_SENT%", route: "%ROUTE_NAME%" } }],
  [{ log_format: { json_format: { sent: "%BYTES_SENT%", route: "%ROUTE_NAME%" } } }],
])("writes JSON with types from %j", (config) => {
  expect(lines(config, tcp)).toBe('{"route":null,"sent":10}\n');
});

it("leaves missing values out when asked to", () => {
  const json = { json_format: { a: "%ROUTE_NAME%", b: "%BYTES_SENT%" }, omit_empty_values: true };
  expect(lines({ log_format: json }, tcp)).toBe('{"b":10}\n');
  const text = { text_format: "<%ROUTE_NAME%>", omit_empty_values: true };
  expect(lines({ log_format: text }, tcp)).toBe("<>");
});

it("refuses a command that nobody knows, naming the field", () => {
  const setup = () => lines({ log_format: { text_format: "%NOPE%" } });
  expect(setup).toThrow(ConfigError);
  expect(setup).toThrow(/%NOPE% is not a command/);
  try {
    setup();
  } catch (error) {
    expect((error as ConfigError).path).toBe("log_format.text_format");
  }
});

it("refuses two formats at once", () => {
  expect(() => lines({ format: "a", json_format: { a: "b" } })).toThrow(/stands beside "format"/);
});

it("warns of a command that has no data here", () => {
  const cx = new TestContext();
  cx.setup(file, { path: "/log", format: "%DYNAMIC_MODULE%" });
  expect(cx.logged).toEqual([
    expect.objectContaining({
      level: "warn",
      message: expect.stringContaining("DYNAMIC_MODULE"),
    }),
  ]);
});

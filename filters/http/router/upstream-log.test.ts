import { headerName } from "@tsproxy/sdk";
import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import { oneHost, routeTo, TestProxy } from "../../network/http_connection_manager/test-proxy.ts";
import router from "./filter.ts";

describe("upstream_log", () => {
  it("has a line for every attempt, with its own code, flags and sizes", () => {
    const p = new TestProxy({ codec, router });
    const lines: string[] = [];
    p.cx.define("access_log/tries", {
      kind: "access_log",
      setup: () => ({
        log: ({ info, logType, response }: import("@tsproxy/sdk").LogEntry) =>
          void lines.push(
            [
              logType,
              info.responseCode,
              info.flags.join(",") || "-",
              info.bytesSent,
              info.bytesReceived,
              info.upstreamHost === undefined ? "-" : "host",
              response?.get(headerName("x-t")) ?? "-",
              info.protocol || "-",
            ].join(" "),
          ),
      }),
    });
    const upstream_log = [{ name: "l", package: "access_log/tries", config: {} }];
    const upstream_log_options = { flush_upstream_log_on_upstream_stream: true };
    p.start({
      route_config: oneHost(
        routeTo("up", { retry_policy: { retry_on: "5xx", num_retries: 2, per_try_timeout: 500 } }),
      ),
      http_filters: [
        {
          name: "r",
          package: "http/router",
          config: { strict_check_headers: [], upstream_log, upstream_log_options },
        },
      ],
    });
    p.connect().send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n12345");
    p.up.last.respond(503, { "x-t": "one" }, "busy");
    p.cx.clock.advance(250);
    p.cx.clock.advance(500);
    p.cx.clock.advance(250);
    p.up.last.respond(200, { "x-t": "two" }, "done!!");
    expect(lines).toEqual([
      "UpstreamPoolReady 0 - 0 0 host - HTTP/1.1",
      "UpstreamEnd 503 - 5 0 host one HTTP/1.1",
      "UpstreamPoolReady 0 - 0 0 host - HTTP/1.1",
      "UpstreamEnd 0 UT 5 0 host - HTTP/1.1",
      "UpstreamPoolReady 0 - 0 0 host - HTTP/1.1",
      "UpstreamEnd 200 - 5 6 host two HTTP/1.1",
    ]);
  });
});

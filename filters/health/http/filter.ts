import {
  ConfigError,
  compileHeaderRules,
  compileStringMatch,
  defineHealthChecker,
  type HealthTarget,
  headerText,
  payloadBytes,
  probeSource,
  RequestHeaders,
} from "@tsproxy/sdk";
import { Config, check, methodOf } from "./config.ts";
import { type HttpCheck, HttpSession } from "./session.ts";

const MAX_ANSWER_BYTES = 65_536; // of a body, where the config has no limit

export default defineHealthChecker({
  name: "envoy.health_checkers.http",
  types: ["envoy.config.core.v3.HealthCheck.HttpHealthCheck"],
  config: Config,
  setup(config: Config, cx) {
    check(config);
    const receive = config.receive.map((block, k) => payloadBytes(block, `receive[${k}]`));
    const size = receive.reduce((sum, block) => sum + block.length, 0);
    const limit = config.response_buffer_size;
    if (limit !== 0 && size > limit)
      throw new ConfigError(
        "receive",
        `the expected response length '${size}' is over than http health response buffer size '${limit}'`,
      );
    const rules = compileHeaderRules(
      {
        request_headers_to_add: config.request_headers_to_add,
        request_headers_to_remove: config.request_headers_to_remove,
        response_headers_to_add: [],
        response_headers_to_remove: [],
      },
      "request",
      "",
    );
    const send = config.send && payloadBytes(config.send, "send");
    const method = methodOf(config);
    const path = headerText(config.path, "path");
    const expected =
      config.expected_statuses.length > 0 ? config.expected_statuses : [{ start: 200, end: 201 }];
    const within = (ranges: Config["expected_statuses"]) => (status: number) =>
      ranges.some(({ start, end }) => status >= start && status < end);

    const protocol = config.codec_client_type === "HTTP2" ? "HTTP/2" : "HTTP/1.1";
    const head = (target: HealthTarget): RequestHeaders => {
      const headers = new RequestHeaders();
      headers.method = method;
      headers.path = path;
      headers.authority = headerText(target.hostname || config.host || target.clusterName, "host");
      headers.set("user-agent", "Envoy/HC");
      rules?.apply(headers, probeSource(target, headers, protocol));
      if (send !== undefined) headers.set("content-length", String(send.length));
      return headers;
    };
    const options: HttpCheck = {
      codec: cx.shipped(
        "codec",
        config.codec_client_type === "HTTP2" ? "codec/http2" : "codec/http1",
      ),
      receive,
      send,
      bodyBytes: receive.length === 0 ? 0 : Math.min(limit || MAX_ANSWER_BYTES, MAX_ANSWER_BYTES),
      expected: within(expected),
      retriable: within(config.retriable_statuses),
      serviceName:
        config.service_name_matcher &&
        compileStringMatch(config.service_name_matcher, "service_name_matcher", cx),
      head,
    };
    return { type: "HTTP", create: (target, events) => new HttpSession(options, target, events) };
  },
});

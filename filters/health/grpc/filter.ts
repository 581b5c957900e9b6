import {
  compileHeaderRules,
  defineHealthChecker,
  GrpcHealthCheck,
  type HealthEvents,
  type HealthSession,
  type HealthTarget,
  HttpProbe,
  type HttpProbeAnswer,
  headerText,
  probeSource,
  RequestHeaders,
  utf8Encode,
} from "@tsproxy/sdk";

const MAX_ANSWER_BYTES = 4096; // a HealthCheckResponse has two bytes
const SERVING = 1;

/** A length-prefixed gRPC message around `HealthCheckRequest { string service = 1 }`. */
function requestOf(service: string): Uint8Array {
  const name = utf8Encode(service);
  const field = name.length === 0 ? [] : [0x0a, ...varint(name.length), ...name];
  const { length } = field;
  return Uint8Array.from([0, length >>> 24, length >>> 16, length >>> 8, length, ...field]);
}

function varint(n: number): number[] {
  return n < 0x80 ? [n] : [(n & 0x7f) | 0x80, ...varint(n >>> 7)];
}

/** The field `status` of a HealthCheckResponse in its gRPC frame; undefined: it is no such message. */
export function statusOf(body: Uint8Array): number | undefined {
  if (body.length < 5 || body[0] !== 0) return undefined;
  const length = (body[1]! << 24) | (body[2]! << 16) | (body[3]! << 8) | body[4]!;
  if (length !== body.length - 5) return undefined;
  let status = 0;
  for (let at = 5; at < body.length; ) {
    const tag = body[at++]!;
    // All fields of this message are varints; one of another type is not it.
    if ((tag & 7) !== 0) return undefined;
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = body[at++];
      if (byte === undefined || shift > 28) return undefined;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    if (tag >> 3 === 1) status = value;
  }
  return status;
}

class GrpcSession implements HealthSession {
  readonly #probe: HttpProbe;
  readonly #ask: () => void;

  constructor(
    target: HealthTarget,
    events: HealthEvents,
    ask: (probe: HttpProbe, target: HealthTarget) => void,
    codec: ConstructorParameters<typeof HttpProbe>[1],
  ) {
    this.#probe = new HttpProbe(
      target,
      codec,
      MAX_ANSWER_BYTES,
      (answer) => {
        if (isServing(answer)) events.onHealthy({ degraded: false });
        else events.onFailure({ type: "no" });
      },
      () => events.onFailure({ type: "network" }),
    );
    this.#ask = () => ask(this.#probe, target);
  }

  check(): void {
    this.#ask();
  }
  onTimeout(): void {
    this.#probe.cancel();
  }
  close(): void {
    this.#probe.cancel();
  }
}

function isServing({ headers, body, trailers }: HttpProbeAnswer): boolean {
  if (headers.status !== 200) return false;
  if (!(headers.get("content-type") ?? "").startsWith("application/grpc")) return false;
  const status = trailers?.get("grpc-status") ?? headers.get("grpc-status");
  return status === "0" && statusOf(body) === SERVING;
}

export default defineHealthChecker({
  name: "envoy.health_checkers.grpc",
  types: ["envoy.config.core.v3.HealthCheck.GrpcHealthCheck"],
  config: GrpcHealthCheck,
  setup(config, cx) {
    const payload = requestOf(config.service_name ?? "");
    const rules = compileHeaderRules(
      {
        request_headers_to_add: config.initial_metadata ?? [],
        request_headers_to_remove: [],
        response_headers_to_add: [],
        response_headers_to_remove: [],
      },
      "request",
      "",
    );
    const ask = (probe: HttpProbe, target: HealthTarget): void => {
      const headers = new RequestHeaders();
      headers.method = "POST";
      headers.path = "/grpc.health.v1.Health/Check";
      const host = target.hostname || config.authority || target.clusterName;
      headers.authority = headerText(host, "authority");
      const { timeoutMs } = target;
      if (timeoutMs !== undefined)
        headers.set("grpc-timeout", `${Math.min(Math.ceil(timeoutMs), 99_999_999)}m`);
      headers.set("te", "trailers");
      headers.set("content-type", "application/grpc");
      headers.set("user-agent", "Envoy/HC");
      rules?.apply(headers, probeSource(target, headers, "HTTP/2"));
      probe.ask(headers, payload);
    };
    const codec = cx.shipped("codec", "codec/http2");
    return {
      type: "GRPC",
      create: (target, events) => new GrpcSession(target, events, ask, codec),
    };
  },
});

import { type CodecFactory, type Counter, defineCodec, type Stats, Type } from "@tsproxy/sdk";
import { Http1Client } from "./client.ts";
import { Http1Server } from "./server.ts";

/**
 * Envoy's counters, under `http1.` and, once a cluster has attempted a connection, under `cluster.<name>.http1.`. Those of
 * clusters stay at 0: underscores in response headers are allowed, and with one request at a time responses cannot flood.
 */
const COUNTERS = [
  "dropped_headers_with_underscores",
  "metadata_not_supported_error",
  "requests_rejected_with_underscores_in_headers",
  "response_flood",
] as const;

export default defineCodec({
  name: "envoy.codec.http1",
  config: Type.Object({}),
  setup: (_config, cx): CodecFactory => {
    const [droppedHeaders, , rejectedRequests] = countersOf(cx.stats);
    const stats = { droppedHeaders: droppedHeaders!, rejectedRequests: rejectedRequests! };
    const listed = new WeakSet<Stats>();
    const listStats = (owner: Stats): void => {
      if (listed.has(owner)) return;
      listed.add(owner);
      countersOf(owner);
    };
    return {
      protocol: "HTTP/1.1",
      createServer: (connection, events, options) =>
        new Http1Server(connection, events, options, stats),
      createClient(connection, events, options) {
        if (options.stats !== undefined) listStats(options.stats);
        return new Http1Client(connection, events, options);
      },
      listStats,
    };
  },
});

function countersOf(owner: Stats): Counter[] {
  const scope = owner.scope("http1.");
  return COUNTERS.map((name) => scope.counter(name));
}

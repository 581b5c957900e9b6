import { type CodecFactory, defineCodec, Type } from "@tsproxy/sdk";
import { Http1Client } from "./client.ts";
import { Http1Server } from "./server.ts";

export default defineCodec({
  name: "envoy.codec.http1",
  config: Type.Object({}),
  setup: (_config, cx): CodecFactory => {
    const scope = cx.stats.scope("http1.");
    const stats = {
      droppedHeaders: scope.counter("dropped_headers_with_underscores"),
      rejectedRequests: scope.counter("requests_rejected_with_underscores_in_headers"),
    };
    return {
      protocol: "HTTP/1.1",
      createServer: (connection, events, options) =>
        new Http1Server(connection, events, options, stats),
      createClient: (connection, events, options) => new Http1Client(connection, events, options),
    };
  },
});

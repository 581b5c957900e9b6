import { type CodecFactory, type CodecOptions, defineCodec, type Stats, Type } from "@tsproxy/sdk";
import { Http2Client } from "./client.ts";
import { BufferPool } from "./frame-writer.ts";
import { HeadArena } from "./head-arena.ts";
import { Http2Server } from "./server.ts";
import type { SessionParts } from "./session.ts";
import { Http2Stats } from "./stats.ts";

export default defineCodec({
  name: "envoy.codec.http2",
  config: Type.Object({}),
  setup: (_config, cx): CodecFactory => {
    const parts: SessionParts = {
      cx,
      arena: new HeadArena(() => cx.now()),
      buffers: new BufferPool(),
    };
    // Stats of server codecs; as in Envoy, they appear with the first connection.
    let own: Http2Stats | undefined;
    const ofScopes = new WeakMap<Stats, Http2Stats>();
    const statsOf = ({ stats }: Pick<CodecOptions, "stats">): Http2Stats => {
      if (stats === undefined) return (own ??= new Http2Stats(cx.stats.scope("http2.")));
      let cells = ofScopes.get(stats);
      if (cells === undefined) {
        cells = new Http2Stats(stats.scope("http2."));
        ofScopes.set(stats, cells);
      }
      return cells;
    };
    return {
      protocol: "HTTP/2",
      createServer: (connection, events, options) => {
        const stats = statsOf(options);
        stats.downstreamConnections.inc();
        return new Http2Server(connection, events, options, stats, parts);
      },
      createClient: (connection, events, options) => {
        const stats = statsOf(options);
        stats.upstreamConnections.inc();
        return new Http2Client(connection, events, options, stats, parts);
      },
      listStats: (owner) => void statsOf({ stats: owner }),
    };
  },
});

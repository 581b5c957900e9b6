import { defineTransport, type SetupContext, type TransportFactory } from "@tsproxy/sdk";
import { Config, TYPES } from "./config.ts";
import { Downstream, type Expiry, ServerSide } from "./downstream.ts";
import { TlsStats } from "./stats.ts";
import { ClientSide, Upstream } from "./upstream.ts";

/** A side of TLS whose files may change while connections stand on the old ones. */
interface Side {
  readonly files: ReadonlySet<string>;
  readonly expiries: readonly Expiry[];
  release(): void;
}

export default defineTransport({
  name: "envoy.transport_sockets.tls",
  aliases: ["tls"],
  types: TYPES,
  config: Config,
  setup(config, cx): TransportFactory {
    const scope = cx.stats.scope(`${cx.statPrefix ?? ""}ssl.`);
    const algorithms = config.common_tls_context?.tls_params?.signature_algorithms;
    const stats = new TlsStats(scope, algorithms);
    return isListeners(cx) ? downstream(config, stats, cx) : upstream(config, stats, cx);
  },
});

/** Its stats stand at a listener's or at a cluster's: both messages have all fields here. */
function isListeners(cx: SetupContext): boolean {
  return cx.statPrefix?.startsWith("listener.") ?? false;
}

function downstream(config: Config, stats: TlsStats, cx: SetupContext): TransportFactory {
  const factory = new Downstream(config, new ServerSide(config, cx), stats, cx);
  follow(cx, factory, () => new ServerSide(config, cx));
  return factory;
}

function upstream(config: Config, stats: TlsStats, cx: SetupContext): TransportFactory {
  const factory = new Upstream(config, new ClientSide(config, cx), stats);
  follow(cx, factory, () => new ClientSide(config, cx));
  return factory;
}

/** New connections take what the files say now; a change that does not fit together yet (a key before its certificate) waits. */
function follow<S extends Side>(
  cx: SetupContext,
  holder: { side: S; stats: TlsStats },
  make: () => S,
): void {
  const watched = new Set<string>();
  const reload = (): void => {
    try {
      const old = holder.side;
      holder.side = make();
      old.release();
      watch();
      cx.log.info("certificates have changed", { files: [...holder.side.files].join(", ") });
    } catch (error) {
      cx.log.warn("changed certificates are not taken; the ones before go on", {
        reason: (error as Error).message,
      });
    }
  };
  /** A file of secrets may name other files than before. */
  const watch = (): void => {
    // A gauge is the sum of what workers say.
    if (cx.role === "worker" && cx.worker === 0) holder.stats.onCertificates(holder.side.expiries);
    for (const file of holder.side.files) {
      if (watched.has(file)) continue;
      watched.add(file);
      cx.watchFile(file, reload);
    }
  };
  watch();
}

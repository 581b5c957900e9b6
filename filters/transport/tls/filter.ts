import { defineTransport, type SetupContext, type TransportFactory } from "@tsproxy/sdk";
import { Config, TYPES } from "./config.ts";
import { Downstream, type Expiry, ServerSide } from "./downstream.ts";
import { UnreadableSecrets } from "./secret-file.ts";
import { type SecretFiles, SecretStats } from "./secret-stats.ts";
import { TlsStats } from "./stats.ts";
import { ClientSide, Upstream } from "./upstream.ts";

/** Certificates and validation of a listener or cluster; replaced when one of their files changes. */
interface Side {
  readonly files: ReadonlySet<string>;
  readonly secrets: SecretFiles;
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

/** True if the transport socket belongs to a listener; its stat prefix tells, as both messages share one schema. */
function isListeners(cx: SetupContext): boolean {
  return cx.statPrefix?.startsWith("listener.") ?? false;
}

function downstream(config: Config, stats: TlsStats, cx: SetupContext): TransportFactory {
  const factory = new Downstream(config, new ServerSide(config, cx), stats, cx);
  follow(cx, factory, new SecretStats(cx, "server"), () => new ServerSide(config, cx));
  return factory;
}

function upstream(config: Config, stats: TlsStats, cx: SetupContext): TransportFactory {
  const factory = new Upstream(config, new ClientSide(config, cx), stats);
  follow(cx, factory, new SecretStats(cx, "client"), () => new ClientSide(config, cx));
  return factory;
}

/**
 * Watches the files and makes a new side when one changes; new connections use it. If the files do not fit together (a key
 * replaced before its certificate), the old side stays.
 */
function follow<S extends Side>(
  cx: SetupContext,
  holder: { side: S; stats: TlsStats },
  secrets: SecretStats,
  make: () => S,
): void {
  const watched = new Set<string>();
  // Only one worker counts, as the values of all workers are added.
  const counts = cx.role === "worker" && cx.worker === 0;
  const reload = (file: string): boolean => {
    try {
      const old = holder.side;
      holder.side = make();
      old.release();
      watch();
      if (counts) secrets.onTaken(holder.side.secrets, file);
      cx.log.info("certificates have changed", { files: [...holder.side.files].join(", ") });
      return true;
    } catch (error) {
      const unreadable = error instanceof UnreadableSecrets;
      if (counts) secrets.onRefused(holder.side.secrets, file, unreadable);
      cx.log.warn("changed certificates are not taken; the ones before go on", {
        reason: (error as Error).message,
      });
      return false;
    }
  };
  /** Watches the side's files; a changed file of secrets may name new ones. */
  const watch = (): void => {
    if (counts) holder.stats.onCertificates(holder.side.expiries);
    for (const file of holder.side.files) {
      if (watched.has(file)) continue;
      watched.add(file);
      cx.watchFile(file, () => reload(file));
    }
  };
  watch();
  if (counts) secrets.onTaken(holder.side.secrets);
}

import { checkAddresses, listenProblem } from "./addresses.ts";
import { announce } from "./announce.ts";
import { Canary } from "./canary.ts";
import { Describer } from "./describe.ts";
import { Fleet } from "./fleet.ts";
import { FleetLog } from "./fleet-log.ts";
import { createLog } from "./log.ts";
import { operations } from "./operations.ts";
import type { RunOptions, ToSupervisor } from "./options.ts";
import { SHIPPED_ROOT } from "./packages.ts";
import { bundlePreludes } from "./preludes.ts";
import type { RuntimeConfig } from "./protocol.ts";
import { Reload, type Serving, StartError } from "./reload.ts";
import { ServerStats } from "./server-stats.ts";
import { StatsReader } from "./stats.ts";
import { SAME_SIGNAL_MS } from "./supervisor.ts";
import { threadStarter } from "./threads.ts";

/** How long requests in progress may take to end once we are asked to. */
const DRAIN_MS = 5_000;
/** Envoy's stats_flush_interval: intervals of histograms. */
const FLUSH_MS = 5_000;
const BEAT_MS = 100;

const options = JSON.parse(process.argv[2] ?? "{}") as RunOptions;
const log = createLog(options.logLevel);
const node = { id: options.serviceNode, cluster: options.serviceCluster };
const prelude = await bundlePreludes();
const describer = new Describer(prelude.sdk);
const canary = new Canary({ prelude, node, sandboxed: "left out" });
const stats = new StatsReader();
const server = new ServerStats(stats, options.concurrency);
let state: "INITIALIZING" | "LIVE" | "DRAINING" = "INITIALIZING";
let fleet: Fleet | undefined;

const reload: Reload = new Reload({
  configFile: options.configFile,
  shippedRoot: SHIPPED_ROOT,
  droppedIn: options.filters,
  trusted: options.trusted,
  strict: options.strict,
  node,
  describer,
  canary,
  serve,
  log,
  onReload: (outcome) => server.reloads[outcome](),
});

try {
  await reload.start();
} catch (error) {
  if (!(error instanceof StartError)) throw error;
  process.stderr.write(`${error.message}\n`);
  await stop(1);
}
state = "LIVE";
announce(log, options, reload.live!.config, fleet!.bound, reload.packages());
reload.watch();
obeySignals();
beat();

/** Threads start with the first config that is known to be good. */
async function serve(config: RuntimeConfig): Promise<Serving> {
  const quit = () => void drain();
  const onCall = operations({
    options,
    reload,
    fleet: () => fleet,
    stats,
    server,
    state: () => state,
    quit,
  });
  const started = new Fleet(
    threadStarter({ prelude, node: config.node }),
    new FleetLog({ log, reload, server, stats, onCall }),
    options.concurrency,
  );
  fleet = started;
  return {
    prepare: (change) => started.prepare(change),
    commit: (generation) => started.commit(generation),
    abort: (generation) => started.abort(generation),
    check: (listeners) => checkAddresses(listeners, started.bound),
    listen: async (listeners) => {
      const failures = await started.listen(listeners);
      return failures.map((f) => listenProblem(listeners.find((l) => l.name === f.listener)!, f));
    },
  };
}

function obeySignals(): void {
  let first: number | undefined;
  const onStop = () => {
    if (first === undefined) {
      first = performance.now();
      void drain();
    } else if (performance.now() - first > SAME_SIGNAL_MS) process.kill(process.pid, "SIGKILL");
  };
  process.on("SIGTERM", onStop);
  process.on("SIGINT", onStop);
  process.on("SIGHUP", () => reload.lookAtAll());
  // Reserved: Envoy reopens its logs. Ours are opened for appending by whoever writes them.
  process.on("SIGUSR1", () => fleet?.publish("core.reopen_logs", Date.now()));
  process.on("disconnect", () => void stop(1));
}

async function drain(): Promise<void> {
  if (state === "DRAINING") return;
  state = "DRAINING";
  log.info("draining");
  await reload.close();
  await fleet?.drain(DRAIN_MS);
  await stop(0);
}

async function stop(code: number): Promise<never> {
  // A sleeping isolate can hold an exit back.
  setTimeout(() => process.kill(process.pid, "SIGKILL"), 2_000).unref();
  await reload.close();
  await fleet?.stop();
  await canary.dispose();
  describer.dispose();
  process.exit(code);
}

/** What main does of its own accord: tells the supervisor that all live, and keeps the stats of the server. */
function beat(): void {
  const tell = (message: ToSupervisor) => process.send?.(message);
  const words = (memory: SharedArrayBuffer) => Atomics.load(new Int32Array(memory), 0);
  tell({ type: "ready" });
  setInterval(() => {
    const threads = fleet!.boxes().map(({ thread, boxMs }) => ({
      name: thread.name,
      turns: words(thread.memory.beat),
      boxMs,
    }));
    tell({ type: "beat", threads });
    server.update(state === "LIVE" ? 0 : 1, fleet!.bound.length);
  }, BEAT_MS);
  setInterval(() => stats.flush(), FLUSH_MS);
}

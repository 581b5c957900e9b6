import path from "node:path";
import { checkAddresses, listenProblem } from "./addresses.ts";
import { announce } from "./announce.ts";
import { Canary } from "./canary.ts";
import { Describer } from "./describe.ts";
import { Fleet } from "./fleet.ts";
import { FleetLog } from "./fleet-log.ts";
import { RUNTIME_TOPIC } from "./inside/topics.ts";
import { createLog } from "./log.ts";
import { operations } from "./operations.ts";
import type { RunOptions, ToSupervisor } from "./options.ts";
import { SHIPPED_ROOT } from "./packages.ts";
import { bundlePreludes } from "./preludes.ts";
import type { RuntimeConfig } from "./protocol.ts";
import { Reload, type Serving, StartError } from "./reload.ts";
import { RuntimeLayers } from "./runtime.ts";
import { ServerStats } from "./server-stats.ts";
import { StatsReader } from "./stats.ts";
import { SAME_SIGNAL_MS } from "./supervisor.ts";
import { threadStarter } from "./threads.ts";
import { Watch } from "./watch.ts";

/** How long requests in progress may take to end once we are asked to. */
const DRAIN_MS = 5_000;
/** How long threads may take to end after that. */
const STOP_MS = 2_000;
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
const runtime = new RuntimeLayers({
  serviceCluster: options.serviceCluster,
  onChange: (values) => fleet?.publish(RUNTIME_TOPIC, values),
  onError: (message) => log.error(message),
});

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

obeySignals();
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
watchCore();
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
    runtime,
    state: () => state,
    quit,
  });
  const onReverted = (packages: readonly string[]) =>
    reload.takeBack(packages, "hung or broke the isolate that it ran in");
  const started = new Fleet(
    threadStarter({ prelude, node: config.node, fileFlushMs: options.fileFlushIntervalMsec }),
    new FleetLog({ log, find, onReverted, server, stats, onCall }),
    options.concurrency,
  );
  fleet = started;
  // Before the first setup, so that all of them find the values there.
  runtime.configure(config.runtime ?? []);
  let layers = config.runtime;
  let next = layers;
  return {
    prepare: (change) => {
      next = change.config?.runtime ?? layers;
      return started.prepare(change);
    },
    commit: async (generation) => {
      await started.commit(generation);
      if (next !== layers) runtime.configure(next ?? []);
      layers = next;
    },
    abort: (generation) => started.abort(generation),
    check: (listeners) => checkAddresses(listeners, started.bound),
    listen: async (listeners) => {
      const failures = await started.listen(listeners);
      return failures.map((f) => listenProblem(listeners.find((l) => l.name === f.listener)!, f));
    },
  };
}

/** Where a place in a stack stands in somebody's source. */
function find(filename: string) {
  return (
    reload.sources(filename) ?? prelude.bundles.find((made) => made.filename === filename)?.sources
  );
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
  process.on("SIGUSR1", () => fleet?.reopenLogs());
  process.on("disconnect", () => void stop(1));
}

async function drain(): Promise<void> {
  if (state === "DRAINING") return;
  state = "DRAINING";
  log.info("draining");
  tell({ type: "stopping" });
  await reload.close();
  await fleet?.drain(DRAIN_MS);
  await stop(0);
}

async function stop(code: number): Promise<never> {
  setTimeout(() => process.exit(code), STOP_MS).unref();
  await reload.close();
  await fleet?.stop();
  await canary.dispose();
  describer.dispose();
  process.exit(code);
}

function tell(message: ToSupervisor): void {
  if (process.connected) process.send?.(message, undefined, {}, () => {});
}

/** Packages reload; what carries them does not. */
function watchCore(): void {
  let told = false;
  const watch = new Watch(() => {
    if (!told) log.info("core or the SDK has changed: restart to take that up");
    told = true;
  });
  const files = prelude.bundles.flatMap((made) => made.sources.files);
  const own = files.filter((file) => !file.includes("node_modules"));
  watch.set(
    new Map(
      [...own.map((file) => path.dirname(file)), import.meta.dirname].map((d) => [d, undefined]),
    ),
  );
}

/** What main does of its own accord: tells the supervisor that all live, and ends the intervals of histograms. */
function beat(): void {
  const words = (memory: SharedArrayBuffer) => Atomics.load(new Int32Array(memory), 0);
  tell({ type: "ready" });
  setInterval(() => {
    const threads = fleet!.boxes().map(({ thread, boxMs }) => ({
      name: thread.name,
      turns: words(thread.memory.beat),
      boxMs,
    }));
    tell({ type: "beat", threads });
  }, BEAT_MS);
  setInterval(() => stats.flush(), FLUSH_MS);
}

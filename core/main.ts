import { readdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { AfterReloads, COLLECT_AFTER_MS, collectGarbage } from "./admin/garbage.ts";
import { HeapDumps } from "./admin/heap-dump.ts";
import { OpenBreakers } from "./admin/open-breakers.ts";
import { flushServerStats, operations } from "./admin/operations.ts";
import { Profiler } from "./admin/profiler.ts";
import { RuntimeLayers } from "./admin/runtime.ts";
import { ServerStats } from "./admin/server-stats.ts";
import { StatsReader } from "./admin/stats.ts";
import { exclusion } from "./admin/stats-config.ts";
import { recordExchanges } from "./dev-events.ts";
import { Fleet, type FleetEvents } from "./fleet.ts";
import { CERTIFICATES_TOPIC, HEALTH_TOPIC, NODE_TOPIC, RUNTIME_TOPIC } from "./inside/topics.ts";
import { announce } from "./logs/announce.ts";
import { FileWriter } from "./logs/file-writer.ts";
import { FleetLog } from "./logs/fleet-log.ts";
import { LineOrder } from "./logs/line-order.ts";
import { openLog } from "./logs/log.ts";
import { LogLevels, unknownComponents } from "./logs/log-levels.ts";
import { ownOptions, SAME_SIGNAL_MS, type ToProxy, type ToSupervisor } from "./options.ts";
import { CORE, isPacked } from "./own-files.ts";
import { stopBundler } from "./packages/bundler.ts";
import { Describer } from "./packages/describe.ts";
import { SHIPPED_ROOT } from "./packages/packages.ts";
import { bundlePreludes } from "./packages/preludes.ts";
import type { Problem } from "./problem.ts";
import { RoomForFiles } from "./process/open-files.ts";
import { isAsleep, sampleCpu } from "./process/thread-cpu.ts";
import { BEAT, type ListenerConfig, type Refusal, type RuntimeConfig } from "./protocol.ts";
import { Canary } from "./reload/canary.ts";
import { CanaryProcess } from "./reload/canary-process.ts";
import { Reload, type Serving, StartError } from "./reload/reload.ts";
import type { Served, ServedChange } from "./reload/served.ts";
import type { Change } from "./reload/stage.ts";
import { Watch } from "./reload/watch.ts";
import { WrittenConfig } from "./reload/written-config.ts";
import { checkAddresses, listenProblem, ownAddress, shown } from "./sockets/addresses.ts";
import type { Bound, ListenFailure } from "./sockets/bound.ts";
import type { ContextCertificates } from "./sockets/tls.ts";
import { threadStarter } from "./threads.ts";
import { TrialProcess } from "./trial-process.ts";

/** How long requests in progress may take to finish once the proxy is asked to stop. */
const DRAIN_MS = 5_000;
/** How long threads may take to end after the drain, and lines of logs to be written by a slow disk. */
const STOP_MS = 10_000;
/** Envoy's default `stats_flush_interval`: how often histogram intervals end. */
const FLUSH_MS = 5_000;
let flushes: NodeJS.Timeout | undefined;
let isCollecting = false;
const BEAT_MS = 100;
/** A first config with more chars of JSON than this is set up lazily by the threads and fully by the canary (`prepareFirst`). */
const LARGE_CHARS = 250_000;

/** How long the process before may take to give up its abstract sockets, and how often to look. */
const FREE_MS = 10_000;
const LOOK_MS = 2;

/** Until threads have been started there is nothing to stop but the bundler. */
function endEarly(): never {
  stopBundler();
  process.exit(0);
}
process.on("SIGTERM", endEarly);
process.on("SIGINT", endEarly);

const options = await ownOptions();
const { held = [] } = options;
/** This process starts while the one serves whose place it takes. */
const isBesideAnother = options.takeover || options.standby;
const { log, reopen, flush } = await openLog(options.log);
const levels = new LogLevels(log, options.log);
const heapDumps = new HeapDumps();
const profiler = new Profiler(() => fleet, find);
/** Who this node is: by the command line, and then by the first config. */
let node: RuntimeConfig["node"] = { id: options.serviceNode, cluster: options.serviceCluster };
const { bundles: ownBundles, sdk, reader, ...prelude } = await bundlePreludes();
const stats = new StatsReader();
const server = new ServerStats(stats, options.concurrency);
const breakers = new OpenBreakers();
const room = new RoomForFiles(log);
const files = new FileWriter(
  {
    onTrouble: (file, message) =>
      log.error(`cannot write ${file}, so its lines are lost until that is mended: ${message}`),
    onMended: (file, lost) => log.info(`${file} is written again; ${lost} bytes were lost`),
  },
  server.files,
);
const lines = new LineOrder(
  (file, bytes, onDone) => files.append(file, bytes, onDone),
  () => fleet.flushLines(),
);
let state: "INITIALIZING" | "LIVE" | "DRAINING" = "INITIALIZING";
/** Never settles: the process exits first. */
const untilExit = new Promise<never>(() => {});
const toldToServe = Promise.withResolvers<void>();
const served = Promise.withResolvers<Served | undefined>();
if (!options.succeeds) served.resolve(undefined);
/** Resolves once the first configuration is in service. */
const started = Promise.withResolvers<void>();
const { builtin, builtinSdk, regex } = prelude;
const trial = new TrialProcess({ sdk, reader, builtin, builtinSdk, regex }, (message) =>
  log.error(message),
);
const describer = new Describer({ sdk, reader }, trial);
const garbage = new AfterReloads(collectAll, 0);
const canary = new CanaryProcess(trial, () => node);
/** An operator has asked to fail health checks (admin's /healthcheck/fail). */
let failing = false;
/** A sandbox has taken a thread along, and Node would wait for that thread for ever before it exits. */
let hasLost = false;
/** Abstract sockets of the process before, at which this one is to listen. */
let unfree: readonly Bound[] = [];
const runtime = new RuntimeLayers({
  serviceCluster: () => node.cluster,
  onChange: (values) => fleet.publish(RUNTIME_TOPIC, values),
  onError: (message) => log.error(message),
});

const reload: Reload = new Reload({
  configFile: options.configFile,
  shippedRoot: SHIPPED_ROOT,
  droppedIn: options.filters,
  trusted: options.trusted,
  quarantined: options.quarantined ?? [],
  configText: options.configText,
  overlays: options.overlays,
  strict: options.strict,
  allowUnknown: options.allowUnknown,
  node,
  runtime: (layers, cluster) => runtime.valuesOf(layers, cluster),
  describer,
  canary,
  serving: servingThreads(),
  // `filter dev` shows these outcomes itself: it drops log lines with this mark.
  log: options.dev ? log.child({ of: "reload" }) : log,
  onQuiet: rest,
  onServing: tellServing,
  onReload: (outcome) => {
    if (outcome.type !== "mended") server.reloads[outcome.type]();
    if (outcome.type === "committed" && (options.quarantined ?? []).length > 0)
      tell({ type: "quarantined", packages: reload.quarantined });
    if (options.dev) tell({ type: "dev", event: outcome });
  },
  adjust: options.dev ? recordExchanges : undefined,
});

/** Passes messages of debugged sandboxes to the inspector, once there is one. */
let onInspected: NonNullable<FleetEvents["onInspected"]> = () => {};
// Threads take about as long to start as the config takes to be checked, so they start meanwhile.
const fleet = newFleet();

obeySignals();
try {
  const before = await served.promise;
  if (before?.files !== undefined) fleet.adoptFiles(before.files);
  await reload.start(before);
  const names = reload.packages().map((state) => state.package);
  const unknown = unknownComponents(options.log.components, names);
  if (unknown.length > 0) throw new StartError(unknown);
} catch (error) {
  // What is refused now is so because the proxy ends.
  if (isEnding()) await untilExit;
  if (!(error instanceof StartError)) throw error;
  process.stderr.write(`${error.message}\n`);
  await stop(1);
}
if (isEnding()) await untilExit;
state = "LIVE";
server.onLive();
flushServer();
server.onListeners([], reload.live!.config.listeners);
const inspector =
  options.inspectPort === undefined ? undefined : await openInspector(options.inspectPort);
tellStart(inspector?.address);
announce(log, options, reload.live!.config, { bound: fleet.bound, unfree }, reload.packages());
writeAdminAddress();
// Before the last line of the start is printed: who reads that line may count on the supervisor.
beat();
// Before there is more to do: nobody listens there until then.
if (unfree.length > 0) await listenOnceFree();
reload.watch();
watchCore();
setImmediate(started.resolve);
// A start leaves 9 MiB of garbage here.
collectSoon();

function flushServer(): void {
  room.look();
  flushServerStats({ server, stats, reload, state: shownState, certificates });
}

/** The proxy has been asked to end. */
function isEnding(): boolean {
  return state === "DRAINING";
}

function shownState(): typeof state {
  return state === "LIVE" && failing ? "DRAINING" : state;
}

/** What the TLS contexts have loaded, as the first worker published it last. */
function certificates(): readonly ContextCertificates[] {
  return (fleet.topic(CERTIFICATES_TOPIC) ?? []) as readonly ContextCertificates[];
}

function ownNode(): RuntimeConfig["node"] & { readonly address?: string } {
  const address = ownAddress(options.addressFamily);
  return address === undefined ? node : { ...node, address };
}

function tellServing(change: ServedChange): void {
  void started.promise.then(() => tell({ type: "serving", change }));
}

function newFleet(): Fleet {
  const quit = () => void drain();
  const onCall = operations({
    options,
    reload,
    fleet: () => fleet,
    stats,
    server,
    breakers,
    runtime,
    reopenLogs: reopenFiles,
    levels,
    profiler,
    heapDumps,
    onBusy: (ms) => tell({ type: "busy", ms }),
    certificates,
    state: shownState,
    failHealthchecks: (failed) => {
      failing = failed;
      fleet.publish(HEALTH_TOPIC, failed);
    },
    onRecorded: (exchange) => {
      if (options.dev) tell({ type: "dev", event: { type: "exchange", exchange } });
    },
    quit,
  });
  const onReverted = (packages: readonly string[]) =>
    reload.takeBack(packages, "hung or broke the isolate that it ran in");
  return new Fleet(
    threadStarter(
      {
        prelude,
        node: ownNode(),
        drain: { ms: options.drainTimeMs, immediate: options.drainImmediately },
        fileFlush: options.fileFlush,
        marks: options.marks,
      },
      started.promise,
    ),
    new FleetLog({
      log,
      find: (filename) => reload.sources(filename),
      config: () => reload.live?.config,
      explain: (told) => reload.live?.explain([told])[0],
      findOwn,
      onReverted,
      server,
      breakers,
      stats,
      lines,
      onCall,
      onSandboxLost: (name) => {
        hasLost = true;
        tell({ type: "lost", package: name });
      },
      onFiles: (text) => tellServing({ packages: [], removed: [], files: text }),
      onRested: collectSoon,
      onInspected: (message) => onInspected(message),
    }),
    options.concurrency,
    held,
  );
}

/** The threads, as Reload sees them. The first config tells them which node this is, where it differs from the flags. */
function servingThreads(): Serving {
  let live: RuntimeConfig | undefined;
  let next: RuntimeConfig | undefined;
  let first: Change | undefined;
  const use = (config: RuntimeConfig) => {
    live = config;
    runtime.configure(config.runtime ?? []);
    stats.exclude(exclusion(config.stats));
    flushEvery(config.statsFlushMs);
  };
  return {
    prepare: async (change) => {
      next = change.config ?? live;
      if (live !== undefined) return fleet.prepare(change);
      first = change;
      if (JSON.stringify(next!.node) !== JSON.stringify(node)) {
        node = next!.node;
        fleet.publish(NODE_TOPIC, ownNode());
      }
      // Before the first setup, so that it finds the runtime's values.
      use(next!);
      return prepareFirst(change);
    },
    serviceListeners: () => fleet.serviceListeners(),
    extend: (config, nth) => {
      next = live = config;
      return fleet.extend(config, nth);
    },
    commit: async (generation) => {
      if (first !== undefined) canary.adopt({ ...first, config: next });
      first = undefined;
      await fleet.commit(generation);
      garbage.onCommit();
      if (next === live) return;
      server.onListeners(live!.listeners, next!.listeners);
      use(next!);
    },
    abort: (generation) => {
      // What the process before has served cannot serve again.
      if (state === "INITIALIZING") fleet.adoptFiles();
      return fleet.abort(generation);
    },
    check: async (listeners) => {
      const isFirst = state === "INITIALIZING";
      return isFirst && isBesideAnother ? [] : checkAddresses(listeners, [...fleet.bound, ...held]);
    },
    listen: async (listeners) => {
      const isFirst = state === "INITIALIZING";
      if (options.standby && isFirst) {
        tell({ type: "prepared" });
        await toldToServe.promise;
      }
      const failures = await fleet.listen(listeners);
      tell({ type: "listening", sockets: fleet.listening(listeners) });
      const isLeft = isFirst && isBesideAnother ? isAbstractInUse : () => false;
      if (isFirst)
        unfree = failures
          .filter(isLeft)
          .map(({ listener, address }) => ({ name: listener, address }));
      return failures
        .filter((failure) => !isLeft(failure))
        .map((f) => unboundProblem(listeners, f));
    },
  };
}

function unboundProblem(listeners: readonly ListenerConfig[], failure: ListenFailure): Problem {
  const listener = listeners.find(({ name }) => name === failure.listener)!;
  return listenProblem({ ...listener, address: failure.address }, failure);
}

function isAbstractInUse({ address, code }: ListenFailure): boolean {
  return address.path?.startsWith("@") === true && code === "EADDRINUSE";
}

/** Listens at the abstract sockets of the process before, of which there cannot be two, as soon as it has given them up. */
async function listenOnceFree(): Promise<void> {
  const until = performance.now() + FREE_MS;
  let failures: readonly ListenFailure[];
  do {
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    failures = (await fleet.listenAgain()).filter(isAbstractInUse);
  } while (failures.length > 0 && state === "LIVE" && performance.now() < until);
  for (const failure of failures)
    log.error(unboundProblem(reload.live!.config.listeners, failure).message);
  if (failures.length === 0) log.info("listening on the abstract sockets of the proxy before, too");
}

/**
 * Prepares the first config on all threads, which report what is wrong with it. With a large one they leave parts until these are
 * needed; a canary sets up all of it at the same time, to find what is wrong there. It does so here: nothing serves yet that a
 * hanging setup could hold up, and the process for later changes would take half a second to start, and 80 MiB.
 */
async function prepareFirst(change: Change): Promise<readonly Refusal[]> {
  const isLarge = WrittenConfig.of(change.config!).text().length > LARGE_CHARS;
  const said = fleet.prepare(change, isLarge);
  if (!isLarge) return said;
  await new Promise(setImmediate);
  const { files } = fleet;
  const own = new Canary({ prelude, node: () => node, sandboxed: "left out", files });
  try {
    return [...(await own.prepare(change)), ...(await said)];
  } finally {
    own.dispose();
  }
}

/**
 * Collects what a start has left here, or lines of logs and messages of a busy time (4 MiB), once for all threads that come to rest
 * together. Not in `filter dev`: that would drop compiled code that the next save needs.
 */
function collectSoon(): void {
  if (options.dev === true || isCollecting) return;
  isCollecting = true;
  setTimeout(() => {
    isCollecting = false;
    collectGarbage("last-resort");
  }, COLLECT_AFTER_MS).unref();
}

/**
 * Collects what reloads leave in main's isolates: Node's own heap first, since it keeps parts of the others alive. Compiled code
 * stays as long as saves go on, which need it.
 */
function collectAll(saves: "are over" | "go on"): void {
  collectGarbage(saves === "are over" ? "last-resort" : "regular");
  canary.collectGarbage();
}

/** Called when nothing has been edited for a while: gives back what only reloads need. */
function rest(): void {
  trial.rest();
  collectGarbage("last-resort");
}

/** Source positions of a module of a package or of core, by its name in stacks. Undefined: there is no such module. */
function find(filename: string) {
  return reload.sources(filename) ?? findOwn(filename);
}

function findOwn(filename: string) {
  return ownBundles.find((made) => made.filename === filename)?.sources;
}

function obeySignals(): void {
  let last = Number.NEGATIVE_INFINITY;
  // What the next signal does.
  const ways = [() => void drain(), () => void stop(0), kill] as const;
  let next = 0;
  const onStop = () => {
    if (performance.now() - last < SAME_SIGNAL_MS) return;
    last = performance.now();
    ways[Math.min(next++, 2)]!();
  };
  process.off("SIGTERM", endEarly);
  process.off("SIGINT", endEarly);
  process.on("SIGTERM", onStop);
  process.on("SIGINT", onStop);
  // Ignored during the start, at whose end `reload.watch` looks at all files anyway.
  process.on("SIGHUP", () => {
    if (state === "LIVE") reload.lookAtAll();
  });
  process.on("SIGUSR1", () => {
    reopen();
    void reopenFiles();
  });
  process.on("message", (message: ToProxy) => {
    if (message.type === "retire") void drain(message.ms);
    else if (message.type === "served") served.resolve(message.served);
    else if (message.type === "serve") toldToServe.resolve();
  });
  // The supervisor may have ended while modules were loaded, and nobody was told.
  if (process.connected === false) process.exit(1);
  process.on("disconnect", () => void stop(1));
}

/** For log rotation. Lines that threads still hold go into the old files first. */
async function reopenFiles(): Promise<void> {
  await lines.flush();
  files.reopen();
}

/** Accepts no more connections, and ends the process with the last one, or after `ms`. */
async function drain(ms = DRAIN_MS): Promise<void> {
  if (state === "DRAINING") return;
  const isStarting = state === "INITIALIZING";
  state = "DRAINING";
  if (!isStarting) log.info("draining");
  tell({ type: "stopping" });
  // A reload may wait for code that hangs there.
  trial.dispose();
  await reload.close();
  await fleet.drain(isStarting ? 0 : ms);
  await stop(0);
}

async function stop(code: number): Promise<never> {
  setTimeout(() => exit(code), STOP_MS).unref();
  stopBundler();
  trial.dispose();
  await reload.close();
  await fleet.stop();
  await lines.flush();
  await files.end();
  exit(code);
}

function exit(code: number): never {
  if (hasLost) kill();
  process.exit(code);
}

/** Ends the process although one of its threads never will. */
function kill(): void {
  flush();
  process.kill(process.pid, "SIGKILL");
}

async function openInspector(port: number) {
  const { Inspector } = await import("./admin/inspector.ts");
  const server = new Inspector({
    targets: () => {
      // Only those that the config uses: editors attach to the first of the list.
      const used = JSON.stringify(reload.live?.config);
      return reload
        .sandboxed()
        .filter(({ package: name }) => used.includes(`"package":${JSON.stringify(name)}`));
    },
    module: (filename) => {
      const map = reload.sources(filename)?.json;
      return map === undefined ? undefined : { filename, map };
    },
    post: (message) => fleet.inspect(message),
  });
  onInspected = (message) => server.onWorker(message);
  return { address: await server.listen(port) };
}

function tellStart(inspector: string | undefined): void {
  if (options.dev !== true) return;
  const control = (name: string) =>
    reload.live!.config.listeners.find((l) => l.name === name)?.thread === "control";
  const listeners = fleet.bound.filter(({ name }) => !control(name));
  const packages = reload.packages().filter((state) => state.origin === "dropped-in");
  tell({ type: "dev", event: { type: "started", listeners, packages, inspector } });
}

function writeAdminAddress(): void {
  const { listeners } = reload.live!.config;
  const admin = listeners.find((listener) => listener.thread === "control");
  const bound = fleet.bound.find(({ name }) => name === admin?.name);
  if (options.adminAddressPath === "" || bound === undefined) return;
  try {
    writeFileSync(options.adminAddressPath, shown(bound.address));
  } catch (error) {
    log.error(`cannot write ${options.adminAddressPath}: ${(error as Error).message}`);
  }
}

function tell(message: ToSupervisor): void {
  if (process.connected) process.send?.(message, undefined, {}, () => {});
}

/** Logs once that core or the SDK has changed, as these are not reloaded. */
function watchCore(): void {
  let quiet = true;
  const watch = new Watch(() => {
    if (!quiet) log.info("core or the SDK has changed: restart to take that up");
    quiet = true;
  });
  const rooms = readdirSync(CORE, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const files = isPacked ? [] : ownBundles.flatMap((made) => made.sources.files);
  const own = files.filter((file) => !file.includes("node_modules"));
  const folders = [
    CORE,
    ...rooms.map(({ name }) => path.join(CORE, name)),
    ...own.map(path.dirname),
  ];
  watch.set(new Map(folders.map((folder) => [folder, undefined])));
  // A folder counts as changed when its watch begins, which is no news here.
  quiet = false;
}

/** Tells the supervisor that the proxy serves, and from then on, every BEAT_MS, how far each thread has got. */
function beat(): void {
  tell({ type: "ready" });
  setInterval(() => {
    const threads = fleet.boxes().map(({ thread, boxMs, inside }) => {
      const words = new Int32Array(thread.memory.beat);
      sampleCpu(words);
      const turns = Atomics.load(words, BEAT.TURNS);
      const asleep = inside !== undefined && isAsleep(words);
      return {
        name: thread.name,
        turns,
        cpuMs: words[BEAT.CPU_MS]!,
        boxMs,
        inside,
        isAsleep: asleep,
      };
    });
    tell({ type: "beat", threads });
  }, BEAT_MS);
}

function flushEvery(ms = FLUSH_MS): void {
  clearInterval(flushes);
  flushes = setInterval(() => {
    stats.flush();
    flushServer();
  }, ms);
}

import { fileURLToPath } from "node:url";
import type { Cluster, Definition, Kinds, LogFields, SandboxManifest } from "@tsproxy/sdk";
import {
  PLACE_MAKER,
  type Place,
  type PlacedUse,
  type PlaceMaker,
  TestContext,
  withDefaults,
} from "@tsproxy/sdk/testing";
import { namedClusters, SandboxFetches } from "../inside/fetches.ts";
import { HeadGuard } from "../inside/head-guard.ts";
import type { ParkedUse } from "../inside/parked.ts";
import { ParkedPolicy } from "../inside/parked-balancer.ts";
import { parkedHttpFactory } from "../inside/parked-http.ts";
import { ParkedLogger } from "../inside/parked-log.ts";
import { parkedNetworkFactory } from "../inside/parked-network.ts";
import { parkedListenerFactory } from "../inside/parked-peek.ts";
import { seenHooks } from "../inside/sandboxes.ts";
import { setIsolateFlags } from "../isolate-flags.ts";
import { bundle } from "../packages/bundle.ts";
import { ManifestError, parseManifest } from "../packages/manifest.ts";
import { problemInFile } from "../packages/member-place.ts";
import { formatProblem } from "../problem.ts";
import { FakeWorker } from "./fake-worker.ts";
import type { Sandbox } from "./sandbox.ts";

// Under `tsproxy filter test` this module is loaded before the tests: `places` of the testing kit finds what it leaves. The flags are
// those that filters' own regular expressions meet in isolates.
setIsolateFlags();

const TURNS = 64;

/**
 * A real sandbox around which a test plays the proxy: the package is bundled as on a start, lives in an isolate, and is entered
 * through records. Time is the clock of the context that was used last.
 */
class SandboxPlace implements Place {
  readonly name = "sandbox";
  readonly #definition: Definition;
  readonly #entry: string;
  readonly #manifest: SandboxManifest;
  readonly #worker = new FakeWorker();
  #sandbox: Promise<Sandbox> | undefined = undefined;
  #cx: PlacedContext = new PlacedContext(async () => {});
  /** What the clocks of contexts before came to: time does not go back in an isolate. */
  #before = 1000;
  /** What the sandbox had counted when the last use began. */
  readonly #statsBefore = new Map<string, number>();
  /** What policies of balancers have said, by use. */
  readonly #policies = new Map<number, string>();
  #uses = 0;
  #faultsTold = 0;

  constructor(definition: Definition, entry: string) {
    this.#definition = definition;
    this.#entry = entry.startsWith("file:") ? fileURLToPath(entry) : entry;
    this.#manifest = manifestOf(definition, this.#entry);
  }

  async use(config: unknown = {}): Promise<PlacedUse> {
    this.#sandbox ??= this.#build();
    const sandbox = await this.#sandbox;
    await this.#turn();
    this.#before += this.#cx.clock.ms;
    for (const name of this.#worker.stats.keys())
      this.#statsBefore.set(name, this.#worker.stat(name));
    const cx = new PlacedContext(() => this.#turn());
    this.#cx = cx;
    const id = ++this.#uses;
    const { kind, name } = this.#definition;
    const filled = withDefaults(this.#definition.config, config);
    const place = `/uses/${id}/${kind}:${name}`;
    // No stream of another use is lost if this one's setup never returns, and tests make hundreds of uses.
    const refusals = await sandbox.prepare([{ id, config: filled, place }], true);
    if (refusals.length > 0) throw new Error(refusals[0]!.message);
    return { cx, value: this.#stub(sandbox, id, cx) as never };
  }

  async #build(): Promise<Sandbox> {
    const worker = this.#worker;
    const { code } = await bundle({ entry: this.#entry, filename: this.#definition.name });
    const { clusters } = this.#manifest;
    let fetches: SandboxFetches | undefined;
    const sandbox: Sandbox = await worker.unprepared(code, {
      package: `${this.#definition.kind}/${this.#definition.name}`,
      now: () => this.#before + this.#cx.clock.ms,
      // A busy machine, and a clock that leaps, are no fault of the package.
      limits: { cpuMs: 1000, timeoutMs: 5000, pauseMs: Number.MAX_SAFE_INTEGER },
      onLog: (level, message, fields) =>
        this.#cx.logged.push({ level, message, fields: fields as LogFields }),
      onLines: (path, text) => this.#cx.file(path).append(text),
      onPolicy: (use, told) => this.#policies.set(use, told),
      onFetch: (text, bytes) => {
        if (text === "") {
          fetches?.cancel();
          return;
        }
        fetches ??= new SandboxFetches(
          {
            clusters: namedClusters(
              { get: (name) => this.#cx.clusters.get(name) },
              (name) => clusters?.includes(name) !== false,
            ),
            timer: (onFired) => this.#cx.timer(onFired),
          },
          (head, data) => setImmediate(() => sandbox.reply(head, Buffer.from(data, "latin1"))),
        );
        fetches.onMessage(text, new Uint8Array(bytes));
      },
    });
    return sandbox;
  }

  #stub(
    sandbox: Sandbox,
    use: number,
    cx: TestContext,
  ): Kinds["http" | "network" | "listener" | "access_log" | "balancer"] {
    const manifest = this.#manifest;
    const parked: ParkedUse = {
      box: this.#worker.boxes.indexOf(sandbox),
      use,
      hooks: seenHooks(sandbox.hooks, manifest),
      guard: manifest.headers && new HeadGuard(manifest.headers),
      keepsBodies: manifest.body !== undefined,
      failsOpen: manifest.failurePolicy === "open",
    };
    const { table } = this.#worker;
    switch (this.#definition.kind) {
      case "http":
        return parkedHttpFactory(parked, table);
      case "network":
        return parkedNetworkFactory(parked, table);
      case "listener":
        return parkedListenerFactory(parked, table);
      case "balancer":
        return this.#policy(parked, cx);
      default:
        return new ParkedLogger(parked, table, cx, () => {});
    }
  }

  #policy(parked: ParkedUse, cx: TestContext): ParkedPolicy {
    const turns = cx.stats.counter("filters.in_turn");
    const policy = new ParkedPolicy(parked, this.#worker.table, turns);
    const told = this.#policies.get(parked.use);
    if (told !== undefined) policy.learn(told);
    return policy;
  }

  /** Until nothing moves any more: records, answers, timers that are due, and what other threads have been asked for. */
  async #turn(): Promise<void> {
    for (let k = 0; k < TURNS; k++) {
      for (const box of this.#worker.boxes) box.enter();
      const { records } = this.#worker;
      this.#worker.flush();
      await new Promise(setImmediate);
      if (k >= 2 && records === this.#worker.records && this.#worker.isIdle) break;
    }
    this.#tellStats();
    const fault = this.#worker.faults[this.#faultsTold];
    this.#faultsTold = this.#worker.faults.length;
    if (fault !== undefined) throw new Error(`${fault.reason}\n${fault.stack}`);
  }

  /** Counts of the sandbox, as `cx.stats` has them; those of uses before are not this one's. */
  #tellStats(): void {
    for (const box of this.#worker.boxes) box.expire(0);
    for (const name of this.#worker.stats.keys()) {
      if (name.startsWith("filters.")) continue;
      const value = this.#worker.stat(name) - (this.#statsBefore.get(name) ?? 0);
      if (value !== 0 || this.#cx.stats.values.has(name)) this.#cx.stats.values.set(name, value);
    }
  }

  dispose(): void {
    this.#worker.dispose();
  }
}

function manifestOf({ sandbox, kind }: Definition, entry: string): SandboxManifest {
  try {
    return parseManifest(sandbox, kind);
  } catch (error) {
    if (!(error instanceof ManifestError)) throw error;
    const { message, path } = error;
    const told = new Error(formatProblem(problemInFile(message, path, entry)));
    // Where it was thrown tells nobody anything.
    told.stack = "";
    throw told;
  }
}

/** What a package in a sandbox is driven with. */
class PlacedContext extends TestContext {
  readonly #turn: () => Promise<void>;

  constructor(turn: () => Promise<void>) {
    super();
    this.#turn = turn;
  }
  override turn(): Promise<void> {
    return this.#turn();
  }
  /** Whatever cluster is asked for exists, unless the test has made some. */
  override readonly clusters = {
    get: (name: string): Cluster | undefined =>
      this.clusterMap.get(name) ??
      (this.clusterMap.size === 0 ? this.cluster(name, () => ({ body: "{}" })) : undefined),
  };
}

const make: PlaceMaker = (definition, entry) => new SandboxPlace(definition, entry);
Object.assign(globalThis, { [PLACE_MAKER]: make });

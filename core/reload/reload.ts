import { readFileSync } from "node:fs";
import path from "node:path";
import type { ReadsRuntime } from "../admin/runtime.ts";
import { NamedFiles } from "../config/named-files.ts";
import type { Overlay } from "../config/overlay.ts";
import { fileError } from "../file-error.ts";
import type { Log } from "../logs/log.ts";
import type { Describer } from "../packages/describe.ts";
import { setAsideDoubles } from "../packages/doubles.ts";
import { withoutImported } from "../packages/imported-files.ts";
import { type PackageState, statesOf } from "../packages/package-state.ts";
import { type Built, type PackageNames, PackageUnit } from "../packages/package-unit.ts";
import { discoverDroppedIn, discoverShipped } from "../packages/packages.ts";
import type { SourcePositions } from "../packages/source-positions.ts";
import { formatProblem, type Problem, problem, shortPath } from "../problem.ts";
import type { ListenerConfig, PackageInfo, RuntimeConfig } from "../protocol.ts";
import { changeOf, type Edit } from "./edit.ts";
import { firstChange } from "./first-change.ts";
import { Looks } from "./looks.ts";
import {
  type ConfigText,
  isRejected,
  load,
  type RehearsalStage,
  type Rehearsed,
  type Rejected,
  rehearse,
} from "./rehearsal.ts";
import { type ReloadOutcome, Reports } from "./reports.ts";
import type { Served, ServedChange } from "./served.ts";
import type { Stage } from "./stage.ts";
import { textHash } from "./text-hash.ts";
import { type Interest, placesOf, Watch } from "./watch.ts";

/** The threads that serve traffic, with their sockets. */
export interface Serving extends RehearsalStage {
  /** Of these listeners, those that are not bound yet and whose address cannot be had. */
  check(listeners: readonly ListenerConfig[]): Promise<readonly Problem[]>;
  /** Binds the listeners that are not bound yet. */
  listen(listeners: readonly ListenerConfig[]): Promise<readonly Problem[]>;
}

export interface ReloadOptions {
  readonly configFile: string;
  /** In the place of that file. */
  readonly configText?: string | undefined;
  readonly overlays?: readonly Overlay[];
  /** Directories of `kind/name` folders with the shipped packages. */
  readonly shippedRoot: string;
  readonly droppedIn: readonly string[];
  readonly trusted: readonly string[];
  readonly quarantined?: readonly string[];
  readonly describer: Describer;
  readonly canary: RehearsalStage;
  readonly strict: boolean;
  readonly allowUnknown?: boolean;
  readonly node: { readonly id: string; readonly cluster: string };
  readonly runtime: ReadsRuntime;
  /** The threads. The first configuration skips the canary: there is no traffic yet that it could harm. */
  readonly serving: Serving;
  readonly log: Log;
  /** Called when a change was put into service or refused. */
  readonly onReload?: (outcome: ReloadOutcome) => void;
  /** Called when something was put into service, with what a later process needs to serve it too. */
  readonly onServing?: (change: ServedChange) => void;
  /** Called when nothing has changed for a while. */
  readonly onQuiet?: () => void;
  /** Changes a config before it is set up. */
  readonly adjust?: ((config: RuntimeConfig) => void) | undefined;
}

/** The start was refused. */
export class StartError extends Error {
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    super(problems.map(formatProblem).join("\n"));
    this.problems = problems;
  }
}

/** Why an attempt failed. `stale`: files changed during it; the next look sees them. */
type Failure = "stale" | Omit<Rejected, "warnings" | "files">;

/** A half-written config file looks like one whose listeners were removed, so it must have been unchanged for this long. */
const CONFIG_SETTLES_MS = 50;
/** How often the code of before is given to the threads, if one cannot set it up. */
const TAKE_BACK_TIMES = 3;
/** How long to wait before a look that failed is tried again. */
const RETRY_MS = 1_000;
/** After so long without a save, what only reloads need is given back. */
const QUIET_MS = 10_000;

/**
 * Brings what is on disk into service: build -> describe -> config -> canary -> all threads prepare -> all commit.
 *
 *   look ──> stale units are built ──> attempt ──ok──> committed, one line in the log
 *                                        └─refused──> the edits to blame are set aside; the rest is attempted again
 *
 * There is one attempt at a time; a change during it is found by the look after it. Whatever fails, the last good generation goes on
 * serving, and the reason is reported once the files have been unchanged for 250 ms.
 */
export class Reload {
  readonly #options: ReloadOptions;
  readonly #units = new Map<string, PackageUnit>();
  #shipped: readonly PackageUnit["source"][] = [];
  readonly #names: PackageNames;
  readonly #watch: Watch;
  readonly #looks: Looks;
  readonly #log: Log;
  #live: Rehearsed | undefined;
  #configText = "";
  /** Files that the config names: those of the text that was attempted last. */
  #named = new NamedFiles();
  /** The config file with the files that it names: what they held at the last look, since when, and what was attempted last. */
  #seen = { hash: "", since: 0 };
  #tried = "";
  #configProblems: readonly Problem[] = [];
  /** The last look found a config that has not been unchanged long enough to be judged. */
  #isSettling = false;
  /** The last attempt ended without a verdict: even if no file is another one at the next look, that one attempts it anew. */
  #isUnjudged = false;
  readonly #reports: Reports;
  /** Units that the supervisor knows without their source positions. */
  #unplaced = new Set<PackageUnit>();
  /** Builds that have brought a thread down, and how. */
  readonly #toTakeBack = new Map<PackageUnit, { readonly built: Built; readonly reason: string }>();
  /** The edits that the threads put into service now. */
  #committing: readonly Edit[] = [];
  #generation = 0;
  #since: number | undefined;
  #quiet: NodeJS.Timeout | undefined;
  #retry: NodeJS.Timeout | undefined;
  /** When the configuration that serves was put into service. */
  loadedAt = new Date();

  constructor(options: ReloadOptions) {
    this.#options = options;
    this.#log = options.log;
    this.#reports = new Reports(options.log, options.configFile, (outcome) =>
      options.onReload?.(outcome),
    );
    this.#names = {
      shipped: new Set(),
      trusted: new Set(options.trusted),
      quarantined: new Set(options.quarantined),
    };
    this.#looks = new Looks((directories, last) => this.#look(directories, last));
    this.#watch = new Watch(
      (directory) => {
        this.#since ??= performance.now();
        this.#looks.event(directory);
      },
      (unwatched) => this.#reports.unwatched(unwatched),
    );
  }

  /** The configuration that serves. */
  get live(): Rehearsed | undefined {
    return this.#live;
  }
  get generation(): number {
    return this.#generation;
  }
  get #packages(): PackageUnit[] {
    return withoutImported(this.#units.values());
  }
  /** Packages that are not entered, as an earlier process ended inside them. */
  get quarantined(): string[] {
    const units = [...this.#units.values()].filter((unit) => unit.isQuarantined);
    return units.flatMap((unit) => unit.live?.infos.map((info) => info.package) ?? []);
  }

  /**
   * Puts the first generation into service: what the process before has served, or else what is on disk. Packages that cannot be
   * built are left out and reported. Throws a StartError if the config needs one of them, or is refused.
   */
  async start(served?: Served): Promise<void> {
    this.#shipped = discoverShipped(this.#options.shippedRoot);
    let problems = served === undefined ? [] : await this.#startWith(served);
    // What has served is refused: its port is another program's now, say. Then a save may have mended that.
    if (this.#live === undefined) {
      if (problems.length > 0)
        this.#log.error(
          `${problems.map(formatProblem).join("\n")}\nwhat served before cannot serve again, so the files are taken as they are`,
        );
      problems = await this.#startWith(undefined);
    }
    if (problems.length > 0) throw new StartError(problems);
    this.#tellOfRefusals();
    this.#tellPositions();
  }

  /** Answers what is wrong. `served`: instead of what is on disk; what differs there counts as saved after the start. */
  async #startWith(served: Served | undefined): Promise<readonly Problem[]> {
    this.#units.clear();
    if (served === undefined) this.#discover(true);
    else this.#adopt(served);
    const units = [...this.#units.values()];
    await Promise.all(units.map((unit) => unit.build(this.#options.describer)));
    setAsideDoubles(this.#units.values());
    const edits: Edit[] = units.filter((unit) => unit.next).map((unit) => ({ type: "code", unit }));
    const failure = await this.#attempt([...edits, this.#firstConfig(served)], false);
    if (failure === undefined) return [];
    const own = this.#packages.flatMap((unit) => unit.problems);
    return [...own, ...(failure === "stale" ? [] : failure.problems)];
  }

  #firstConfig(served: Served | undefined): Edit {
    if (served?.config === undefined)
      return { type: "config", text: this.#readConfigOrRefuse(), named: "" };
    const { text, files } = served.config;
    const given = new Map(files.map(([file, bytes]) => [file, Buffer.from(bytes, "base64")]));
    return { type: "config", text, named: "", given };
  }

  /** Makes the units of what another process has served. */
  #adopt({ packages }: Served): void {
    const shipped = this.#names.shipped as Set<string>;
    for (const source of this.#shipped) {
      shipped.add(source.id);
      this.#units.set(source.id, new PackageUnit(source, this.#names));
    }
    for (const kept of packages) {
      const unit = new PackageUnit(kept.source, this.#names, kept);
      unit.isTold = true;
      this.#units.set(kept.source.id, unit);
    }
  }

  /** Starts watching: from now on edits of packages and config are put into service. */
  watch(): void {
    // The first watch of a directory is an event, so this finds what was saved while the proxy started.
    this.#watch.set(this.#directories());
  }

  async close(): Promise<void> {
    clearTimeout(this.#quiet);
    clearTimeout(this.#retry);
    this.#watch.close();
    await this.#looks.close();
  }

  /** Looks at all files, as if all had just been saved. A config that was refused is attempted, and told of, again. */
  lookAtAll(): void {
    // What it was refused for may lie outside of the files, like a port that another process had.
    this.#tried = "";
    this.#reports.forget("config");
    for (const directory of this.#directories().keys()) this.#looks.event(directory);
  }

  /** These packages' code has brought a thread down: the code before serves again, on all threads, until their files change. */
  takeBack(names: readonly string[], reason: string): void {
    for (const unit of this.#units.values()) {
      // One thread may be down before all of them serve the new code.
      const isNew = this.#committing.some((edit) => edit.type === "code" && edit.unit === unit);
      const built = isNew ? unit.next : unit.live;
      if (built === undefined || !built.infos.some((info) => names.includes(info.package)))
        continue;
      this.#toTakeBack.set(unit, { built, reason });
      this.#looks.event(unit.source.folder);
    }
  }

  /** Source positions of a module, by its file name, that serves or has served. */
  sources(filename: string): SourcePositions | undefined {
    // A module that is being set up may be debugged already.
    for (const unit of this.#units.values())
      for (const built of [unit.live, unit.before, unit.next])
        if (built?.bundle.filename === filename) return built.bundle.sources;
    return undefined;
  }

  /** The packages that serve from sandboxes. */
  sandboxed(): { readonly package: string; readonly entry: string }[] {
    return [...this.#units.values()].flatMap(({ live, source }) =>
      live === undefined || live.group === "builtin"
        ? []
        : live.infos.map((info) => ({ package: info.package, entry: source.entry })),
    );
  }

  packages(): PackageState[] {
    return this.#packages.flatMap((unit) => statesOf(unit));
  }

  async #look(touched: ReadonlySet<string>, last: boolean): Promise<void> {
    clearTimeout(this.#quiet);
    const named = this.#named;
    try {
      await this.#takeBackAll();
      if (last || this.#isAmongShipped(touched))
        this.#shipped = discoverShipped(this.#options.shippedRoot);
      this.#discover(last);
      const edits = await this.#edits(touched, last);
      if (edits.length > 0) await this.#settle(edits);
      if (last) {
        this.#tellOfRefusals();
        this.#tellPositions();
      }
      this.#reports.looked();
    } catch (error) {
      this.#onFailed(error, touched);
    }
    if (last) {
      this.#since = undefined;
      this.#quiet = setTimeout(() => this.#options.onQuiet?.(), QUIET_MS).unref();
    }
    this.#watch.set(this.#directories());
    // A file that the config did not name before was not watched until now.
    if (this.#named !== named && this.#named.now !== this.#named.asRead)
      this.#looks.again(CONFIG_SETTLES_MS, last);
  }

  /** What keeps a look from its end, like a lack of file descriptors, may pass. */
  #onFailed(error: unknown, touched: ReadonlySet<string>): void {
    this.#reports.failed(error);
    this.#isUnjudged = true;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => {
      for (const directory of touched) this.#looks.event(directory);
    }, RETRY_MS).unref();
  }

  async #takeBackAll(): Promise<void> {
    for (const [unit, { built, reason }] of this.#toTakeBack) {
      this.#toTakeBack.delete(unit);
      // Another thread may have reported the same code while it was taken back.
      if (unit.before === undefined || unit.live !== built) continue;
      // The thread that reported it may have judged a moment before the last save was a minute old.
      unit.before = unit.trail.proven(performance.now()) ?? unit.before;
      const told = `${reason}; this is the first line that differs from what serves again`;
      const charge = firstChange(told, unit.before.bundle.sources, built.bundle.sources);
      const problems = await this.#takeBack(unit);
      unit.before = undefined;
      unit.trail.clear();
      unit.problems = [charge, ...problems];
    }
  }

  /** A thread that still hangs in the code may lose its isolate while it sets the code of before up: then it is tried again. */
  async #takeBack(unit: PackageUnit): Promise<readonly Problem[]> {
    // What is on disk may be a save later, and refused for what the config says.
    const { next, stoppedWith } = unit;
    for (let times = 1; ; times++) {
      unit.next = unit.before;
      const failure = await this.#attempt([{ type: "code", unit }], true).finally(() => {
        unit.next = next;
        unit.stoppedWith = stoppedWith;
      });
      if (failure === undefined || failure === "stale") return [];
      if (times === TAKE_BACK_TIMES) return failure.problems;
    }
  }

  /** The edits to attempt: what is new on disk, and what was refused before, since a new edit may be its missing half. */
  async #edits(touched: ReadonlySet<string>, last: boolean): Promise<Edit[]> {
    const edits: Edit[] = [];
    let fresh = this.#isUnjudged;
    const builds = [...this.#units.values()].map(async (unit) => {
      if (unit.gone) return;
      const isTouched =
        unit.isNew || [...unit.directories()].some((directory) => touched.has(directory));
      const files = isTouched ? unit.look() : "as built";
      // Of an emptied file, either what is written into it is heard of next, or the last look judges it.
      if (files === "as built" || (files === "emptied" && !last)) return;
      this.#tellOf(unit);
      const before = unit.next;
      await unit.build(this.#options.describer);
      if (unit.next !== undefined && unit.next.bundle.hash !== before?.bundle.hash) fresh = true;
    });
    await Promise.all(builds);
    setAsideDoubles(this.#units.values());
    const config = this.#settledConfig(last);
    const isNew = config !== undefined && lookOf(config.text, config.named) !== this.#tried;
    fresh ||= isNew;
    for (const unit of this.#units.values()) {
      const { next, stoppedWith } = unit;
      if (unit.gone && last) {
        edits.push({ type: "removal", unit });
        fresh = true;
      } else if (next === undefined) continue;
      else if (
        stoppedWith === undefined ||
        (isNew && this.#told(unit, config.text) !== stoppedWith)
      )
        edits.push({ type: "code", unit });
    }
    if (config !== undefined) edits.push(config);
    this.#isUnjudged = false;
    return fresh ? edits : [];
  }

  /** What a config tells the newest build of a package; of one that has errors, what its sound part does. */
  #told(unit: PackageUnit, text: string): string {
    const packages = this.#draft([{ type: "code", unit }]).values();
    const loaded = load(this.#checked(text, [...packages]));
    const config = loaded.ok ? loaded.config : loaded.sound?.config;
    return unit.next!.infos.map((info) => configsOf(info.package, config)).join();
  }

  /** A config's text, to be checked against these packages. */
  #checked(
    text: string,
    packages: readonly Built[],
    given?: ReadonlyMap<string, Buffer>,
  ): ConfigText {
    const { configFile, strict, overlays = [], allowUnknown = false, adjust } = this.#options;
    return {
      file: configFile === "" ? "--config-yaml" : configFile,
      text,
      overlays,
      packages: packages.flatMap((built) => built.infos),
      broken: this.#packages.flatMap((unit) => unit.broken ?? []),
      strict,
      serves: true,
      allowUnknown,
      given,
      adjust,
    };
  }

  /** The config, if it or a file that it names differs from what serves and all have been unchanged long enough. */
  #settledConfig(last: boolean): (Edit & { type: "config" }) | undefined {
    const text = this.#readConfig();
    this.#isSettling = false;
    if (text instanceof Error || text.trim() === "") {
      this.#configProblems = [
        problem(
          `${shortPath(this.#options.configFile)}: ${text instanceof Error ? text.message : "the file is empty"}`,
        ),
      ];
      this.#seen.hash = "";
      // A text that was refused before has to be refused again, or this problem would stay.
      this.#tried = "";
      return undefined;
    }
    const named = this.#named.now;
    const hash = lookOf(text, named);
    if (hash !== this.#seen.hash) this.#seen = { hash, since: performance.now() };
    const files = this.#live?.loaded.files;
    if (text === this.#configText && files?.now === files?.asRead) {
      this.#configProblems = [];
      this.#tried = hash;
      return undefined;
    }
    if (performance.now() - this.#seen.since >= CONFIG_SETTLES_MS)
      return { type: "config", text, named };
    this.#isSettling = true;
    // This look may have been the last one, so ask for another.
    this.#looks.again(CONFIG_SETTLES_MS, last);
    return undefined;
  }

  /** Attempts all edits together. Those that are refused are set aside and the rest is attempted again. */
  async #settle(edits: readonly Edit[]): Promise<void> {
    const before = this.#live?.config;
    const failure = await this.#attempt(edits, true);
    if (failure === undefined) return this.#free(before);
    if (failure === "stale") {
      // The event that changed the file has asked for another look already.
      this.#isUnjudged = true;
      return;
    }
    const [only] = edits;
    if (edits.length === 1 && only !== undefined) return this.#refuse(only, failure);
    const isBlamed = (edit: Edit) =>
      edit.type === "code" &&
      edit.unit.next!.infos.some((info) => failure.packages.has(info.package));
    const blamed = edits.filter(isBlamed);
    const others = edits.filter((edit) => !isBlamed(edit));
    const parts =
      blamed.length === 0 || others.length === 0
        ? edits.map((edit) => [edit])
        : [others, ...blamed.map((edit) => [edit])];
    for (const part of parts) await this.#settle(part);
  }

  /** Enters quarantined packages again whose own config is no longer the one with which they ended a process. */
  async #free(before: RuntimeConfig | undefined): Promise<void> {
    const now = this.#live?.config;
    if (now === before) return;
    for (const unit of this.#units.values()) {
      const { live } = unit;
      if (live === undefined || !unit.isQuarantined) continue;
      const isSame = ({ package: name }: PackageInfo) =>
        configsOf(name, before) === configsOf(name, now);
      if (live.infos.every(isSame)) continue;
      unit.next = unit.freed(live);
      await this.#settle([{ type: "code", unit }]);
    }
  }

  #refuse(edit: Edit, { problems, stopped = false }: Exclude<Failure, "stale">): void {
    if (edit.type === "config") {
      this.#tried = lookOf(edit.text, this.#named.asRead);
      this.#configProblems = problems;
    } else if (edit.type === "code") {
      edit.unit.problems = problems;
      edit.unit.stoppedWith = stopped ? this.#told(edit.unit, this.#configText) : undefined;
    } else {
      const left = `the files of ${edit.unit.name} are gone, and the config still uses it; the last good generation goes on`;
      edit.unit.problems = [problem(left)];
    }
  }

  async #attempt(edits: readonly Edit[], running: boolean): Promise<Failure | undefined> {
    const started = this.#since ?? performance.now();
    const packages = [...this.#draft(edits).values()];
    const configEdit = edits.find((edit) => edit.type === "config");
    const generation = ++this.#generation;
    const { serving, node, runtime } = this.#options;
    const isFirst = this.#live === undefined;
    const canary = isFirst ? serving : this.#options.canary;
    const change = changeOf(edits, generation);
    const rehearsed = await rehearse({
      ...this.#checked(configEdit?.text ?? this.#configText, packages, configEdit?.given),
      named: configEdit?.named ?? this.#live?.loaded.files.asRead ?? "",
      said: packages.map((built) => built.said).join(),
      node,
      runtime,
      canary,
      trial: this.#options.canary,
      change,
      live: this.#live,
      find: (name) => packages.find(({ bundle }) => bundle.filename === name)?.bundle.sources,
    });
    if (configEdit !== undefined)
      this.#named = isRejected(rehearsed) ? rehearsed.files : rehearsed.loaded.files;
    const stages: ReadonlySet<Stage> = new Set([canary, serving]);
    const drop = async (failure: Failure): Promise<Failure> => {
      await Promise.all([...stages].map((stage) => stage.abort(generation)));
      return failure;
    };
    if (isRejected(rehearsed)) return drop(rehearsed);
    const { config, unchanged } = rehearsed;
    const taken = unchanged ? [] : await serving.check(config.listeners);
    if (taken.length > 0) return drop({ problems: taken, packages: new Set() });
    const refusals = isFirst
      ? []
      : await serving.prepare({ ...change, config: unchanged ? undefined : config });
    if (refusals.length > 0) {
      const blamed = new Set(refusals.map((refusal) => refusal.package));
      const stopped = refusals.some((refusal) => refusal.stopped);
      return drop({ problems: rehearsed.explain(refusals), packages: blamed, stopped });
    }
    if (running && this.#changedMeanwhile(edits)) return drop("stale");
    this.#committing = edits;
    try {
      await Promise.all([...stages].map((stage) => stage.commit(generation)));
    } finally {
      this.#committing = [];
    }
    this.#accept(edits, generation);
    this.#live = rehearsed;
    if (!unchanged) this.loadedAt = new Date();
    const unbound = unchanged ? [] : await serving.listen(config.listeners);
    if (!running && unbound.length > 0) return { problems: unbound, packages: new Set() };
    const warnings = configEdit === undefined ? [] : rehearsed.warnings;
    const ofCode = edits.flatMap((edit) =>
      edit.type === "code" ? (edit.unit.live?.warnings ?? []) : [],
    );
    for (const found of [...ofCode, ...warnings, ...unbound]) this.#log.warn(formatProblem(found));
    if (running) this.#reports.committed(edits, generation, performance.now() - started);
    this.#tell(edits, running);
    return undefined;
  }

  /** At the start shipped packages are as on disk, so that another process has them as well. */
  #tell(edits: readonly Edit[], running: boolean): void {
    const codes = edits.flatMap((edit) => (edit.type === "code" ? edit.unit : []));
    const told = codes.filter((unit) => running || unit.source.origin === "dropped-in");
    for (const unit of told) {
      unit.isTold = true;
      this.#unplaced.add(unit);
    }
    const isConfig = edits.some((edit) => edit.type === "config");
    this.#options.onServing?.({
      config: isConfig ? this.#servedConfig() : undefined,
      packages: told.flatMap((unit) => unit.kept("without positions") ?? []),
      removed: edits.flatMap((edit) => (edit.type === "removal" ? edit.unit.source.id : [])),
    });
  }

  /** They are most of what there is to tell, and nothing that a process in this one's place needs to serve: they wait for saves to rest. */
  #tellPositions(): void {
    const units = [...this.#unplaced].filter((unit) => this.#units.get(unit.source.id) === unit);
    this.#unplaced.clear();
    const packages = units.flatMap((unit) => unit.kept("with positions") ?? []);
    if (packages.length > 0) this.#options.onServing?.({ packages, removed: [] });
  }

  /** Before the build of a save replaces the one that is kept on disk. */
  #tellOf(unit: PackageUnit): void {
    const kept = unit.isTold ? undefined : unit.kept("with positions");
    if (kept === undefined) return;
    unit.isTold = true;
    this.#options.onServing?.({ packages: [kept], removed: [] });
  }

  #servedConfig(): Served["config"] {
    if (this.#options.configText !== undefined) return undefined;
    const files = [...(this.#live?.loaded.files.contents ?? [])];
    return {
      text: this.#configText,
      files: files.map(([file, bytes]) => [file, bytes.toString("base64")] as const),
    };
  }

  /** The packages that would serve after the attempt, by unit. */
  #draft(edits: readonly Edit[]): Map<PackageUnit, Built> {
    const packages = new Map<PackageUnit, Built>();
    for (const unit of this.#units.values())
      if (unit.live !== undefined) packages.set(unit, unit.live);
    for (const edit of edits) {
      if (edit.type === "code") packages.set(edit.unit, edit.unit.next!);
      else if (edit.type === "removal") packages.delete(edit.unit);
    }
    return packages;
  }

  #changedMeanwhile(edits: readonly Edit[]): boolean {
    // Code that is taken back comes from no file.
    const isSaved = ({ next, before }: PackageUnit) => next !== before;
    return edits.some(
      (edit) =>
        (edit.type === "code" && isSaved(edit.unit) && edit.unit.look() !== "as built") ||
        (edit.type === "config" &&
          (this.#readConfig() !== edit.text || this.#named.now !== this.#named.asRead)),
    );
  }

  #accept(edits: readonly Edit[], generation: number): void {
    for (const edit of edits) {
      if (edit.type === "config") {
        this.#configText = edit.text;
        this.#tried = lookOf(edit.text, this.#named.asRead);
        this.#configProblems = [];
        this.#reports.forget("config");
        continue;
      }
      const { unit } = edit;
      this.#reports.forget(unit.source.id);
      if (edit.type === "removal") this.#units.delete(unit.source.id);
      else {
        unit.before = unit.live;
        if (unit.live !== undefined) unit.trail.left(unit.live, performance.now());
        unit.live = unit.next;
        unit.next = undefined;
        unit.stoppedWith = undefined;
        unit.generation = generation;
      }
      unit.problems = [];
    }
  }

  #tellOfRefusals(): void {
    const config = { problems: this.#configProblems, saved: this.#tried };
    this.#reports.refused(this.#packages, this.#isSettling ? undefined : config);
  }

  /** The file's text, or why it cannot be read. */
  #readConfig(): string | Error {
    const { configFile, configText } = this.#options;
    try {
      return configText ?? readFileSync(configFile, "utf8");
    } catch (error) {
      return new Error(`cannot be read: ${fileError(error)}`);
    }
  }

  #readConfigOrRefuse(): string {
    const text = this.#readConfig();
    if (typeof text === "string") return text;
    throw new StartError([problem(`${shortPath(this.#options.configFile)}: ${text.message}`)]);
  }

  /** A directory above the packages has changed: packages may have come or gone. */
  #isAmongShipped(touched: ReadonlySet<string>): boolean {
    const root = path.resolve(this.#options.shippedRoot);
    return [...touched].some((directory) => directory === root || path.dirname(directory) === root);
  }

  #discover(last: boolean): void {
    const { droppedIn } = this.#options;
    const sources = [
      ...this.#shipped,
      ...droppedIn.flatMap((directory) => discoverDroppedIn(directory)),
    ];
    const shipped = this.#names.shipped as Set<string>;
    for (const source of sources) if (source.origin === "shipped") shipped.add(source.id);
    const found = new Set(sources.map((source) => source.id));
    for (const source of sources) {
      const unit = this.#units.get(source.id);
      // Another entry file (filter.ts instead of filter.js) is another unit, which takes over what serves.
      if (unit?.source.entry !== source.entry) this.#units.set(source.id, this.#unit(source, unit));
      else if (unit.gone) {
        unit.isBack();
        this.#isUnjudged = true;
      }
    }
    for (const [id, unit] of this.#units) {
      if (found.has(id)) continue;
      unit.gone = true;
      if (last && unit.live === undefined) this.#units.delete(id);
    }
  }

  #unit(source: PackageUnit["source"], before: PackageUnit | undefined): PackageUnit {
    const unit = new PackageUnit(source, this.#names);
    unit.live = before?.live;
    unit.generation = before?.generation ?? 0;
    return unit;
  }

  #directories(): Map<string, Interest> {
    const { configFile, configText, shippedRoot, droppedIn } = this.#options;
    const all = new Map<string, Interest>();
    const files = [...this.#named.names, ...(this.#live?.loaded.files.names ?? [])];
    for (const file of configText === undefined ? [configFile, ...files] : files)
      for (const [directory, names] of placesOf(file))
        all.set(directory, new Set([...(all.get(directory) ?? []), ...names]));
    for (const root of [shippedRoot, ...droppedIn]) {
      all.set(path.resolve(root), undefined);
      for (const directory of placesOf(path.join(root, "any")).keys())
        all.set(directory, undefined);
    }
    for (const unit of this.#units.values())
      for (const directory of unit.directories()) all.set(directory, undefined);
    return all;
  }
}

/** One text for everything that a config tells a package. */
function configsOf(name: string, config: RuntimeConfig | undefined): string {
  const found: string[] = [];
  JSON.stringify(config, (_key, value) => {
    if (value?.package === name) found.push(JSON.stringify(value));
    return value;
  });
  return found.join();
}

/** One text for a config and what the files that it names hold. */
function lookOf(text: string, named: string): string {
  return textHash(`${named}\n${text}`);
}

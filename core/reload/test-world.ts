import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { logTo } from "../logs/log.ts";
import { Describer } from "../packages/describe.ts";
import { textOf } from "../packages/module-code.ts";
import { ModuleReader } from "../packages/module-reader.ts";
import { bundlePreludes } from "../packages/preludes.ts";
import type { ListenerConfig, ModuleSource, Refusal } from "../protocol.ts";
import type { RehearsalStage } from "./rehearsal.ts";
import { Reload, type Serving } from "./reload.ts";
import { type Served, serves } from "./served.ts";
import type { Change } from "./stage.ts";

/** The worlds of one test file. */
export class Worlds {
  readonly #open: World[] = [];
  #describer: Describer | undefined = undefined;

  /** Called before all tests. */
  async begin(): Promise<void> {
    const preludes = await bundlePreludes();
    this.#describer = new Describer(preludes, new ModuleReader(preludes));
  }
  /** Called after each test. */
  async clear(): Promise<void> {
    for (const { reload, root } of this.#open.splice(0)) {
      await reload.close();
      fs.rmSync(root, { recursive: true });
    }
  }
  /** Called after all tests. */
  end(): void {
    this.#describer?.dispose();
  }

  open(options: WorldOptions = {}): World {
    const world = new World(this.#describer!, options);
    this.#open.push(world);
    return world;
  }
  /** A world that serves a filter `shout`. */
  async started(options: WorldOptions = {}): Promise<World> {
    const world = this.open(options);
    fs.writeFileSync(world.file("shout.ts"), filter("shout", "v1"));
    await world.start();
    return world;
  }
}

interface WorldOptions {
  readonly canary?: (change: Change) => Refusal[];
  readonly filters?: string;
}

/** A reload, with the folder that it watches and what stands for the canary and the threads. */
export class World {
  readonly root = fs.mkdtempSync(path.join(os.tmpdir(), "reload-"));
  readonly filters = path.join(this.root, "filters");
  readonly config = path.join(this.root, "front.yaml");
  readonly shipped = path.join(this.root, "shipped");
  readonly lines: string[] = [];
  serving = new FakeServing();
  readonly canary: FakeServing;
  reload: Reload;
  readonly #describer: Describer;
  readonly #options: WorldOptions;
  /** What the supervisor would keep. */
  served: Served | undefined;
  onTold: () => void = () => {};

  constructor(describer: Describer, options: WorldOptions) {
    this.#describer = describer;
    this.#options = options;
    this.canary = new FakeServing(options.canary);
    fs.mkdirSync(this.filters);
    fs.mkdirSync(path.join(this.shipped, "network/end"), { recursive: true });
    fs.writeFileSync(
      path.join(this.shipped, "network/end/filter.ts"),
      filter("envoy.filters.network.end", "end", true),
    );
    fs.writeFileSync(this.config, yaml("shout"));
    this.reload = this.#newReload();
  }
  #newReload(): Reload {
    const sink = {
      write: (line: string) => {
        this.lines.push(JSON.parse(line).msg);
        this.serving.changed();
      },
    };
    return new Reload({
      configFile: this.config,
      shippedRoot: this.shipped,
      droppedIn: [this.#options.filters ?? this.filters],
      trusted: [],
      strict: false,
      node: { id: "", cluster: "" },
      runtime: () => [],
      describer: this.#describer,
      canary: this.canary,
      serving: this.serving,
      onServing: (change) => {
        this.served = serves(this.served, change);
        this.onTold();
        this.serving.changed();
      },
      log: logTo(sink, { level: "info", components: {}, escaped: false }),
    });
  }
  file(name: string): string {
    return path.join(this.filters, name);
  }
  async start(): Promise<void> {
    await this.reload.start(this.served);
    this.reload.watch();
  }
  /** Another process takes the place of this one; `start` starts it. */
  async crash(): Promise<void> {
    await this.reload.close();
    this.serving = new FakeServing();
    this.lines.length = 0;
    this.reload = this.#newReload();
  }
  serves(marker: string, name = "network/shout"): Promise<void> {
    return this.serving.until(`${name} serves ${marker}`, () =>
      this.serving.code(name).includes(`"${marker}"`),
    );
  }
  says(words: string): Promise<void> {
    return this.serving.until(`the log says ${words}\n${this.lines.join("\n")}`, () =>
      this.lines.some((line) => line.includes(words)),
    );
  }
  get refusals(): string[] {
    return this.lines.filter(
      (line) =>
        line.includes("stays at generation") ||
        line.includes("cannot be used") ||
        line.includes("goes on"),
    );
  }
}

/** Everything that a change brings, when it was committed; and the code and config that then serve. */
class FakeServing implements Serving, RehearsalStage {
  readonly modules = new Map<string, ModuleSource>();
  readonly commits: Change[] = [];
  refuse: (change: Change) => Refusal[];
  onCommit: (change: Change) => void = () => {};
  #pending: Change | undefined;
  #waiting: (() => void)[] = [];

  constructor(refuse: (change: Change) => Refusal[] = () => []) {
    this.refuse = refuse;
  }
  async prepare(change: Change) {
    this.#pending = change;
    return this.refuse(change);
  }
  async commit(generation: number) {
    const change = this.#pending!;
    if (change.generation !== generation) throw new Error("committed what was not prepared");
    for (const module of change.modules) this.modules.set(module.package, module);
    for (const name of change.removed) this.modules.delete(name);
    this.commits.push(change);
    this.onCommit(change);
    this.changed();
  }
  async abort() {
    this.#pending = undefined;
  }
  async check() {
    return [];
  }
  async listen() {
    return [];
  }
  serviceListeners() {
    return [];
  }
  async extend() {
    return [];
  }
  changed() {
    for (const wake of this.#waiting.splice(0)) wake();
  }
  get listeners(): readonly ListenerConfig[] {
    return this.commits.findLast((change) => change.config)!.config!.listeners;
  }
  code(name: string): string {
    const module = this.modules.get(name);
    return module === undefined ? "" : textOf(module);
  }
  /** Settles as soon as it holds; fails after two minutes, for a machine that is busy with something else. */
  async until(what: string, holds: () => boolean): Promise<void> {
    const deadline = Date.now() + 120_000;
    while (!holds()) {
      if (Date.now() > deadline) throw new Error(`still not so: ${what}`);
      await Promise.race([
        new Promise<void>((resolve) => this.#waiting.push(resolve)),
        delay(5_000),
      ]);
    }
  }
}

/** Code of a network filter. */
export function filter(name: string, marker: string, terminal = false): string {
  return `import { defineNetworkFilter, Type } from "@tsproxy/sdk";
export default defineNetworkFilter({
  name: "${name}",
  terminal: ${terminal},
  config: Type.Object({ word: Type.Optional(Type.String()) }),
  setup: () => ({ create: () => ({ marker: "${marker}" }) }),
});
`;
}

/** A config that uses that filter. */
export function yaml(name: string, port = 10000): string {
  return `static_resources:
  listeners:
  - name: main
    address: { socket_address: { address: 127.0.0.1, port_value: ${port} } }
    filter_chains:
    - filters:
      - name: ${name}
        config: { word: hello }
      - name: network/end
`;
}

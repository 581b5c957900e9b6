import { bytesOf } from "../packages/module-code.ts";
import type { ModuleSource, Refusal, RuntimeConfig } from "../protocol.ts";
import type { Question, Rehearsal, TrialProcess } from "../trial-process.ts";
import { refusalOf } from "./refusal.ts";
import type { RehearsalStage } from "./rehearsal.ts";
import type { Change, WrittenChange } from "./stage.ts";
import { WrittenConfig, writtenChange } from "./written-config.ts";

/**
 * The canary stops by itself what can be stopped: what serves and then a change, with a large config 20 s each at most. This is for
 * what cannot.
 */
const LIMIT = { ms: 60_000, message: "setup did not return" } as const;

/** The canary of a running proxy, in a process beside it: admin and the threads go on while a setup hangs there. */
export class CanaryProcess implements RehearsalStage {
  readonly #process: TrialProcess;
  readonly #node: () => { readonly id: string; readonly cluster: string };
  /** What serves, for a process that does not know it. */
  readonly #modules = new Map<string, ModuleSource>();
  #config: RuntimeConfig | undefined;
  #generation = 0;
  #pending: Change | undefined;
  #services = "[]";
  /** `#services` of what serves. Undefined: not known. */
  #served: string | undefined;
  /** The last process that was told what serves. */
  #told = 0;

  constructor(
    process: TrialProcess,
    node: () => { readonly id: string; readonly cluster: string },
  ) {
    this.#process = process;
    this.#node = node;
  }

  async prepare(change: Change): Promise<readonly Refusal[]> {
    this.#pending = change;
    if (this.#served !== undefined && this.#isKnown(change)) {
      this.#services = this.#served;
      return [];
    }
    this.#services = "[]";
    const [module] = change.modules;
    const blamed = change.modules.length === 1 ? module!.package : "";
    const outcome = await this.#ask<Rehearsal>(blamed, (session) => {
      const serving = session === this.#told ? undefined : this.#serving;
      this.#told = session;
      return { type: "prepare", node: this.#node(), serving, change: this.#sent(change) };
    });
    if (!("services" in outcome)) return outcome;
    this.#services = outcome.services;
    return outcome.refusals;
  }

  serviceListeners(): readonly unknown[] {
    return JSON.parse(this.#services);
  }

  async extend(config: RuntimeConfig, nth: number): Promise<readonly Refusal[]> {
    if (this.#pending === undefined) throw new Error("nothing is prepared");
    this.#pending = { ...this.#pending, config };
    const written = WrittenConfig.of(config);
    return this.#ask<readonly Refusal[]>("", () => ({
      type: "extend",
      config: written.text(),
      listeners: written.listeners(nth),
      nth,
    }));
  }

  async commit(generation: number): Promise<void> {
    const change = this.#pending;
    if (change?.generation !== generation) return;
    this.#process.tell({ type: "commit", generation });
    this.#keep(change);
  }

  async abort(generation: number): Promise<void> {
    if (this.#pending?.generation !== generation) return;
    this.#pending = undefined;
    this.#process.tell({ type: "abort", generation });
  }

  /** Called when the threads serve a change that did not pass the canary. */
  adopt(change: Change): void {
    this.#keep(change);
    this.#told = 0;
    this.#served = undefined;
  }

  /** The canary would set up what it has set up before: of packages in sandboxes it knows no more than their names. */
  #isKnown({ modules, removed, config }: Change): boolean {
    const isKnown = ({ package: name, group }: ModuleSource) =>
      group !== "builtin" && this.#modules.get(name)?.group === group;
    return config === undefined && removed.length === 0 && modules.every(isKnown);
  }

  #keep({ generation, modules, removed, config }: Change): void {
    this.#pending = undefined;
    this.#generation = generation;
    this.#served = this.#services;
    for (const name of removed) this.#modules.delete(name);
    for (const module of modules) this.#modules.set(module.package, module);
    this.#config = config ?? this.#config;
  }

  /** Collects the isolate's garbage. */
  collectGarbage(): void {
    this.#process.tell({ type: "collect" });
  }

  get #serving(): WrittenChange | undefined {
    const [generation, config] = [this.#generation, this.#config];
    if (generation === 0) return undefined;
    return this.#sent({ generation, modules: [...this.#modules.values()], removed: [], config });
  }

  /** Of packages that live in sandboxes, a canary needs neither the code nor the memory that threads share (and see `#isKnown`). */
  #sent(change: Change): WrittenChange {
    const { modules, ...written } = writtenChange(change);
    const inSandbox = ({ cells: _cells, ...module }: ModuleSource) => ({ ...module, code: "" });
    const inBuiltin = (module: ModuleSource) => ({
      ...module,
      code: this.#process.knows(module.filename) ? "" : bytesOf(module.code),
    });
    return {
      ...written,
      modules: modules.map((module) =>
        module.group === "builtin" ? inBuiltin(module) : inSandbox(module),
      ),
    };
  }

  /** Answers refusals of that package if the process ends, or has to be ended. */
  async #ask<T>(
    packageName: string,
    question: (session: number) => Question,
  ): Promise<T | readonly Refusal[]> {
    try {
      return (await this.#process.ask(question, LIMIT)) as T;
    } catch (error) {
      return [{ ...refusalOf(packageName, error), stopped: true }];
    }
  }
}

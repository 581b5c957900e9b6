import type { Refusal, RuntimeConfig } from "../protocol.ts";
import { CanaryIsolate, type CanaryOptions } from "./canary-isolate.ts";
import type { RehearsalStage } from "./rehearsal.ts";
import type { Change } from "./stage.ts";
import { WrittenConfig, writtenChange } from "./written-config.ts";

/** A canary on this thread, for commands, which serve nothing that a hanging setup could hold up. */
export class Canary implements RehearsalStage {
  readonly #isolate: CanaryIsolate;

  constructor(options: CanaryOptions) {
    this.#isolate = new CanaryIsolate(options);
  }

  async prepare(change: Change): Promise<readonly Refusal[]> {
    return this.#isolate.prepare(writtenChange(change));
  }

  serviceListeners(): readonly unknown[] {
    return JSON.parse(this.#isolate.serviceListeners());
  }

  async extend(config: RuntimeConfig, nth: number): Promise<readonly Refusal[]> {
    const written = WrittenConfig.of(config);
    return this.#isolate.extend(written.text(), written.listeners(nth), nth);
  }

  /** Runs a prepared package's tool, by the tool's name. Throws what the tool throws. */
  tool(packageName: string, name: string, input: unknown): unknown {
    return this.#isolate.tool(packageName, name, input);
  }

  async commit(generation: number): Promise<void> {
    this.#isolate.commit(generation);
  }

  async abort(generation: number): Promise<void> {
    this.#isolate.abort(generation);
  }

  dispose(): void {
    this.#isolate.dispose();
  }
}

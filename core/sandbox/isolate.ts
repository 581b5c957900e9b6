import { createRequire } from "node:module";
import type ivmTypes from "isolated-vm";
import { BOX } from "../inside/sandbox/layout.ts";
import { Watchdog } from "../isolate.ts";

// isolated-vm is CommonJS with a native half; its only use for sandboxes is in this file.
const ivm = createRequire(import.meta.url)("isolated-vm") as typeof ivmTypes;

const LOAD_TIMEOUT_MS = 1000;

export interface Source {
  readonly code: string;
  readonly filename: string;
}

export interface SandboxSources {
  readonly sdk: string;
  readonly prelude: string;
  readonly module: Source;
}

/** One package in an isolate of its own. Built and called on other threads where it may take long; entered on this one. */
export class SandboxIsolate {
  readonly #isolate: ivmTypes.Isolate;
  readonly #namespace: ivmTypes.Reference;
  readonly #run: ivmTypes.Reference<(count: number) => void>;
  readonly #args = [0];
  readonly #runOptions: { timeout: number };
  /** Odd while inside. The isolate does not see it. */
  readonly #beat = new Int32Array(new SharedArrayBuffer(4));
  readonly #watchdog: Watchdog;
  readonly words: Int32Array;
  readonly times: Float64Array;
  readonly bytes: Buffer;

  private constructor(
    isolate: ivmTypes.Isolate,
    namespace: ivmTypes.Reference,
    run: ivmTypes.Reference<(count: number) => void>,
    box: SharedArrayBuffer,
    timeoutMs: number,
  ) {
    this.#isolate = isolate;
    this.#namespace = namespace;
    this.#run = run;
    this.#runOptions = { timeout: timeoutMs };
    this.#watchdog = new Watchdog({ handle: isolate }, this.#beat.buffer, 0, timeoutMs);
    this.words = new Int32Array(box);
    this.times = new Float64Array(box);
    this.bytes = Buffer.from(box);
  }

  /** Throws what the package throws while it loads. */
  static async build(
    sources: SandboxSources,
    stats: SharedArrayBuffer,
    options: {
      readonly memoryLimitMb: number;
      readonly timeoutMs: number;
      readonly worker: number;
      readonly node: { readonly id: string; readonly cluster: string };
    },
  ): Promise<SandboxIsolate> {
    const isolate = new ivm.Isolate({ memoryLimit: options.memoryLimitMb });
    try {
      const context = await isolate.createContext();
      let sdk: ivmTypes.Module | undefined;
      const load = async ({ code, filename }: Source): Promise<ivmTypes.Module> => {
        const module = await isolate.compileModule(code, { filename });
        await module.instantiate(context, (specifier) => {
          if (specifier === "@tsproxy/sdk" && sdk !== undefined) return sdk;
          throw new Error(`cannot import "${specifier}": filters see the SDK and their own files`);
        });
        await module.evaluate({ timeout: LOAD_TIMEOUT_MS });
        return module;
      };
      sdk = await load({ code: sources.sdk, filename: "@tsproxy/sdk" });
      const prelude = (await load({ code: sources.prelude, filename: "tsproxy/sandbox" }))
        .namespace;
      const box = new SharedArrayBuffer(BOX.TOTAL);
      const share = (memory: SharedArrayBuffer): unknown => new ivm.ExternalCopy(memory).copyInto();
      const call = async (name: string, args: unknown[]): Promise<unknown> => {
        const entry = await prelude.get(name, { reference: true });
        return entry.apply(undefined, args as never, { timeout: LOAD_TIMEOUT_MS });
      };
      await call("init", [
        share(box),
        share(stats),
        options.worker,
        options.node.id,
        options.node.cluster,
      ]);
      // The package is evaluated last: by now the prelude has bounded what it will find.
      const module = await load(sources.module);
      const exported = await module.namespace.get("default", { reference: true });
      const refused = await call("adopt", [exported.derefInto()]);
      if (refused !== "") throw new Error(String(refused));
      const run = await prelude.get("run", { reference: true });
      return new SandboxIsolate(isolate, prelude, run, box, options.timeoutMs);
    } catch (error) {
      if (!isolate.isDisposed) isolate.dispose();
      throw error;
    }
  }

  /**
   * Enters with `count` records, on this thread. Throws when it was stopped: by the watchdog, for `timeout` wakes a thread for
   * every entry, which cost 8 µs a request (test/bench/cpu.ts filter).
   */
  run(count: number): void {
    this.#args[0] = count;
    this.#beat[0]!++;
    try {
      this.#run.applySync(undefined, this.#args as [number]);
    } catch (error) {
      if (!this.#isolate.isDisposed) throw error;
      throw new Error(
        `it was stopped: no return within ${this.#runOptions.timeout} ms, or no memory`,
      );
    } finally {
      this.#beat[0]!++;
    }
  }

  /** The same on another thread (60 µs): for a sandbox that is not trusted to come back soon. */
  async runAside(count: number): Promise<void> {
    await this.#run.apply(undefined, [count], this.#runOptions);
  }

  /** A rare call, text in and out, on another thread. */
  async call(name: string, ...args: (string | number)[]): Promise<string> {
    const entry = await this.#namespace.get(name, { reference: true });
    return String(await entry.apply(undefined, args as never, { timeout: LOAD_TIMEOUT_MS }));
  }

  /** Bytes of heap and of what hangs on it (3 µs to ask). */
  get memory(): number {
    const statistics = this.#isolate.getHeapStatisticsSync();
    return statistics.used_heap_size + statistics.externally_allocated_size;
  }

  get disposed(): boolean {
    return this.#isolate.isDisposed;
  }

  dispose(): void {
    void this.#watchdog.stop();
    if (!this.#isolate.isDisposed) this.#isolate.dispose();
  }
}

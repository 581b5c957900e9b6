import { Isolate, type LoadedModule } from "../isolate.ts";
import { isTimeout, MOST_PATIENCE, threadCpuMs, watchWaiting } from "../process/cpu-limit.ts";
import { hashOf } from "./content-hash.ts";
import { textOf } from "./module-code.ts";
import type { Preludes } from "./preludes.ts";

/** A module to be read. `id` tells dropped-in packages apart. */
export interface ReadModule {
  readonly id: string;
  readonly origin: "shipped" | "dropped-in";
  readonly code: string;
  readonly filename: string;
  /** Hash of a text that need not be answered again. */
  readonly known?: string | undefined;
}

/** What a module defines. */
export interface Read {
  /** Hash of the text. */
  readonly said: string;
  /** JSON of Description[], or of a Misfit. Undefined: it is the known one. */
  readonly text: string | undefined;
}

/** Loads modules and answers what they define. Throws, or rejects, with what keeps a module from being loaded. */
export interface ReadsModules {
  read(module: ReadModule): Read | Promise<Read>;
  /** Makes ready for the next dropped-in package. */
  warm(): void;
  dispose(): void;
}

/** Why a module that loads is no package. `path`: the names that lead to what is wrong, from those of its definition on. */
export interface Misfit {
  readonly message: string;
  readonly path: readonly string[];
  /** It has no default export. */
  readonly lacksDefault: boolean;
}

/** Loading a module takes milliseconds; this limit is for one that never ends. */
export const LOAD_MS = 5_000;
const MEMORY_MB = 128;
/** An isolate loads so many modules; then a new one replaces it, so that its heap is given back. */
const MODULES_AN_ISOLATE = 100;

/**
 * Loads modules in isolates of this thread, without traffic. Shipped packages share an isolate. A dropped-in package shares one only
 * with its own earlier versions, until another package is edited: making an isolate (14 ms) takes longer than all other steps together.
 */
export class ModuleReader implements ReadsModules {
  readonly #preludes: Pick<Preludes, "sdk" | "reader">;
  #shared: Cell | undefined;
  #own: Cell | undefined;

  constructor(preludes: Pick<Preludes, "sdk" | "reader">) {
    this.#preludes = preludes;
  }

  read(module: ReadModule): Read {
    const text = this.#textOf(module);
    const said = hashOf(text);
    return { said, text: said === module.known ? undefined : text };
  }

  #textOf(module: ReadModule): string {
    if (module.origin === "shipped") {
      if (!this.#shared?.mayLoad) this.#shared = this.#another(this.#shared, "trusted");
      return this.#shared.read(module, MOST_PATIENCE);
    }
    return this.#readDroppedIn(module, 1);
  }

  /** `patience`: how many times as long as usual it may take. */
  #readDroppedIn(module: ReadModule, patience: number): string {
    const { id } = module;
    if (!this.#own?.mayLoad || (this.#own.id ?? id) !== id)
      this.#own = this.#another(this.#own, "bounded");
    this.#own.id = id;
    const waited = watchWaiting(threadCpuMs);
    try {
      return this.#own.read(module, patience);
    } catch (error) {
      // A module that failed may have left the isolate in any state.
      this.#own.dispose();
      const isLate = patience === 1 && (error as Error).message === NEVER_LOADED;
      const more = isLate ? waited() : undefined;
      if (more === undefined) throw error;
      return this.#readDroppedIn(module, more);
    }
  }

  #another(before: Cell | undefined, code: "trusted" | "bounded"): Cell {
    before?.dispose();
    return new Cell(this.#preludes, code);
  }

  warm(): void {
    if (!this.#own?.mayLoad) this.#own = this.#another(this.#own, "bounded");
  }

  /** To be called between two saves: the next one does not wait for an isolate (42 ms of CPU) in the place of one that has loaded enough. */
  renew(): void {
    if (this.#shared?.mayLoad === false) this.#shared = this.#another(this.#shared, "trusted");
    if (this.#own?.mayLoad === false) this.#own = this.#another(this.#own, "bounded");
  }

  dispose(): void {
    this.#shared?.dispose();
    this.#own?.dispose();
    this.#shared = this.#own = undefined;
  }
}

/** One isolate, and the function in it that reads what a module defines. */
class Cell {
  readonly #isolate: Isolate;
  readonly #reader: LoadedModule;
  /** The dropped-in package whose versions it loads; undefined: none yet. */
  id: string | undefined = undefined;
  #loaded = 0;

  /** `bounded`: with the bounds of a sandbox's built-ins. One call that V8 has no memory for would end the process. */
  constructor({ sdk, reader }: Pick<Preludes, "sdk" | "reader">, code: "trusted" | "bounded") {
    this.#isolate = new Isolate({ memoryLimitMb: MEMORY_MB, sdk: textOf({ code: sdk }) });
    this.#reader = this.#isolate.load({
      code: textOf({ code: reader }),
      filename: "tsproxy:reader",
    });
    if (code === "bounded") this.#reader.entry("bound")();
  }

  read({ code, filename }: ReadModule, patience: number): string {
    this.#loaded++;
    try {
      const module = this.#isolate.load({ code, filename }, LOAD_MS * patience);
      const read = this.#reader.entry("read", LOAD_MS * patience);
      const text = read(module.namespace) as string;
      module.release();
      return text;
    } catch (error) {
      const { message, stack = "" } = error as Error;
      const reason = isTimeout(error)
        ? NEVER_LOADED
        : message.startsWith("Isolate was disposed")
          ? `took more than ${MEMORY_MB} MiB while it was loaded`
          : message;
      throw Object.assign(new Error(reason), { stack });
    }
  }

  /** False: it has loaded enough modules, or a module went past the memory limit. */
  get mayLoad(): boolean {
    return !this.#isolate.disposed && this.#loaded < MODULES_AN_ISOLATE;
  }

  dispose(): void {
    this.#isolate.dispose();
  }
}

export const NEVER_LOADED = `did not finish loading within ${LOAD_MS / 1000} s`;

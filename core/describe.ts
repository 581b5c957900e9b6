import { isKept, keep, keyOf, readKept } from "./build-cache.ts";
import { type Bundle, locate } from "./bundle.ts";
import { type EntryPoint, Isolate } from "./isolate.ts";
import type { PackageSource } from "./packages.ts";
import type { Preludes } from "./preludes.ts";
import type { Problem } from "./problem.ts";

/** What a definition says of itself, as JSON. */
export interface Description {
  readonly kind: string;
  readonly name: string;
  readonly aliases: readonly string[];
  readonly types: readonly string[];
  readonly terminal: boolean;
  readonly runs: "workers" | "control" | "everywhere";
  readonly section?: string;
  /** A shipped package that wants an isolate of its own. */
  readonly sandboxed?: boolean;
  /** A SandboxManifest, unchecked. */
  readonly sandbox?: unknown;
  readonly schema: unknown;
  readonly routeSchema?: unknown;
}

/** Descriptions, and of what code and SDK they are. */
interface Described {
  readonly of: string;
  readonly descriptions: readonly Description[];
}

/** Why a module cannot be loaded, or is no package. */
export class DescribeError extends Error {
  readonly problem: Problem;

  constructor(found: Problem) {
    super(found.message);
    this.problem = found;
  }
}

/** Loading somebody's module takes milliseconds; this is for the one that never ends. */
const LOAD_MS = 1_000;
const MEMORY_MB = 128;
/** One isolate serves so many modules of ours, then its heap is given back. */
const MODULES_AN_ISOLATE = 100;

/**
 * Loads modules far from any traffic and reads what they define. Ours share an isolate. Others share one with nobody but their
 * own earlier versions, for as long as no other is edited: making one takes longer (14 ms) than all else that is done here.
 */
export class Describer {
  readonly #preludes: Pick<Preludes, "sdk" | "reader">;
  #sdkKey: string | undefined;
  #shared: Cell | undefined;
  #own: Cell | undefined;

  constructor(preludes: Pick<Preludes, "sdk" | "reader">) {
    this.#preludes = preludes;
  }

  /** As `describe`; what an earlier process was told of the same code is taken from disk. */
  async learn(
    id: string,
    bundle: Bundle,
    { origin, entry }: PackageSource,
  ): Promise<readonly Description[]> {
    if (origin !== "shipped" || !isKept(entry)) return this.describe(id, bundle, origin);
    this.#sdkKey ??= keyOf(this.#preludes.sdk, this.#preludes.reader);
    const of = keyOf(this.#sdkKey, bundle.hash);
    const name = `${keyOf(entry)}.described.json`;
    const known = JSON.parse((await readKept(name)) ?? "{}") as Partial<Described>;
    if (known.of === of && known.descriptions !== undefined) return known.descriptions;
    const descriptions = this.describe(id, bundle, origin);
    void keep(name, JSON.stringify({ of, descriptions } satisfies Described));
    return descriptions;
  }

  /** `id` tells packages apart. Throws a DescribeError. */
  describe(id: string, bundle: Bundle, origin: "shipped" | "dropped-in"): readonly Description[] {
    if (origin === "shipped") {
      if (!this.#shared?.mayLoad) this.#shared = this.#another(this.#shared);
      return this.#shared.read(bundle);
    }
    if (!this.#own?.mayLoad || (this.#own.id ?? id) !== id) this.#own = this.#another(this.#own);
    this.#own.id = id;
    try {
      return this.#own.read(bundle);
    } catch (error) {
      // Who knows how far it got.
      this.#own.dispose();
      throw error;
    }
  }

  #another(before: Cell | undefined): Cell {
    before?.dispose();
    return new Cell(this.#preludes);
  }

  /** Makes the isolate of the next dropped-in description, when there is time: a save then does not wait for it. */
  warm(): void {
    if (!this.#own?.mayLoad) this.#own = this.#another(this.#own);
  }

  dispose(): void {
    this.#shared?.dispose();
    this.#own?.dispose();
    this.#shared = this.#own = undefined;
  }
}

class Cell {
  readonly #isolate: Isolate;
  readonly #read: EntryPoint;
  /** The one package that it has loaded; undefined: none yet. */
  id: string | undefined = undefined;
  #loaded = 0;

  constructor({ sdk, reader }: Pick<Preludes, "sdk" | "reader">) {
    this.#isolate = new Isolate({ memoryLimitMb: MEMORY_MB, sdk });
    this.#read = this.#isolate
      .load({ code: reader, filename: "tsproxy:reader" })
      .entry("read", LOAD_MS);
  }

  read(bundle: Bundle): readonly Description[] {
    this.#loaded++;
    try {
      const module = this.#isolate.load({ code: bundle.code, filename: bundle.filename }, LOAD_MS);
      const text = this.#read(module.namespace) as string;
      module.release();
      return JSON.parse(text);
    } catch (error) {
      const { message, stack = "" } = error as Error;
      const reason = message.startsWith("Script execution timed out")
        ? `did not finish loading within ${LOAD_MS / 1000} s`
        : message;
      const find = (filename: string) =>
        filename === bundle.filename ? bundle.sources : undefined;
      throw new DescribeError(locate(reason, stack, find));
    }
  }

  /** False: it has served long enough, or a module went past the memory limit. */
  get mayLoad(): boolean {
    return !this.#isolate.disposed && this.#loaded < MODULES_AN_ISOLATE;
  }

  dispose(): void {
    this.#isolate.dispose();
  }
}

import { didYouMean } from "../config/diagnostic.ts";
import { type EntryPoint, Isolate } from "../isolate.ts";
import type { Problem } from "../problem.ts";
import { isKept, keep, keyOf, readKept } from "./build-cache.ts";
import { type Bundle, hashOf, locate } from "./bundle.ts";
import { textOf } from "./module-code.ts";
import type { PackageSource } from "./packages.ts";
import type { Preludes } from "./preludes.ts";
import { partsOf, type SchemaParts, wholeOf } from "./schema-parts.ts";

/** What a definition (`defineHttpFilter` and the like) says of itself. */
export interface Description {
  readonly kind: string;
  readonly name: string;
  readonly aliases: readonly string[];
  readonly types: readonly string[];
  readonly terminal: boolean;
  readonly runs: "workers" | "control" | "everywhere";
  readonly section?: string;
  /** A shipped package that has to run in a sandbox. */
  readonly sandboxed?: boolean;
  /** Its SandboxManifest, not checked yet. */
  readonly sandbox?: unknown;
  readonly schema: unknown;
  readonly routeSchema?: unknown;
}

/** What the definitions of a module say of themselves. */
export interface Described {
  /** Hash of the descriptions. */
  readonly said: string;
  readonly descriptions: readonly Description[];
}

/** A `Described` as it is kept on disk, with the schemas in a list of their own. */
export interface Told {
  readonly said: string;
  readonly descriptions: readonly Omit<Description, keyof Schemas>[];
  readonly schemas: readonly Schemas[];
}
/** The schemas of one definition, taken apart (schema-parts.ts). */
export interface Schemas {
  readonly schema: SchemaParts;
  readonly routeSchema?: SchemaParts;
}

/** Makes a `Described` whose schemas are read when the first of them is used: most configs need those of a few packages. */
export function describedBy(
  { said, descriptions }: Omit<Told, "schemas">,
  schemas: () => readonly Schemas[],
): Described {
  let known: readonly Pick<Description, keyof Schemas>[] | undefined;
  const read = (k: number) => {
    known ??= schemas().map(({ schema, routeSchema }) => ({
      schema: wholeOf(schema),
      routeSchema: routeSchema && wholeOf(routeSchema),
    }));
    return known[k]!;
  };
  const withSchemas = descriptions.map((description, k) => ({
    ...description,
    get schema() {
      return read(k).schema;
    },
    get routeSchema() {
      return read(k).routeSchema;
    },
  }));
  return { said, descriptions: withSchemas };
}

/** Says why a module cannot be loaded, or is no package. */
export class DescribeError extends Error {
  readonly problem: Problem;

  constructor(found: Problem) {
    super(found.message);
    this.problem = found;
  }
}

/** Loading a module takes milliseconds; this limit is for one that never ends. */
const LOAD_MS = 5_000;
const MEMORY_MB = 128;
/** An isolate loads so many modules; then a new one replaces it, so that its heap is given back. */
const MODULES_AN_ISOLATE = 100;

/**
 * Loads modules in isolates without traffic and reads what they define. Shipped packages share an isolate. A dropped-in package
 * shares one only with its own earlier versions, until another package is edited: making an isolate (14 ms) takes longer than all
 * other steps together.
 */
export class Describer {
  readonly #preludes: Pick<Preludes, "sdk" | "reader">;
  #sdkKey: string | undefined;
  #shared: Cell | undefined;
  #own: Cell | undefined;

  constructor(preludes: Pick<Preludes, "sdk" | "reader">) {
    this.#preludes = preludes;
  }

  /** As `describe`, but what an earlier process read from the same code of a shipped package is taken from disk. */
  async learn(id: string, bundle: Bundle, { origin, entry }: PackageSource): Promise<Described> {
    const isOurs = origin === "shipped" && isKept(entry);
    const told = isOurs ? await this.#kept(entry, bundle) : this.describe(id, bundle, origin);
    return describedBy(told, () => told.schemas);
  }

  async #kept(entry: string, bundle: Bundle): Promise<Told> {
    const { sdk, reader } = this.#preludes;
    this.#sdkKey ??= keyOf(textOf({ code: sdk }), textOf({ code: reader }));
    const of = keyOf(this.#sdkKey, bundle.hash);
    const name = `${keyOf(entry)}.told.json`;
    const known = JSON.parse((await readKept(name)) ?? "{}") as Partial<Told> & { of?: string };
    if (known.of === of) return known as Told;
    const told = this.describe(entry, bundle, "shipped");
    void keep(name, JSON.stringify({ of, ...told }));
    return told;
  }

  /** Reads what a module defines. `id` tells dropped-in packages apart. Throws a DescribeError. */
  describe(id: string, bundle: Bundle, origin: "shipped" | "dropped-in"): Told {
    if (origin === "shipped") {
      if (!this.#shared?.mayLoad) this.#shared = this.#another(this.#shared, "trusted");
      return this.#shared.read(bundle);
    }
    if (!this.#own?.mayLoad || (this.#own.id ?? id) !== id)
      this.#own = this.#another(this.#own, "bounded");
    this.#own.id = id;
    try {
      return this.#own.read(bundle);
    } catch (error) {
      // A module that failed may have left the isolate in any state.
      this.#own.dispose();
      throw error;
    }
  }

  #another(before: Cell | undefined, code: "trusted" | "bounded"): Cell {
    before?.dispose();
    return new Cell(this.#preludes, code);
  }

  /** Makes the isolate for the next dropped-in package ahead of time, so that a save does not wait for it. */
  warm(): void {
    if (!this.#own?.mayLoad) this.#own = this.#another(this.#own, "bounded");
  }

  /** Collects the garbage of modules that have been described. */
  collectGarbage(): void {
    for (const cell of [this.#shared, this.#own]) cell?.collectGarbage();
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
  readonly #read: EntryPoint;
  readonly #sdk: () => string;
  /** The dropped-in package whose versions it loads; undefined: none yet. */
  id: string | undefined = undefined;
  #loaded = 0;

  /** `bounded`: with the bounds of a sandbox's built-ins. One call that V8 has no memory for would end the process. */
  constructor({ sdk, reader }: Pick<Preludes, "sdk" | "reader">, code: "trusted" | "bounded") {
    this.#sdk = () => textOf({ code: sdk });
    this.#isolate = new Isolate({ memoryLimitMb: MEMORY_MB, sdk: textOf({ code: sdk }) });
    const module = this.#isolate.load({
      code: textOf({ code: reader }),
      filename: "tsproxy:reader",
    });
    if (code === "bounded") module.entry("bound")();
    this.#read = module.entry("read", LOAD_MS);
  }

  read(bundle: Bundle): Told {
    this.#loaded++;
    try {
      const module = this.#isolate.load({ code: bundle.code, filename: bundle.filename }, LOAD_MS);
      const text = this.#read(module.namespace) as string;
      module.release();
      return told(text);
    } catch (error) {
      const { message, stack = "" } = error as Error;
      const reason = message.startsWith("Script execution timed out")
        ? `did not finish loading within ${LOAD_MS / 1000} s`
        : message.startsWith("Isolate was disposed")
          ? `took more than ${MEMORY_MB} MiB while it was loaded`
          : message;
      const find = (filename: string) =>
        filename === bundle.filename ? bundle.sources : undefined;
      const missing = /'@tsproxy\/sdk' does not provide an export named '(.+)'/.exec(message)?.[1];
      throw new DescribeError(
        missing === undefined ? locate(reason, stack, find) : this.#noExport(missing, bundle, find),
      );
    }
  }

  /** Reports an import of a name that the SDK lacks. V8 does not say where it is, so the name is searched for in the bundle. */
  #noExport(name: string, bundle: Bundle, find: Parameters<typeof locate>[2]): Problem {
    const names = /export \{([^}]*)\};?\s*$/.exec(this.#sdk())?.[1] ?? "";
    const known = names.split(",").map((part) => part.trim().split(" as ").at(-1)!);
    const hint = didYouMean(name, known);
    const message = `@tsproxy/sdk has no "${name}"${hint === undefined ? "" : `; ${hint}`}`;
    const lines = bundle.code.slice(0, bundle.code.search(wordOf(name))).split("\n");
    const place = `${bundle.filename}:${lines.length}:${lines.at(-1)!.length + 1}`;
    return locate(message, place, find);
  }

  /** False: it has loaded enough modules, or a module went past the memory limit. */
  get mayLoad(): boolean {
    return !this.#isolate.disposed && this.#loaded < MODULES_AN_ISOLATE;
  }

  collectGarbage(): void {
    if (!this.#isolate.disposed) this.#isolate.collectGarbage();
  }

  dispose(): void {
    this.#isolate.dispose();
  }
}

const wordOf = (name: string): RegExp =>
  new RegExp(`(?<![\\w$])${name.replaceAll("$", "\\$")}(?![\\w$])`);

/** Splits descriptions for the disk. `text`: JSON of Description[]. */
function told(text: string): Told {
  const all = JSON.parse(text) as readonly Description[];
  return {
    said: hashOf(text),
    descriptions: all.map(({ schema: _schema, routeSchema: _routeSchema, ...others }) => others),
    schemas: all.map(({ schema, routeSchema }) => ({
      schema: partsOf(schema as object),
      ...(routeSchema != null && { routeSchema: partsOf(routeSchema) }),
    })),
  };
}

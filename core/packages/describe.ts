import { didYouMean } from "../config/diagnostic.ts";
import { type Problem, problem, shortPath } from "../problem.ts";
import { isKept, keep, keyOf, readKept } from "./build-cache.ts";
import type { Bundle } from "./bundle.ts";
import { problemOfDefinition } from "./member-place.ts";
import { textOf } from "./module-code.ts";
import type { Misfit, Read, ReadsModules } from "./module-reader.ts";
import type { PackageSource } from "./packages.ts";
import type { Preludes } from "./preludes.ts";
import { partsOf, type SchemaParts, wholeOf } from "./schema-parts.ts";
import { locate } from "./source-positions.ts";

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
  /** The module exports nothing as default. */
  readonly lacksDefault: boolean;

  constructor(found: Problem, lacksDefault = false) {
    super(found.message);
    this.problem = found;
    this.lacksDefault = lacksDefault;
  }
}

/** Tells what modules define, and what is wrong with those that cannot be loaded. */
export class Describer {
  readonly #preludes: Pick<Preludes, "sdk" | "reader">;
  readonly #reader: ReadsModules;
  #sdkKey: string | undefined;

  constructor(preludes: Pick<Preludes, "sdk" | "reader">, reader: ReadsModules) {
    this.#preludes = preludes;
    this.#reader = reader;
  }

  /**
   * As `describe`. What an earlier process read from the same code of a shipped package is taken from disk. `before`: what the
   * package last said; if the module says the same, that is answered (of the HTTP connection manager the text has 0.9 MB, and to
   * take it apart costs 40 ms of CPU).
   */
  async learn(
    bundle: Bundle,
    { origin, entry }: Pick<PackageSource, "origin" | "entry">,
    before?: Described,
  ): Promise<Described> {
    if (before !== undefined) {
      const { said, text } = await this.#read(entry, bundle, origin, before.said);
      return text === undefined ? before : whole(parsed(said, text, bundle, entry));
    }
    const isOurs = origin === "shipped" && isKept(entry);
    return whole(await (isOurs ? this.#kept(entry, bundle) : this.describe(entry, bundle, origin)));
  }

  async #kept(entry: string, bundle: Bundle): Promise<Told> {
    const { sdk, reader } = this.#preludes;
    this.#sdkKey ??= keyOf(textOf({ code: sdk }), textOf({ code: reader }));
    const of = keyOf(this.#sdkKey, bundle.hash);
    const name = `${keyOf(entry)}.told.json`;
    const known = JSON.parse((await readKept(name)) ?? "{}") as Partial<Told> & { of?: string };
    if (known.of === of) return known as Told;
    const told = await this.describe(entry, bundle, "shipped");
    keep(name, JSON.stringify({ of, ...told }));
    return told;
  }

  /** Reads what a module defines; `entry` is its first file. Rejects with a DescribeError. */
  async describe(entry: string, bundle: Bundle, origin: PackageSource["origin"]): Promise<Told> {
    const { said, text } = await this.#read(entry, bundle, origin, undefined);
    return parsed(said, text!, bundle, entry);
  }

  /** Rejects with a DescribeError. `known`: the hash of the text that need not be told again. */
  async #read(
    entry: string,
    bundle: Bundle,
    origin: PackageSource["origin"],
    known: string | undefined,
  ): Promise<Read> {
    const { code, filename } = bundle;
    try {
      return await this.#reader.read({ id: entry, origin, code, filename, known });
    } catch (error) {
      const { message, stack = "" } = error as Error;
      const found = this.#refusal(bundle, message, stack);
      // What had to be stopped from outside leaves no stack: then the file at least is told.
      if (found.file === "") throw new DescribeError(problem(`${shortPath(entry)}: ${message}`));
      throw new DescribeError(found);
    }
  }

  #refusal(bundle: Bundle, message: string, stack: string): Problem {
    const find = (filename: string) => (filename === bundle.filename ? bundle.sources : undefined);
    const missing = /'@tsproxy\/sdk' does not provide an export named '(.+)'/.exec(message)?.[1];
    return missing === undefined
      ? locate(message, stack, find)
      : this.#noExport(missing, bundle, find);
  }

  /** Reports an import of a name that the SDK lacks. V8 does not say where it is, so the name is searched for in the bundle. */
  #noExport(name: string, bundle: Bundle, find: Parameters<typeof locate>[2]): Problem {
    const sdk = textOf({ code: this.#preludes.sdk });
    const names = /export ?\{([^}]*)\};?\s*$/.exec(sdk)?.[1] ?? "";
    const known = names.split(",").map((part) => part.trim().split(" as ").at(-1)!);
    const hint = didYouMean(name, known);
    const message = `@tsproxy/sdk has no "${name}"${hint === undefined ? "" : `; ${hint}`}`;
    const lines = bundle.code.slice(0, bundle.code.search(wordOf(name))).split("\n");
    const place = `${bundle.filename}:${lines.length}:${lines.at(-1)!.length + 1}`;
    return locate(message, place, find);
  }

  /** Makes ready for the next dropped-in package, so that a save does not wait for it. */
  warm(): void {
    this.#reader.warm();
  }

  dispose(): void {
    this.#reader.dispose();
  }
}

const whole = ({ schemas, ...others }: Told): Described => describedBy(others, () => schemas);

const wordOf = (name: string): RegExp =>
  new RegExp(`(?<![\\w$])${name.replaceAll("$", "\\$")}(?![\\w$])`);

/** Splits descriptions for the disk. `text`: their JSON, `said`: its hash. Throws a DescribeError. */
function parsed(said: string, text: string, bundle: Bundle, entry: string): Told {
  const all = JSON.parse(text) as readonly Description[] | Misfit;
  if ("message" in all) {
    const { message, path, lacksDefault } = all;
    throw new DescribeError(problemOfDefinition(message, path, bundle, entry), lacksDefault);
  }
  return {
    said,
    descriptions: all.map(({ schema: _schema, routeSchema: _routeSchema, ...others }) => others),
    schemas: all.map(({ schema, routeSchema }) => ({
      schema: partsOf(schema as object),
      ...(routeSchema != null && { routeSchema: partsOf(routeSchema) }),
    })),
  };
}

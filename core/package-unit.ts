import { readFileSync, realpathSync } from "node:fs";
import path from "node:path";
import type { SandboxManifest } from "@tsproxy/sdk";
import { type Bundle, BundleError, bundle, hashOf } from "./bundle.ts";
import { DescribeError, type Describer, type Description } from "./describe.ts";
import { parseManifest } from "./manifest.ts";
import { readBundle } from "./package-bundle.ts";
import type { PackageSource } from "./packages.ts";
import { packedPackage } from "./packed.ts";
import { type Problem, problem, shortPath } from "./problem.ts";
import type { ModuleSource, PackageInfo } from "./protocol.ts";
import { sandboxCells } from "./sandbox/cells.ts";
import { placesOf } from "./watch.ts";

/** A package as one state of its files makes it. */
export interface Built {
  readonly bundle: Bundle;
  /** One for each definition, all with the same code. */
  readonly modules: readonly ModuleSource[];
  /** `builtin`, or its sandbox. */
  readonly group: string;
  readonly builtAt: Date;
  /** What bundling and describing it took. */
  readonly buildMs: number;
  /** One for each definition of the module. */
  readonly infos: readonly PackageInfo[];
  /** The same of the same. */
  readonly said: string;
}

/** Kinds that can live in an isolate of their own: what they are asked may wait, or is answered within one entry. */
export const SANDBOX_KINDS: ReadonlySet<string> = new Set([
  "http",
  "network",
  "listener",
  "access_log",
  "balancer",
]);

/** What a unit has to know of names that are not its own. */
export interface PackageNames {
  /** `kind/name` of the shipped packages: nobody else gets these. */
  readonly shipped: ReadonlySet<string>;
  /** Dropped-in packages that the user trusts, by `kind/name` or name. */
  readonly trusted: ReadonlySet<string>;
  /** Packages that the process before ended in: their code as it is now is not entered. */
  readonly quarantined?: ReadonlySet<string>;
}

/** One package on disk: what of it runs, and what its files would make now. */
export class PackageUnit {
  readonly source: PackageSource;
  readonly #names: PackageNames;
  /** What serves traffic; undefined: not yet anything. */
  live: Built | undefined;
  /** What served before it: streams may still end on it. */
  before: Built | undefined;
  /** The generation that brought it. */
  generation = 0;
  /** Built from the newest files and not yet in service. */
  next: Built | undefined;
  /** Why the newest files are not in service. */
  problems: readonly Problem[] = [];
  /** Its files are gone from disk. */
  gone = false;
  #inputs: ReadonlyMap<string, string> = new Map();
  #directories: Set<string> | undefined = undefined;
  /** The file behind all links when it was built: a link may be swapped to another. */
  #builtFrom = "";
  #tried = false;
  #built = false;
  /** Hash of the code that the process before ended in; "": it did not. */
  #quarantined: string | undefined = undefined;

  constructor(source: PackageSource, names: PackageNames) {
    this.source = source;
    this.#names = names;
  }

  /** As a log says it: `http/router`; the path of one that never could be read. */
  get name(): string {
    const info = (this.live ?? this.next)?.infos[0];
    return (
      info?.package ??
      (this.source.origin === "shipped" ? this.source.id : shortPath(this.source.entry))
    );
  }

  /** Nobody has tried to build it. */
  get isNew(): boolean {
    return !this.#tried;
  }

  /** Where a save of any of its files shows. Found out by every build: there is a link at most on the way to a file. */
  directories(): ReadonlySet<string> {
    if (this.#directories === undefined) {
      this.#directories = new Set(placesOf(this.source.entry).keys());
      this.#directories.add(this.source.folder);
      for (const file of this.#inputs.keys()) this.#directories.add(path.dirname(file));
    }
    return this.#directories;
  }

  /** The files differ from what the last build read. After a build that failed, always: what it did not find may be there. */
  isStale(): boolean {
    if (!this.#built || this.#target() !== this.#builtFrom) return true;
    try {
      for (const [file, hash] of this.#inputs) if (hashOf(readFileSync(file)) !== hash) return true;
      return false;
    } catch {
      return true;
    }
  }

  /** Sets `next`, or `problems`, or neither if the files make what already runs. */
  async build(describer: Describer): Promise<void> {
    // What was wrong stays to be seen until it is known to be mended.
    this.problems = await this.#build(describer);
    this.#directories = undefined;
  }

  async #build(describer: Describer): Promise<readonly Problem[]> {
    this.next = undefined;
    this.#tried = true;
    this.#built = false;
    const began = performance.now();
    try {
      this.#builtFrom = this.#target();
      checkPacked(this.source);
      const packed = packedPackage(this.source);
      const { entry, id: filename } = this.source;
      const plain = packed?.bundle ?? (await bundle({ entry, filename }));
      // Named by its hash, too: streams that end on old code are led to the lines that it had.
      const made = plain.named(`${plain.filename}@${plain.hash}`);
      this.#inputs = made.inputs;
      this.#built = true;
      if (made.hash === this.live?.bundle.hash) return [];
      const { id } = this.source;
      const described = packed ?? (await describer.learn(id, made, this.source));
      const { descriptions } = described;
      const infos = infosOf(this.source, descriptions, this.#names.shipped);
      const group = this.#group(infos);
      const { shared: code, hash } = made;
      const modules = infos.map(({ package: name }) => {
        if (group === "builtin")
          return { package: name, group, code, filename: made.filename, hash };
        const manifest = this.#manifest(infos);
        const cells =
          manifest.shared === false
            ? undefined
            : sandboxCells(name, manifest.shared === true ? "shared" : made.code);
        this.#quarantined ??= this.#names.quarantined?.has(name) === true ? hash : "";
        return {
          package: name,
          group,
          code,
          filename: made.filename,
          hash,
          manifest,
          ...(cells !== undefined && { cells }),
          ...(this.#quarantined === hash && { quarantined: true }),
        };
      });
      const buildMs = performance.now() - began;
      const said = [described.said, ...infos.map((info) => info.package)].join();
      this.next = { bundle: made, builtAt: new Date(), buildMs, infos, said, group, modules };
      return [];
    } catch (error) {
      if (error instanceof BundleError) {
        this.#inputs = new Map([...this.#inputs, ...error.inputs]);
        return error.problems;
      }
      if (error instanceof DescribeError) return [error.problem];
      throw error;
    }
  }

  #manifest(infos: readonly PackageInfo[]): SandboxManifest {
    try {
      return parseManifest(infos[0]?.sandbox, infos[0]?.kind ?? "");
    } catch (error) {
      throw refusal(`${shortPath(this.source.entry)}: ${(error as Error).message}`);
    }
  }

  #target(): string {
    try {
      return realpathSync(this.source.entry);
    } catch {
      return "";
    }
  }

  /** `builtin`, or a sandbox of its own. */
  #group(infos: readonly PackageInfo[]): string {
    const { trusted } = this.#names;
    if (this.source.trusted && infos[0]?.sandboxed !== true) return "builtin";
    if (infos.some((info) => trusted.has(info.package) || trusted.has(info.name))) return "builtin";
    const file = shortPath(this.source.entry);
    const name = infos[0]!.name;
    const trust = `start with --trust ${name}, or set "tsproxy": { "trusted": true } in its package.json`;
    const bound = infos.find((info) => !SANDBOX_KINDS.has(info.kind));
    if (bound !== undefined)
      throw refusal(
        `${file}: a ${bound.kind} runs among the shipped packages and must be trusted; ${trust}`,
      );
    if (infos.length > 1)
      throw refusal(
        `${file}: a sandbox holds one filter and this defines ${infos.length}; split it, or ${trust}`,
      );
    return infos[0]!.package;
  }
}

/** A file that `filter build` has made must still be that. */
function checkPacked({ id, entry }: PackageSource): void {
  if (id !== entry || !entry.endsWith(".js")) return;
  try {
    readBundle(entry);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    // One that is gone, or not readable, is the bundler's to tell.
    if (code === undefined) throw refusal(`${shortPath(entry)}: ${message}`);
  }
}

function refusal(message: string): DescribeError {
  return new DescribeError(problem(message));
}

/**
 * Names: a shipped package is called as its folder; a dropped-in one `kind/its name`, and where a module defines several,
 * each `kind/` and what the folder or file is called. A name that a shipped package has gets a mark.
 */
function infosOf(
  source: PackageSource,
  descriptions: readonly Description[],
  shipped: ReadonlySet<string>,
): PackageInfo[] {
  const base = path.basename(source.id).replace(/\.[cm]?[jt]s$/, "");
  const single = descriptions.length === 1;
  const nameOf = (d: Description): string => {
    if (source.origin === "shipped") return `${d.kind}/${base}`;
    const name = `${d.kind}/${single ? d.name : base}`;
    return shipped.has(name) ? `${name}@dropped-in` : name;
  };
  return descriptions.map((d) => ({
    package: nameOf(d),
    kind: d.kind,
    name: d.name,
    aliases: d.aliases,
    types: d.types,
    terminal: d.terminal,
    runs: d.runs,
    section: d.section,
    // Read from disk when somebody asks.
    get schema() {
      return d.schema;
    },
    get routeSchema() {
      return d.routeSchema;
    },
    sandboxed: d.sandboxed === true,
    sandbox: d.sandbox,
    origin: source.origin,
    folder: source.folder,
  }));
}

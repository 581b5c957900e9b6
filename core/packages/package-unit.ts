import { readFileSync, realpathSync } from "node:fs";
import path from "node:path";
import type { SandboxManifest } from "@tsproxy/sdk";
import type { BrokenPackage } from "../config/registry.ts";
import { type Problem, problem, shortPath } from "../problem.ts";
import type { ModuleSource, PackageInfo, SharedCode } from "../protocol.ts";
import { Trail } from "../reload/trail.ts";
import { placesOf } from "../reload/watch.ts";
import { sandboxCells } from "../sandbox/cells.ts";
import {
  type Bundle,
  BundleError,
  bundle,
  type KeptBundle,
  keptBundle,
  restored,
} from "./bundle.ts";
import { hashOf } from "./content-hash.ts";
import { type Described, DescribeError, type Describer, type Description } from "./describe.ts";
import { ManifestError, parseManifest } from "./manifest.ts";
import { problemOfMember } from "./member-place.ts";
import { bytesOf } from "./module-code.ts";
import { readBundle } from "./package-bundle.ts";
import type { PackageSource } from "./packages.ts";
import { packedPackage } from "./packed.ts";
import { unknownHooks } from "./unknown-hooks.ts";

/** The build of a package from one state of its files. */
export interface Built {
  readonly bundle: Bundle;
  /** The real path of the entry: a symbolic link may have been swapped since. */
  readonly target: string;
  /** One for each definition of the module, all with the same code. */
  readonly modules: readonly ModuleSource[];
  /** `builtin`, or its sandbox. */
  readonly group: string;
  readonly builtAt: Date;
  /** Milliseconds that bundling and describing took. */
  readonly buildMs: number;
  /** One for each definition of the module. */
  readonly infos: readonly PackageInfo[];
  /** Equal for builds whose definitions say the same: the hash of the descriptions, and the names. */
  readonly said: string;
  /** What is probably a mistake in a dropped-in package, and keeps it from nothing. */
  readonly warnings: readonly Problem[];
}

/** A build as another process can take it over, without a look at the files. */
export interface KeptPackage {
  readonly source: PackageSource;
  readonly target: string;
  readonly bundle: KeptBundle;
}

/** Kinds that can run in a sandbox: what calls them can wait for the answer, or gets it within one crossing. */
export const SANDBOX_KINDS: ReadonlySet<string> = new Set([
  "http",
  "network",
  "listener",
  "access_log",
  "balancer",
]);

/** Files, against what a build has read. `emptied`: one is empty that was not, as between the two steps of most saves. */
export type FilesNow = "as built" | "changed" | "emptied";

/** Names of packages that decide how a unit is named and where it runs. */
export interface PackageNames {
  /** `kind/name` of the shipped packages; dropped-in packages cannot take these. */
  readonly shipped: ReadonlySet<string>;
  /** Dropped-in packages that the user trusts, by `kind/name` or name. */
  readonly trusted: ReadonlySet<string>;
  /** Packages that an earlier process hung or ended in: their present code is not entered. */
  readonly quarantined?: ReadonlySet<string>;
}

/** One package on disk: the build that runs, and the one that its present files make. */
export class PackageUnit {
  readonly source: PackageSource;
  readonly #names: PackageNames;
  /** The build that serves traffic. Undefined: none yet. */
  live: Built | undefined;
  /** The build that served before `live`: old streams may still run on it. */
  before: Built | undefined;
  /** The builds that served lately: what its code is taken back to. */
  readonly trail = new Trail<Built>();
  /** The generation that put `live` into service. */
  generation = 0;
  /** The build of the newest files, not yet in service. */
  next: Built | undefined;
  /** Why the newest files are not in service. */
  problems: readonly Problem[] = [];
  /**
   * What the config told `next` when an isolate had to be stopped inside it: until that or its files change it is not set up again,
   * since that takes seconds. Undefined: none was.
   */
  stoppedWith: string | undefined;
  /** Its files are gone from disk. */
  gone = false;
  /** The supervisor has what serves (`kept`). */
  isTold = false;
  #kept: KeptPackage | undefined;
  #inputs: ReadonlyMap<string, string> = new Map();
  /** The one file of the last build, if that is a file of the npm package as it stands. */
  #packed: SharedCode | undefined = undefined;
  #directories: Set<string> | undefined = undefined;
  /** `Built.target` of the last build. */
  #builtFrom = "";
  /** What it last said of itself: mostly a save changes nothing of that. */
  #described: Described | undefined = undefined;
  /** Names of what its newest files define; the one that its folder has while they cannot be read. */
  #told: readonly string[];
  #tried = false;
  #built = false;
  #lacksDefault = false;
  /** Hash of the code that an earlier process hung or ended in; "": none did. Undefined: not built yet. */
  #quarantined: string | undefined = undefined;

  /** `kept`: its first build is this one. */
  constructor(source: PackageSource, names: PackageNames, kept?: KeptPackage) {
    this.source = source;
    this.#names = names;
    this.#kept = kept;
    this.#told = [baseName(source)];
  }

  /** Its name in logs: `http/router`; the path if it was never described. */
  get name(): string {
    const info = (this.live ?? this.next)?.infos[0];
    return (
      info?.package ??
      (this.source.origin === "shipped" ? this.source.id : shortPath(this.source.entry))
    );
  }

  /** One text for the files that the last build has read. */
  get saved(): string {
    return [...this.#inputs.values()].join();
  }

  /** An earlier process hung or ended inside what would serve. */
  get isQuarantined(): boolean {
    return (this.live ?? this.next)?.modules.some((module) => module.quarantined) === true;
  }

  /** What serves, for another process. Undefined: nothing does. */
  kept(positions: Parameters<typeof keptBundle>[1]): KeptPackage | undefined {
    if (this.live === undefined) return undefined;
    const { target, bundle } = this.live;
    return { source: this.source, target, bundle: keptBundle(bundle, positions) };
  }

  /** What it is to the config while its code cannot be used. Undefined: it can be. */
  get broken(): BrokenPackage | undefined {
    if ((this.live ?? this.next) !== undefined || this.problems.length === 0) return undefined;
    return { file: shortPath(this.source.entry), names: this.#told };
  }

  /** It is no package, but a file of another one, which imports it. */
  isPartOf(other: PackageUnit): boolean {
    if (!this.#lacksDefault || this.live !== undefined || other.#lacksDefault) return false;
    return other.#inputs.has(this.#builtFrom);
  }

  /** True until the first attempt to build it. */
  get isNew(): boolean {
    return !this.#tried;
  }

  /** The directories in which a change of its files shows. Each build finds them anew. */
  directories(): ReadonlySet<string> {
    if (this.#directories === undefined) {
      this.#directories = new Set(placesOf(this.source.entry).keys());
      this.#directories.add(this.source.folder);
      for (const file of this.#inputs.keys()) this.#directories.add(path.dirname(file));
    }
    return this.#directories;
  }

  /** Its files, which were gone, are there again: they are built anew, even as they were, since what is told of it is their absence. */
  isBack(): void {
    this.gone = false;
    this.#built = false;
  }

  /** Its files, against what the last build read; `changed` after each that failed: a missing file may be there now. */
  look(): FilesNow {
    if (!this.#built || this.#target() !== this.#builtFrom) return "changed";
    try {
      for (const [file, hash] of this.#inputs) {
        const bytes = readFileSync(file);
        if (!this.#isAsBuilt(bytes, hash)) return bytes.length === 0 ? "emptied" : "changed";
      }
      return "as built";
    } catch {
      return "changed";
    }
  }

  /** Each start looks at all of the npm package's files, and Node's crypto takes 25 ms to load. */
  #isAsBuilt(bytes: Buffer, hash: string): boolean {
    return this.#packed === undefined
      ? hashOf(bytes) === hash
      : bytes.equals(bytesOf(this.#packed));
  }

  /** Sets `next`, or `problems`, or neither if the files make the code that already runs. */
  async build(describer: Describer): Promise<void> {
    // The old problems stay visible while the build runs.
    this.problems = await this.#build(describer);
    this.#directories = undefined;
  }

  /** What serves, to be entered again: its code is the same, but what it was told to do is not. */
  freed(live: Built): Built {
    this.#quarantined = "";
    return { ...live, modules: live.modules.map((module) => ({ ...module, quarantined: false })) };
  }

  async #build(describer: Describer): Promise<readonly Problem[]> {
    this.next = undefined;
    this.stoppedWith = undefined;
    this.#tried = true;
    this.#built = this.#lacksDefault = false;
    const began = performance.now();
    try {
      const kept = this.#kept;
      this.#kept = undefined;
      const target = kept?.target ?? this.#target();
      this.#builtFrom = target;
      if (kept === undefined) checkPacked(this.source);
      const packed = kept === undefined ? packedPackage(this.source) : undefined;
      // While it is bundled.
      if (this.source.origin === "dropped-in") describer.warm();
      const { entry, id: filename } = this.source;
      const plain = kept
        ? restored(kept.bundle, filename)
        : (packed?.bundle ?? (await bundle({ entry, filename, known: this.#inputs })));
      // The hash is part of the name in stacks, so that errors in old code are mapped to the lines of that code.
      const made = plain.named(`${plain.filename}@${plain.hash}`);
      this.#inputs = made.inputs;
      this.#packed = packed?.bundle.shared;
      this.#built = true;
      if (made.hash === this.live?.bundle.hash) return [];
      const described = packed ?? (await describer.learn(made, this.source, this.#described));
      this.#described = described;
      const { descriptions } = described;
      const infos = infosOf(this.source, descriptions, this.#names.shipped);
      this.#told = infos.map(({ name }) => name);
      const group = this.#group(infos);
      const { shared: code, hash } = made;
      const modules = infos.map(({ package: name }) => {
        if (group === "builtin") {
          const isShipped = this.source.origin === "shipped";
          return { package: name, group, code, filename: made.filename, hash, isShipped };
        }
        const manifest = this.#manifest(infos, made);
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
      const warnings =
        this.source.origin === "dropped-in"
          ? unknownHooks(infos.length === 1 ? infos[0]!.kind : "", made)
          : [];
      const builtAt = new Date();
      this.next = { bundle: made, target, builtAt, buildMs, infos, said, group, modules, warnings };
      return [];
    } catch (error) {
      if (error instanceof BundleError) {
        this.#inputs = new Map([...this.#inputs, ...error.inputs]);
        return error.problems;
      }
      if (!(error instanceof DescribeError)) throw error;
      this.#lacksDefault = error.lacksDefault;
      return [error.problem];
    }
  }

  #manifest(infos: readonly PackageInfo[], made: Bundle): SandboxManifest {
    try {
      return parseManifest(infos[0]?.sandbox, infos[0]?.kind ?? "");
    } catch (error) {
      if (!(error instanceof ManifestError)) throw error;
      const { message, path: names } = error;
      const found = problemOfMember(message, names, made);
      throw new DescribeError(found ?? problem(`${shortPath(this.source.entry)}: ${message}`));
    }
  }

  #target(): string {
    try {
      return realpathSync.native(this.source.entry);
    } catch {
      return "";
    }
  }

  /** Where it runs: `builtin`, or a sandbox named by the package. Throws a DescribeError if it may run in neither. */
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

/** Throws a DescribeError for a file that `filter build` made and that was changed since. */
function checkPacked({ id, entry }: PackageSource): void {
  if (id !== entry || !entry.endsWith(".js")) return;
  try {
    readBundle(entry);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    // The bundler reports a file that is gone or cannot be read.
    if (code === undefined) throw refusal(`${shortPath(entry)}: ${message}`);
  }
}

/** The name of its folder or file. */
const baseName = ({ id }: PackageSource): string => path.basename(id).replace(/\.[cm]?[jt]s$/, "");

function refusal(message: string): DescribeError {
  return new DescribeError(problem(message));
}

/**
 * Names the definitions: a shipped package after its folder; a dropped-in one `kind/` and its own name, or, if the module defines
 * several, `kind/` and the name of the folder or file. A name that a shipped package has gets `@dropped-in` appended.
 */
function infosOf(
  source: PackageSource,
  descriptions: readonly Description[],
  shipped: ReadonlySet<string>,
): PackageInfo[] {
  const base = baseName(source);
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
    // Getters, since a packed package's schemas are read from disk when they are needed.
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

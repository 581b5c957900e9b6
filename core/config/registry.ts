import type { PackageInfo } from "../protocol.ts";

/** A package whose code cannot be used, and the names by which a config may ask for it all the same, as far as they are known. */
export interface BrokenPackage {
  readonly names: readonly string[];
  /** Where its code is. */
  readonly file: string;
}

/** The packages that a config may name. A dropped-in one takes precedence over a shipped one of the same name. */
export class Registry {
  readonly packages: readonly PackageInfo[];
  readonly #broken: readonly BrokenPackage[];

  constructor(packages: readonly PackageInfo[], broken: readonly BrokenPackage[] = []) {
    const dropped = packages.filter((p) => p.origin === "dropped-in");
    this.packages = [...dropped, ...packages.filter((p) => p.origin === "shipped")];
    this.#broken = broken;
  }

  /** Finds a package by Envoy's full name, an alias, or a dropped-in filter's bare name. */
  named(kind: string, name: string): PackageInfo | undefined {
    return this.packages.find(
      (p) => p.kind === kind && (p.name === name || p.aliases.includes(name)),
    );
  }

  /** Finds a package by any name that a config may use: also `kind/folder`, and the folder alone. */
  find(kind: string, name: string): PackageInfo | undefined {
    return (
      this.packages.find((p) => p.package === name && p.kind === kind) ??
      this.named(kind, name) ??
      this.packages.find((p) => p.package === `${kind}/${name}` && p.kind === kind)
    );
  }

  /** Finds a package by the message of its config. */
  typed(kind: string, type: string): PackageInfo | undefined {
    return this.packages.find((p) => p.kind === kind && p.types.includes(type));
  }

  /** Finds a package by any message of the proto package of its config, in which those of its per-route configs are. */
  near(kind: string, type: string): PackageInfo | undefined {
    const space = type.slice(0, type.lastIndexOf(".") + 1);
    return (
      this.typed(kind, type) ??
      this.packages.find(
        (p) => p.kind === kind && p.types.some((t) => t.slice(0, t.lastIndexOf(".") + 1) === space),
      )
    );
  }

  /** The packages that may stand where that kind does. The filters of a UDP listener stand where listener filters do. */
  at(kind: string): PackageInfo[] {
    return this.packages.filter(
      (p) => p.kind === kind || (kind === "listener" && p.kind === "udp"),
    );
  }

  /** Finds a package of any kind, to report a filter in the wrong place. */
  anyNamed(name: string): PackageInfo | undefined {
    return this.packages.find(
      (p) => p.package === name || p.name === name || p.aliases.includes(name),
    );
  }
  anyTyped(type: string): PackageInfo | undefined {
    return this.packages.find((p) => p.types.includes(type));
  }

  /** The file whose mistakes keep this name from being known. */
  brokenFile(name: string): string | undefined {
    return this.#broken.find(({ names }) => names.includes(name))?.file;
  }

  /** The names by which an extension of this kind may be given. */
  names(kind: string): string[] {
    const own = this.packages.filter((p) => p.kind === kind);
    return own.flatMap((p) =>
      p.origin === "dropped-in" ? [p.package, p.name] : [p.name, p.package],
    );
  }
}

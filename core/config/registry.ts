import type { PackageInfo } from "../protocol.ts";

/** The packages that a config may name. A dropped-in one goes before a shipped one of the same name. */
export class Registry {
  readonly packages: readonly PackageInfo[];

  constructor(packages: readonly PackageInfo[]) {
    const dropped = packages.filter((p) => p.origin === "dropped-in");
    this.packages = [...dropped, ...packages.filter((p) => p.origin === "shipped")];
  }

  /** By Envoy's full name, an alias, or a dropped-in filter's bare name. */
  named(kind: string, name: string): PackageInfo | undefined {
    return this.packages.find(
      (p) => p.kind === kind && (p.name === name || p.aliases.includes(name)),
    );
  }

  /** By any name that a config may use: also `kind/folder`, and the folder alone. */
  find(kind: string, name: string): PackageInfo | undefined {
    return (
      this.packages.find((p) => p.package === name && p.kind === kind) ??
      this.named(kind, name) ??
      this.packages.find((p) => p.package === `${kind}/${name}` && p.kind === kind)
    );
  }

  /** By the message of its config. */
  typed(kind: string, type: string): PackageInfo | undefined {
    return this.packages.find((p) => p.kind === kind && p.types.includes(type));
  }

  /** By any message of its proto package: per-route configs are neighbours of the main one. */
  near(kind: string, type: string): PackageInfo | undefined {
    const space = type.slice(0, type.lastIndexOf(".") + 1);
    return (
      this.typed(kind, type) ??
      this.packages.find(
        (p) => p.kind === kind && p.types.some((t) => t.slice(0, t.lastIndexOf(".") + 1) === space),
      )
    );
  }

  /** Of any kind; for telling that a filter stands in the wrong place. */
  anyNamed(name: string): PackageInfo | undefined {
    return this.packages.find(
      (p) => p.package === name || p.name === name || p.aliases.includes(name),
    );
  }
  anyTyped(type: string): PackageInfo | undefined {
    return this.packages.find((p) => p.types.includes(type));
  }

  /** What one may write at such a place. */
  names(kind: string): string[] {
    const own = this.packages.filter((p) => p.kind === kind);
    return own.flatMap((p) =>
      p.origin === "dropped-in" ? [p.package, p.name] : [p.name, p.package],
    );
  }
}

import { Describer } from "./describe.ts";
import { setAsideDoubles } from "./doubles.ts";
import { withoutImported } from "./imported-files.ts";
import { ModuleReader } from "./module-reader.ts";
import { PackageUnit } from "./package-unit.ts";
import { discoverDroppedIn, discoverShipped } from "./packages.ts";
import { bundlePreludes, type Preludes } from "./preludes.ts";

/** All packages on disk, built and described; for commands that serve no traffic. */
export class Catalog {
  readonly preludes: Preludes;
  readonly #describer: Describer;
  readonly #trusted: readonly string[];
  #shipped: Promise<PackageUnit[]> | undefined;

  private constructor(preludes: Preludes, trusted: readonly string[]) {
    this.preludes = preludes;
    this.#describer = new Describer(preludes, new ModuleReader(preludes));
    this.#trusted = trusted;
  }

  /** `trusted`: names of dropped-in packages that may run without a sandbox (--trust). */
  static async open(trusted: readonly string[]): Promise<Catalog> {
    return new Catalog(await bundlePreludes(), trusted);
  }

  /**
   * Answers the shipped packages and the dropped-in ones of these directories; also those that do not build or whose name is taken,
   * with their problems.
   */
  async units(directories: readonly string[]): Promise<PackageUnit[]> {
    this.#shipped ??= this.#build(discoverShipped(), new Set());
    const shipped = await this.#shipped;
    const names = new Set(shipped.map((unit) => unit.source.id));
    const sources = directories.flatMap((directory) => discoverDroppedIn(directory));
    const units = [...shipped, ...(await this.#build(sources, names))];
    setAsideDoubles(units);
    return withoutImported(units);
  }

  async #build(
    sources: readonly PackageUnit["source"][],
    shipped: ReadonlySet<string>,
  ): Promise<PackageUnit[]> {
    const units = sources.map(
      (source) => new PackageUnit(source, { shipped, trusted: new Set(this.#trusted) }),
    );
    await Promise.all(units.map((unit) => unit.build(this.#describer)));
    return units;
  }

  dispose(): void {
    this.#describer.dispose();
  }
}

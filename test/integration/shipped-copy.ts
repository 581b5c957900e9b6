import { cpSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { ROOT } from "./proxy.ts";

/** A copy of the shipped packages for a test to edit; for the proxy as TSPROXY_SHIPPED_FILTERS. */
export class ShippedCopy {
  readonly #folder = mkdtempSync(path.join(os.tmpdir(), "tsproxy-shipped-"));
  readonly root = path.join(this.#folder, "filters");

  constructor() {
    // The libraries of the packages.
    symlinkSync(path.join(ROOT, "node_modules"), path.join(this.#folder, "node_modules"));
    cpSync(path.join(ROOT, "filters"), this.root, {
      recursive: true,
      filter: (source) => !source.endsWith("node_modules"),
    });
  }

  /** The path of a package's file: `http/router`, `filter.ts`. */
  file(name: string, file = "filter.ts"): string {
    return path.join(this.root, name, file);
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

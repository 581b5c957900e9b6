import type { KeptPackage } from "../packages/package-unit.ts";

/**
 * What a process has put into service, as the supervisor keeps it for the process after it: that one begins with this, whatever
 * has been saved meanwhile. Saves that are sound then come into service as at any other time.
 */
export interface Served {
  /** Absent: it came with the command line. */
  readonly config?: ServedConfig | undefined;
  /** The dropped-in packages, and those shipped ones whose files have been edited: others are as they were at the start. */
  readonly packages: readonly KeptPackage[];
  /** The files that packages have read, of ServedFiles. Absent: none. */
  readonly files?: string | undefined;
}

export interface ServedConfig {
  readonly text: string;
  /** The files that the text names: paths, and contents in base64. */
  readonly files: readonly (readonly [string, string])[];
}

/** What is served from now on. `removed`: ids of packages. */
export interface ServedChange extends Served {
  readonly removed: readonly string[];
}

/** What is served after a change. Without a config or files they are those of before. */
export function serves(before: Served | undefined, change: ServedChange): Served {
  const packages = new Map(before?.packages.map((kept) => [kept.source.id, kept]));
  for (const kept of change.packages) packages.set(kept.source.id, kept);
  for (const id of change.removed) packages.delete(id);
  return {
    config: change.config ?? before?.config,
    packages: [...packages.values()],
    files: change.files ?? before?.files,
  };
}

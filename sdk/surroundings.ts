import type { Regex } from "./extension.ts";

/**
 * What formats know without being told: the machine as it was when the proxy was started, its node, regular expressions. Core
 * fills it in, in the isolates of shipped packages.
 */
export const surroundings = {
  hostname: "",
  environment: {} as Readonly<Record<string, string>>,
  /** As the config's `node`. */
  node: {} as Readonly<Record<string, unknown>>,
  /** Absent in isolates of other packages. */
  regex: undefined as ((pattern: string) => Regex) | undefined,
};

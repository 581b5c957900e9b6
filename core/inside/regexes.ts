import type { Regex } from "@tsproxy/sdk";
import type { Host } from "./host.ts";

/** The name by which core knows the module of regex.ts. */
export const REGEX_MODULE = "tsproxy:regex";

/** What that module exports. */
export interface RegexModule {
  readonly compileRegex: (pattern: string) => Regex;
}

/** Regexes of the builtin isolate. Core loads the module that compiles them for the first one: it takes 1 MiB, and most configs have none. */
export class Regexes {
  readonly #host: Host;
  #module: RegexModule | undefined = undefined;

  constructor(host: Host) {
    this.#host = host;
  }

  /** Called by core during the demand below. */
  define(module: RegexModule): void {
    this.#module = module;
  }

  /** As compileRegex of regex.ts. */
  compile(pattern: string): Regex {
    if (this.#module === undefined) {
      const problem = this.#host.demand(REGEX_MODULE);
      if (problem !== "") throw new Error(problem);
    }
    return this.#module!.compileRegex(pattern);
  }
}

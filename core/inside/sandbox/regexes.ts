import type { Regex } from "@tsproxy/sdk";
import type { RegexModule } from "../regexes.ts";

let evaluate: () => RegexModule;
let evaluated: RegexModule | undefined;

/** Called by the image's script (core/packages/preludes.ts). `module` evaluates regex.ts. */
export function defineRegexes(module: () => RegexModule): void {
  evaluate = module;
}

/** As compileRegex of regex.ts, which is evaluated with the first regex: few packages have one, and isolates are made quicker without it. */
export function compileRegex(pattern: string): Regex {
  evaluated ??= evaluate();
  return evaluated.compileRegex(pattern);
}

import { didYouMean } from "../config/diagnostic.ts";
import { codeFrame, type Problem, problem, shortPath } from "../problem.ts";
import type { Bundle } from "./bundle.ts";

/** Names of the hooks that the proxy calls, by kind of package. */
const HOOKS: Readonly<Record<string, readonly string[]>> = {
  http: [
    "onRequestHeaders",
    "onRequestBody",
    "onRequestTrailers",
    "onResponseHeaders",
    "onResponseBody",
    "onResponseTrailers",
    "onEnd",
    "onReset",
    "onResponseBlocked",
  ],
  network: [
    "onConnect",
    "onData",
    "onWrite",
    "onDrain",
    "onPackagesChanged",
    "onBlocked",
    "onDrained",
    "onAgain",
    "onClose",
  ],
  listener: ["onBytes", "onAbandoned"],
};

/** `onWord(…) {`, `onWord: ` or `onWord = ` as a member of a class or an object: not a call, a read or a function of its own. */
const MEMBER = /(?<![\w$.]|function\*? )on[A-Z]\w*(?=\s*(?:\([^()]*\)\s*\{|: |= ))/g;

/**
 * Finds members that look like a hook of this kind with a wrong name, which the proxy would never call: nothing else in the package
 * has the name, and a hook has a similar one. Only warnings come of it, since an object may be meant for somebody else.
 */
export function unknownHooks(kind: string, { code, filename, sources }: Bundle): Problem[] {
  const hooks = HOOKS[kind];
  if (hooks === undefined) return [];
  const found: Problem[] = [];
  for (const { 0: name, index } of code.matchAll(MEMBER)) {
    if (hooks.includes(name)) continue;
    const meant = hint(name, hooks);
    if (meant === undefined || [...code.matchAll(new RegExp(`\\b${name}\\b`, "g"))].length > 1)
      continue;
    const lines = code.slice(0, index).split("\n");
    const place = sources.find(lines.length, lines.at(-1)!.length + 1);
    if (place?.file.includes("/node_modules/")) continue;
    const said = problem(`the proxy calls no "${name}" of ${kind} filters; ${meant}`);
    if (place === undefined) found.push({ ...said, file: filename });
    else {
      const { line, column, text } = place;
      const frame = codeFrame(text, line, column, name.length);
      found.push({ ...said, file: shortPath(place.file), line, column, frame });
    }
  }
  return found;
}

/** `onRequest` and `onHeaders` are not near to `onRequestHeaders` letter by letter, but parts of it. */
function hint(name: string, hooks: readonly string[]): string | undefined {
  const isPart = (hook: string) => hook.startsWith(name) || hook.endsWith(name.slice("on".length));
  const whole = hooks.find(isPart);
  return whole === undefined ? didYouMean(name, hooks) : `did you mean "${whole}"?`;
}

import {
  type BucketRate,
  counter,
  type SharedCounter,
  type TokenBucket,
  type TokenBuckets,
  type TokenBucketsOptions,
  type TtlMap,
  type TtlMapOptions,
  tokenBucket,
  tokenBuckets,
  ttlMap,
} from "./cells.ts";
import { ConfigError, type Log, type SetupContext } from "./extension.ts";
import type { FetchInit, FetchResponse } from "./fetch.ts";
import type { ScriptRun, ScriptSource } from "./schema.ts";
import type { Stats } from "./stats.ts";

/** A script as a config gives it: as a whole, or as the bodies of single functions. */
export interface ScriptForms {
  readonly inline?: ScriptSource | undefined;
  readonly file?: ScriptSource | undefined;
  /** Bodies of functions, by their names. */
  readonly bodies: Readonly<Record<string, ScriptSource | undefined>>;
}

/** A script of the config, evaluated: what stands outside its functions has run once; the functions are called again and again. */
export class ScriptProgram {
  readonly sources: readonly ScriptSource[];
  /** The functions that it defines; undefined: one that it does not. */
  readonly functions: Readonly<Record<string, unknown>>;
  /** Chars that stand before a script's own on line 1 of its file. */
  readonly #leads = new Map<ScriptSource, number>();

  /** `parameters`: those of each function that a script may define. `names`: globals that it finds beside the language. */
  constructor(
    { inline, file, bodies }: ScriptForms,
    parameters: Readonly<Record<string, string>>,
    names: object,
  ) {
    const wanted = Object.keys(parameters);
    const own = wanted.filter((name) => bodies[name] !== undefined);
    const forms = [inline !== undefined, file !== undefined, own.length > 0].filter(Boolean);
    if (forms.length !== 1)
      throw new ConfigError("", `give one of inline, file, and ${wanted.join(" or ")}`);
    const whole = inline ?? file;
    this.sources = whole === undefined ? own.map((name) => bodies[name]!) : [whole];
    const run = (source: ScriptSource, name?: string) => {
      const body = name === undefined ? undefined : { name, parameters: parameters[name]! };
      const open = openOf(source, names, body);
      if (!open.endsWith("\n")) this.#leads.set(source, open.length);
      try {
        return evaluate(source, open, names, wanted, body !== undefined);
      } catch (error) {
        throw new ConfigError("", String((this.located(error) as Error).message));
      }
    };
    if (whole !== undefined) {
      this.functions = run(whole);
      if (wanted.every((name) => this.functions[name] === undefined))
        throw new ConfigError("", `the script defines neither ${wanted.join(" nor ")}`);
    } else {
      const made = own.map((name) => [name, run(bodies[name]!, name)[name]]);
      this.functions = Object.fromEntries(made);
    }
  }

  /** Whether that word stands in the script. */
  names(word: string): boolean {
    const text = new RegExp(`\\b${word}\\b`);
    return this.sources.some(({ code }) => text.test(code));
  }

  /**
   * Rewrites an error for the script's author: its place in the user's file before the message, and no frames but the script's
   * own.
   */
  located(error: unknown): unknown {
    if (!(error instanceof Error) || error.stack === undefined) return error;
    const frames: string[] = [];
    let place = "";
    for (const frame of error.stack.split("\n")) {
      for (const source of this.sources) {
        const here = scriptPlace(source, frame, this.#leads.get(source));
        if (here === undefined) continue;
        const said = `${source.file}:${here.line}:${here.column}`;
        frames.push(`    at ${said}`);
        place ||= said;
        break;
      }
    }
    if (place === "") return error;
    error.message = `${place}: ${error.message}`;
    error.stack = [`${error.name}: ${error.message}`, ...frames].join("\n");
    return error;
  }
}

/** The globals of every script, whatever its kind. */
export interface CommonScriptNames {
  // biome-ignore lint/suspicious/noExplicitAny: what the user's config gives is the user's to know.
  readonly config: Readonly<Record<string, any>>;
  readonly log: Log;
  readonly stats: Stats;
  readonly fetch: (target: string, init?: FetchInit) => Promise<FetchResponse>;
  readonly shared: {
    counter(name: string): SharedCounter;
    tokenBucket(name: string, rate: BucketRate): TokenBucket;
    tokenBuckets(name: string, options: TokenBucketsOptions): TokenBuckets;
    map(name: string, options: TtlMapOptions): TtlMap;
  };
}

/** The names that scripts of every kind have. */
export function scriptNames(
  config: CommonScriptNames["config"],
  cx: SetupContext,
): CommonScriptNames {
  return {
    config,
    log: cx.log,
    stats: cx.stats,
    fetch: (target, init) => cx.fetch(target, init),
    shared: {
      counter: (name) => cx.cell(name, counter()),
      tokenBucket: (name, rate) => cx.cell(name, tokenBucket(rate)),
      tokenBuckets: (name, options) => cx.cell(name, tokenBuckets(options)),
      map: (name, options) => cx.cell(name, ttlMap(options)),
    },
  };
}

type Body = { readonly name: string; readonly parameters: string };

/** What the engine calls a script: its file, or, where lines of it are not lines of the file, a name of its own. */
function urlOf({ file, line, indent, runs }: ScriptSource): string {
  return runs === undefined ? file : `${file}@${line}:${indent + 1}`;
}

/**
 * The place in the user's file that a frame of a stack names. `lead`: chars before the script on line 1. Undefined: it names none of
 * this script.
 */
export function scriptPlace(
  source: ScriptSource,
  frame: string,
  lead = 0,
): { readonly line: number; readonly column: number } | undefined {
  const url = `${urlOf(source)}:`;
  const at = frame.lastIndexOf(url);
  const [, line, column] = /^(\d+):(\d+)/.exec(at < 0 ? "" : frame.slice(at + url.length)) ?? [];
  if (line === undefined) return undefined;
  const row = Number(line) - (source.runs === undefined ? source.line : 2);
  if (row < 0 || row >= source.code.split("\n").length) return undefined;
  return placeIn(source, row, Number(column) - 1 - (row === 0 ? lead : 0));
}

/** Line and column in the user's file, from 1, of a place in the code, from 0. */
export function placeIn(
  { line, indent, runs }: ScriptSource,
  row: number,
  column: number,
): { readonly line: number; readonly column: number } {
  if (runs === undefined) return { line: line + row, column: column + indent + 1 };
  const run = runs[runIndex(runs, row, column)];
  if (run === undefined) return { line, column: indent + 1 };
  const isIn = run[0] === row && run[1] <= column;
  return { line: run[3], column: run[4] + (isIn ? column - run[1] : 0) };
}

/** The last run that begins in that row, at or before that column; without one the first after it. */
export function runIndex(runs: readonly ScriptRun[], row: number, column: number): number {
  const after = runs.findIndex((run) => run[0] > row || (run[0] === row && run[1] > column));
  const before = after < 0 ? runs.length - 1 : after - 1;
  return runs[before]?.[0] === row || after < 0 ? before : after;
}

/**
 * What opens the functions that are put around a script. Line breaks in it make the engine's line numbers those of the file: the
 * functions open on the line before the script, or where that begins on line 1 on the same one. A script that has a name of its own
 * begins on line 2.
 */
function openOf(source: ScriptSource, names: object, body: Body | undefined): string {
  const isAsync = /\bawait\b/.test(source.code) ? "async " : "";
  const inner = body === undefined ? "" : `${isAsync}function ${body.name}(${body.parameters}) {{`;
  const open = `(function (${Object.keys(names).join(", ")}) { "use strict"; { ${inner}`;
  if (source.runs !== undefined) return `${open}\n`;
  return source.line < 2 ? open : `${"\n".repeat(source.line - 2)}${open}\n`;
}

/**
 * Runs the script, with those names in scope, behind what `open` has opened. It stands in a block, so that it may use a name or a
 * parameter for something of its own.
 */
function evaluate(
  source: ScriptSource,
  open: string,
  names: object,
  wanted: readonly string[],
  isBody: boolean,
): Readonly<Record<string, unknown>> {
  const defined = (name: string) => `${name}: typeof ${name} === "function" ? ${name} : undefined`;
  const text = [
    `${open}${source.code}${isBody ? "\n}}" : ""}`,
    `return { ${wanted.map(defined).join(", ")} };`,
    `}})\n//# sourceURL=${urlOf(source)}`,
  ].join("\n");
  // biome-ignore lint/security/noGlobalEval: a script of the config is code; it runs in an isolate of its own.
  const make = globalThis.eval(text) as (...values: unknown[]) => Record<string, unknown>;
  return make(...Object.values(names));
}

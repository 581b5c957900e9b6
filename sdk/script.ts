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
import type { ScriptSource } from "./schema.ts";
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
      if (source.line === 1) this.#leads.set(source, open.length);
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
        const { file, indent } = source;
        const at = frame.lastIndexOf(`${file}:`);
        const found = at < 0 ? null : /^(\d+):(\d+)/.exec(frame.slice(at + file.length + 1));
        if (found === null) continue;
        // Columns of a block scalar count from its indent, those of the file from its margin.
        const lead = found[1] === "1" ? (this.#leads.get(source) ?? 0) : 0;
        const here = `${file}:${found[1]}:${Number(found[2]) + indent - lead}`;
        frames.push(`    at ${here}`);
        place ||= here;
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

/**
 * What opens the functions that are put around a script. Line breaks in it make the engine's line numbers those of the file: the
 * functions open on the line before the script, or where that begins on line 1 on the same one.
 */
function openOf(source: ScriptSource, names: object, body: Body | undefined): string {
  const isAsync = /\bawait\b/.test(source.code) ? "async " : "";
  const inner = body === undefined ? "" : `${isAsync}function ${body.name}(${body.parameters}) {`;
  const open = `(function (${Object.keys(names).join(", ")}) { "use strict"; ${inner}`;
  return source.line < 2 ? open : `${"\n".repeat(source.line - 2)}${open}\n`;
}

/** Runs the script, with those names in scope, behind what `open` has opened. */
function evaluate(
  source: ScriptSource,
  open: string,
  names: object,
  wanted: readonly string[],
  isBody: boolean,
): Readonly<Record<string, unknown>> {
  const defined = (name: string) => `${name}: typeof ${name} === "function" ? ${name} : undefined`;
  const text = [
    `${open}${source.code}${isBody ? "\n}" : ""}`,
    `return { ${wanted.map(defined).join(", ")} };`,
    `})\n//# sourceURL=${source.file}`,
  ].join("\n");
  // biome-ignore lint/security/noGlobalEval: a script of the config is code; it runs in an isolate of its own.
  const make = globalThis.eval(text) as (...values: unknown[]) => Record<string, unknown>;
  return make(...Object.values(names));
}

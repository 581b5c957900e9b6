import {
  type BucketRate,
  ConfigError,
  counter,
  type FetchInit,
  type HttpStream,
  reply,
  type ScriptSource,
  type SetupContext,
  type TokenBucketsOptions,
  type TtlMapOptions,
  tokenBucket,
  tokenBuckets,
  ttlMap,
  type Verdict,
} from "@tsproxy/sdk";
import type { Config } from "./config.ts";
import type { ScriptRequest, ScriptResponse } from "./message.ts";

type Answer = Verdict | PromiseLike<Verdict>;
type OnRequest = (req: ScriptRequest, stream: HttpStream) => Answer;
type OnResponse = (res: ScriptResponse, req: ScriptRequest, stream: HttpStream) => Answer;

/** One script of the config, evaluated: what it defines is called for each stream; what stands outside functions runs once. */
export class Script {
  readonly maxBodyBytes: number;
  readonly onRequest: OnRequest | undefined;
  readonly onResponse: OnResponse | undefined;
  /** Nothing in it reads or replaces bodies, so they need not come here. */
  readonly usesBody: boolean;
  readonly #sources: readonly ScriptSource[];

  constructor(config: Config, cx: SetupContext) {
    this.maxBodyBytes = config.max_body_bytes;
    const { inline, file, onRequest, onResponse } = config;
    const text = inline ?? file;
    const hasBodies = onRequest !== undefined || onResponse !== undefined;
    const forms = [inline !== undefined, file !== undefined, hasBodies];
    if (forms.filter(Boolean).length !== 1)
      throw new ConfigError("", "give one of inline, file, and onRequest or onResponse");
    this.#sources = [text, onRequest, onResponse].filter((source) => source !== undefined);
    this.usesBody = this.#sources.some(({ code }) => /\b(?:text|json|bytes|body)\b/.test(code));
    const { request, response } = this.#define(config, cx);
    this.onRequest = request;
    this.onResponse = response;
  }

  #define(
    { inline, file, onRequest, onResponse, ...config }: Config,
    cx: SetupContext,
  ): { readonly request: OnRequest | undefined; readonly response: OnResponse | undefined } {
    const names = namesOf(config.config, cx);
    const run = (source: ScriptSource, body?: { name: string; parameters: string }) => {
      try {
        return evaluate(source, names, body);
      } catch (error) {
        throw new ConfigError("", String((this.located(error) as Error).message));
      }
    };
    const whole = inline ?? file;
    if (whole === undefined) {
      const bodyOf = (source: ScriptSource | undefined, name: string, parameters: string) =>
        source && run(source, { name, parameters })[name];
      return {
        request: bodyOf(onRequest, "onRequest", "req, stream") as OnRequest | undefined,
        response: bodyOf(onResponse, "onResponse", "res, req, stream") as OnResponse | undefined,
      };
    }
    const made = run(whole);
    if (made.onRequest === undefined && made.onResponse === undefined)
      throw new ConfigError("", "the script defines neither onRequest nor onResponse");
    return {
      request: made.onRequest as OnRequest | undefined,
      response: made.onResponse as OnResponse | undefined,
    };
  }

  /** The error as the user's file has it: its place before the message, and no frames but those of the script. */
  located(error: unknown): unknown {
    if (!(error instanceof Error) || error.stack === undefined) return error;
    const frames: string[] = [];
    let place = "";
    for (const frame of error.stack.split("\n")) {
      for (const { file, indent } of this.#sources) {
        const at = frame.lastIndexOf(`${file}:`);
        const found = at < 0 ? null : /^(\d+):(\d+)/.exec(frame.slice(at + file.length + 1));
        if (found === null) continue;
        // Columns of a block scalar count from its indent, those of the file from its margin.
        const here = `${file}:${found[1]}:${Number(found[2]) + indent}`;
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

/** The fixed names of every script but those of a stream. */
function namesOf(config: Config["config"], cx: SetupContext) {
  return {
    config,
    log: cx.log,
    stats: cx.stats,
    reply,
    fetch: (target: string, init?: FetchInit) => cx.fetch(target, init),
    shared: {
      counter: (name: string) => cx.cell(name, counter()),
      tokenBucket: (name: string, rate: BucketRate) => cx.cell(name, tokenBucket(rate)),
      tokenBuckets: (name: string, options: TokenBucketsOptions) =>
        cx.cell(name, tokenBuckets(options)),
      map: (name: string, options: TtlMapOptions) => cx.cell(name, ttlMap(options)),
    },
  };
}

/**
 * Runs the text with those names in scope. Line breaks before it let the engine count as the file does; what is put around it
 * stands on the line before it begins.
 */
function evaluate(
  source: ScriptSource,
  names: Readonly<Record<string, unknown>>,
  body?: { readonly name: string; readonly parameters: string },
): Readonly<Record<string, unknown>> {
  const isAsync = /\bawait\b/.test(source.code) ? "async " : "";
  const open = body === undefined ? "" : `${isAsync}function ${body.name}(${body.parameters}) {`;
  const close = body === undefined ? "" : "\n}";
  const list = Object.keys(names).join(", ");
  const before = "\n".repeat(Math.max(0, source.line - 2));
  const defined = (name: string) => `${name}: typeof ${name} === "function" ? ${name} : undefined`;
  const text = [
    `${before}(function (${list}) { "use strict"; ${open}`,
    `${source.code}${close}`,
    `return { ${defined("onRequest")}, ${defined("onResponse")} };`,
    `})\n//# sourceURL=${source.file}`,
  ].join("\n");
  // biome-ignore lint/security/noGlobalEval: a script of the config is code; it runs in an isolate of its own.
  const make = globalThis.eval(text) as (...values: unknown[]) => Record<string, unknown>;
  return make(...Object.values(names));
}

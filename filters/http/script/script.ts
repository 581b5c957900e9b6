import {
  type HttpStream,
  reply,
  ScriptProgram,
  type SetupContext,
  scriptNames,
  type Verdict,
} from "@tsproxy/sdk";
import type { Config } from "./config.ts";
import type { ScriptRequest, ScriptResponse } from "./message.ts";

type Answer = Verdict | PromiseLike<Verdict>;
type OnRequest = (req: ScriptRequest, stream: HttpStream) => Answer;
type OnResponse = (res: ScriptResponse, req: ScriptRequest, stream: HttpStream) => Answer;

const PARAMETERS = { onRequest: "req, stream", onResponse: "res, req, stream" } as const;

/** One script of the config: what it defines is called for each stream. */
export class Script {
  readonly maxBodyBytes: number;
  readonly onRequest: OnRequest | undefined;
  readonly onResponse: OnResponse | undefined;
  /** Nothing in it reads or replaces bodies, so they need not come here. */
  readonly usesBody: boolean;
  readonly #program: ScriptProgram;

  constructor({ inline, file, onRequest, onResponse, ...config }: Config, cx: SetupContext) {
    this.maxBodyBytes = config.max_body_bytes;
    const names = { ...scriptNames(config.config, cx), reply };
    const forms = { inline, file, bodies: { onRequest, onResponse } };
    this.#program = new ScriptProgram(forms, PARAMETERS, names);
    const { functions, sources } = this.#program;
    this.usesBody = sources.some(({ code }) => /\b(?:text|json|bytes|body)\b/.test(code));
    this.onRequest = functions.onRequest as OnRequest | undefined;
    this.onResponse = functions.onResponse as OnResponse | undefined;
  }

  /** Its text has this word. */
  names(word: string): boolean {
    const text = new RegExp(`\\b${word}\\b`);
    return this.#program.sources.some(({ code }) => text.test(code));
  }

  located(error: unknown): unknown {
    return this.#program.located(error);
  }
}

import {
  type HttpStream,
  type Log,
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

/** One script of the config; the functions that it defines are called for each stream. */
export class Script {
  readonly maxBodyBytes: number;
  readonly onRequest: OnRequest | undefined;
  readonly onResponse: OnResponse | undefined;
  /** False: nothing in its text reads or replaces bodies, so they need not be brought into the sandbox. */
  readonly usesBody: boolean;
  readonly #program: ScriptProgram;
  readonly #log: Log;
  /** Of the reply that the present call has made. */
  #status = 0;
  #isReminded = false;

  constructor({ inline, file, onRequest, onResponse, ...config }: Config, cx: SetupContext) {
    this.maxBodyBytes = config.max_body_bytes;
    this.#log = cx.log;
    const names = { ...scriptNames(config.config, cx), reply: this.#reply };
    const forms = { inline, file, bodies: { onRequest, onResponse } };
    this.#program = new ScriptProgram(forms, PARAMETERS, names);
    const { functions, sources } = this.#program;
    this.usesBody = sources.some(({ code }) => /\b(?:text|json|bytes|body)\b/.test(code));
    this.onRequest = functions.onRequest as OnRequest | undefined;
    this.onResponse = functions.onResponse as OnResponse | undefined;
  }

  /** Whether its text has this word. */
  names(word: string): boolean {
    return this.#program.names(word);
  }

  readonly #reply: typeof reply = (status, options) => {
    this.#status = status;
    return reply(status, options);
  };

  /** A call that does not wait. A reply that it makes and does not return comes to nothing, which is easily overlooked: told once. */
  call<T>(run: () => T): T {
    this.#status = 0;
    const result = run();
    if (result === undefined && this.#status !== 0 && !this.#isReminded) {
      this.#isReminded = true;
      const { file, line } = this.#program.sources[0]!;
      this.#log.warn(
        `${file}:${line}: the script made reply(${this.#status}) and did not return it, so the stream went on; write: return reply(${this.#status})`,
      );
    }
    return result;
  }

  /** What a function of it has returned, if that is a verdict. */
  verdict(value: unknown): Verdict {
    if (value === undefined || (value as Verdict | null)?.type === "reply") return value as Verdict;
    const { file, line } = this.#program.sources[0]!;
    const what = typeof value === "string" ? JSON.stringify(value.slice(0, 40)) : typeof value;
    throw new TypeError(
      `${file}:${line}: a function of the script returned ${what}; return nothing, or reply(…)`,
    );
  }

  located(error: unknown): unknown {
    return this.#program.located(error);
  }
}

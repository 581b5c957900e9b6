import type { CommonScriptNames as Common, HttpStream, Reply, Verdict } from "@tsproxy/sdk";
import type { ScriptRequest, ScriptResponse } from "./message.ts";

type Answer = Verdict | PromiseLike<Verdict>;

/** What scripts find beside the language; `tsproxy filter check` reads these names, one a line, and holds scripts to them. */
export interface ScriptNames {
  readonly config: Common["config"];
  readonly log: Common["log"];
  readonly stats: Common["stats"];
  readonly fetch: Common["fetch"];
  readonly shared: Common["shared"];
  readonly reply: (status: number, options?: Partial<Omit<Reply, "type" | "status">>) => Reply;
}

/** The functions that a script may define. */
export interface ScriptHooks {
  onRequest(req: ScriptRequest, stream: HttpStream): Answer;
  onResponse(res: ScriptResponse, req: ScriptRequest, stream: HttpStream): Answer;
}

import type { CloseEvent, CommonScriptNames as Common } from "@tsproxy/sdk";
import type { ScriptConnection, ScriptData } from "./connection.ts";

type Answer = void | PromiseLike<void>;

/** What scripts find beside the language; `tsproxy filter check` reads these names, one a line, and holds scripts to them. */
export interface ScriptNames {
  readonly config: Common["config"];
  readonly log: Common["log"];
  readonly stats: Common["stats"];
  readonly fetch: Common["fetch"];
  readonly shared: Common["shared"];
}

/** The functions that a script may define. */
export interface ScriptHooks {
  onConnect(conn: ScriptConnection): Answer;
  onData(data: ScriptData, conn: ScriptConnection, end: boolean): Answer;
  onWrite(data: ScriptData, conn: ScriptConnection, end: boolean): Answer;
  onClose(conn: ScriptConnection, event: CloseEvent): Answer;
}

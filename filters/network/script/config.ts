import { ScriptSource, type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** The whole script: functions `onConnect`, `onData`, `onWrite` and `onClose`, and whatever they need. */
  inline: Type.Optional(ScriptSource()),
  /** The same in a file of its own, beside the config. */
  file: Type.Optional(ScriptSource({ file: true })),
  /** Only the statements of one function. */
  onConnect: Type.Optional(ScriptSource({ body: true })),
  onData: Type.Optional(ScriptSource({ body: true })),
  onWrite: Type.Optional(ScriptSource({ body: true })),
  onClose: Type.Optional(ScriptSource({ body: true })),
  /** What the script finds as `config`. */
  config: Type.Record(Type.String(), Type.Unknown(), { default: {} }),
});
export type Config = Static<typeof Config>;

import { ScriptSource, type Static, Type, UInt32 } from "@tsproxy/sdk";

const fields = {
  /** The whole script: functions `onRequest` and `onResponse`, and whatever they need. */
  inline: Type.Optional(ScriptSource()),
  /** The same in a file of its own, beside the config. */
  file: Type.Optional(ScriptSource({ file: true })),
  /** Only the statements of one function. */
  onRequest: Type.Optional(ScriptSource({ body: true })),
  onResponse: Type.Optional(ScriptSource({ body: true })),
  /** What the script finds as `config`. */
  config: Type.Record(Type.String(), Type.Unknown(), { default: {} }),
  max_body_bytes: UInt32({ default: 1024 * 1024, minimum: 1 }),
};

export const Config = Type.Object(fields);
export type Config = Static<typeof Config>;

/** A route's own script takes the place of the filter's. */
export const RouteConfig = Type.Object(fields);

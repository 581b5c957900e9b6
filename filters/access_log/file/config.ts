import { type Static, Type } from "@tsproxy/sdk";

/** `json_format` and its like: a tree whose strings are formats. */
const Tree = Type.Record(Type.String(), Type.Unknown());

export const Config = Type.Object({
  path: Type.String({ minLength: 1 }),
  log_format: Type.Optional(
    Type.Object({
      text_format_source: Type.Optional(
        Type.Object({ inline_string: Type.Optional(Type.String({ minLength: 1 })) }),
      ),
      text_format: Type.Optional(Type.String()),
      json_format: Type.Optional(Tree),
      omit_empty_values: Type.Optional(Type.Boolean()),
    }),
  ),
  /** Older than `log_format`, and still accepted. */
  format: Type.Optional(Type.String()),
  json_format: Type.Optional(Tree),
  typed_json_format: Type.Optional(Tree),
});
export type Config = Static<typeof Config>;

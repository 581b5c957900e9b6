import {
  JsonFormatTree,
  OutputFile,
  type Static,
  SubstitutionFormatString,
  Type,
} from "@tsproxy/sdk";

export const Config = Type.Object({
  path: OutputFile({ minLength: 1 }),
  log_format: Type.Optional(SubstitutionFormatString),
  /** Older than `log_format`, and still accepted. */
  format: Type.Optional(Type.String()),
  json_format: Type.Optional(JsonFormatTree),
  typed_json_format: Type.Optional(JsonFormatTree),
});
export type Config = Static<typeof Config>;

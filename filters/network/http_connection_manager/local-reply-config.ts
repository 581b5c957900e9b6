import {
  AccessLogFilter,
  DataSource,
  HeaderValueOption,
  type Static,
  Type,
  UInt32,
} from "@tsproxy/sdk";

/** Envoy's SubstitutionFormatString. */
const BodyFormatConfig = Type.Object({
  text_format: Type.Optional(Type.String()),
  text_format_source: Type.Optional(DataSource()),
  json_format: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  omit_empty_values: Type.Boolean({ default: false }),
  content_type: Type.String({ default: "" }),
});
export type BodyFormatConfig = Static<typeof BodyFormatConfig>;

export const LocalReplyConfig = Type.Object({
  mappers: Type.Array(
    Type.Object({
      filter: AccessLogFilter,
      status_code: Type.Optional(UInt32({ minimum: 200, maximum: 599 })),
      body: Type.Optional(DataSource()),
      body_format_override: Type.Optional(BodyFormatConfig),
      headers_to_add: Type.Array(HeaderValueOption, { default: [] }),
    }),
    { default: [] },
  ),
  body_format: Type.Optional(BodyFormatConfig),
});
export type LocalReplyConfig = Static<typeof LocalReplyConfig>;

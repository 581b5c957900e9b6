import {
  AccessLogFilter,
  DataSource,
  HeaderValueOption,
  type Static,
  Type,
  UInt32,
} from "@tsproxy/sdk";
import { BodyFormatConfig } from "./body-format.ts";

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

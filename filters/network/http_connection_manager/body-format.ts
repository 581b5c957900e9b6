import {
  ConfigError,
  compileFormat,
  compileJsonFormat,
  DataSource,
  type Format,
  type FormatSource,
  formatterFields,
  headerText,
  knowsWithoutQuery,
  type ResponseHeaders,
  type Static,
  Type,
} from "@tsproxy/sdk";

/** Envoy's SubstitutionFormatString for a body. */
export const BodyFormatConfig = Type.Object({
  text_format: Type.Optional(Type.String()),
  text_format_source: Type.Optional(DataSource()),
  json_format: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  omit_empty_values: Type.Boolean({ default: false }),
  content_type: Type.String({ default: "" }),
  ...formatterFields,
});
export type BodyFormatConfig = Static<typeof BodyFormatConfig>;

export interface BodyFormat {
  readonly format: Format;
  /** The `content-type` of the formatted body. */
  readonly type: string;
  /** The config says what it is, by its `content_type` or by a JSON format. */
  readonly typed: boolean;
}

export function compileBodyFormat(config: BodyFormatConfig, path: string): BodyFormat {
  const { json_format: json, omit_empty_values: omitEmpty } = config;
  const text = config.text_format_source?.text ?? config.text_format;
  if ((json === undefined) === (text === undefined)) {
    throw new ConfigError(path, "give one of text_format_source and json_format");
  }
  const type = headerText(config.content_type, `${path}.content_type`);
  const withoutQuery = knowsWithoutQuery(config);
  try {
    if (json !== undefined) {
      const format = compileJsonFormat(json, { omitEmpty, withoutQuery });
      return { format, type: type === "" ? "application/json" : type, typed: true };
    }
    const format = compileFormat(text!, { withoutQuery, ...(omitEmpty && { missing: "" }) });
    return { format, type: type === "" ? "text/plain" : type, typed: type !== "" };
  } catch (error) {
    throw new ConfigError(path, error instanceof Error ? error.message : String(error));
  }
}

/** The stream as a source of formats while its local reply is being made. */
export function withReplyBody(
  stream: FormatSource,
  response: ResponseHeaders | undefined,
  localReplyBody: string,
): FormatSource {
  const { info, request, metadata, serverName, filterState } = stream;
  const { routeMetadata, virtualHostMetadata, virtualClusterName, filterChainName } = stream;
  const { downstream } = stream;
  return {
    info,
    downstream,
    request,
    response,
    metadata,
    serverName,
    filterState,
    routeMetadata,
    virtualHostMetadata,
    virtualClusterName,
    filterChainName,
    localReplyBody,
  };
}

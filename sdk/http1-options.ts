import { type Static, Type, TypedExtension } from "./schema.ts";

/** Envoy's `Http1ProtocolOptions.header_key_format`. */
export const HeaderKeyFormat = Type.Object({
  proper_case_words: Type.Optional(Type.Object({})),
  stateful_formatter: Type.Optional(
    TypedExtension({
      "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig":
        Type.Object({
          /** For clusters: clients of HTTP/1 get the words behind the status as the upstream wrote them. */
          forward_reason_phrase: Type.Boolean({ default: false }),
        }),
    }),
  ),
});
export type HeaderKeyFormat = Static<typeof HeaderKeyFormat>;

/** For `CodecOptions.headerKeyFormat`. */
export function headerKeyFormat(
  config: HeaderKeyFormat | undefined,
): "proper_case_words" | "preserve_case" | undefined {
  if (config?.proper_case_words !== undefined) return "proper_case_words";
  return config?.stateful_formatter === undefined ? undefined : "preserve_case";
}

/** For `CodecOptions.forwardsReason`. */
export function forwardsReason(config: HeaderKeyFormat | undefined): boolean {
  return config?.stateful_formatter?.typed_config.forward_reason_phrase ?? false;
}

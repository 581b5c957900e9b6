import { Enum, type Static, Type, TypedExtension } from "./schema.ts";

/** Envoy's `Http1ProtocolOptions.header_key_format`. */
export const HeaderKeyFormat = Type.Object({
  proper_case_words: Type.Optional(Type.Object({})),
  stateful_formatter: Type.Optional(
    TypedExtension({
      "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig":
        Type.Object({
          /** For clusters: clients of HTTP/1 get the words behind the status as the upstream wrote them. */
          forward_reason_phrase: Type.Boolean({ default: false }),
          /** How names are written that the sender of the head did not: `DEFAULT` is lower case. */
          formatter_type_on_envoy_headers: Enum(["DEFAULT", "PROPER_CASE"], { default: "DEFAULT" }),
        }),
    }),
  ),
});
export type HeaderKeyFormat = Static<typeof HeaderKeyFormat>;

/**
 * How HTTP/1 writes header names: in proper case, or as the sender of the head wrote them and names that it did not write in lower
 * or in proper case.
 */
export type HeaderNameCase = "proper_case_words" | "preserve_case" | "preserve_or_proper_case";

/** For `CodecOptions.headerKeyFormat`. */
export function headerKeyFormat(config: HeaderKeyFormat | undefined): HeaderNameCase | undefined {
  if (config?.proper_case_words !== undefined) return "proper_case_words";
  const formatter = config?.stateful_formatter?.typed_config;
  if (formatter === undefined) return undefined;
  const { formatter_type_on_envoy_headers: others } = formatter;
  return others === "PROPER_CASE" ? "preserve_or_proper_case" : "preserve_case";
}

/** For `CodecOptions.forwardsReason`. */
export function forwardsReason(config: HeaderKeyFormat | undefined): boolean {
  return config?.stateful_formatter?.typed_config.forward_reason_phrase ?? false;
}

import { celCondition } from "./cel/condition.ts";
import { ConfigError, type SetupContext } from "./extension.ts";
import { filterStateText } from "./filter-state.ts";
import { nameOf, queryParameter } from "./header-match.ts";
import type { HeaderMap, RequestHeaders, ResponseHeaders } from "./headers.ts";
import type { StreamInfo } from "./http.ts";
import { CidrRange, CidrRanges, isLoopback, parseIp } from "./ip.ts";
import { compileValueMatch, ValueMatcher, valueAt } from "./metadata-match.ts";
import type { Address } from "./network.ts";
import { RuntimeFraction, RuntimeFractionalPercent } from "./runtime.ts";
import { type Static, Type, TypedExtension, UInt32 } from "./schema.ts";
import { surroundings } from "./surroundings.ts";
import type { AlternativeName, Certificate, TlsInfo } from "./transport.ts";
import { percentDecode } from "./wire-text.ts";
import { xxHash64 } from "./xxhash64.ts";

/** What the inputs of a matcher tree look at; an HttpStream is one. */
export interface MatchSubject {
  readonly info: Pick<
    StreamInfo,
    "downstreamRemoteAddress" | "downstreamDirectAddress" | "downstreamLocalAddress"
  >;
  readonly request?: RequestHeaders | undefined;
  readonly response?: ResponseHeaders | undefined;
  readonly requestTrailers?: HeaderMap | undefined;
  /** Of the response. */
  readonly trailers?: HeaderMap | undefined;
  readonly metadata?: ReadonlyMap<string, Readonly<Record<string, unknown>>> | undefined;
  /** The name that the client asked for in TLS; "" if none. */
  readonly serverName?: string | undefined;
  /** `tls` or `raw_buffer`. */
  readonly transportProtocol?: string | undefined;
  readonly applicationProtocols?: readonly string[] | undefined;
  readonly filterState?: ReadonlyMap<string, unknown> | undefined;
  /** What is known of the client's connection: its address, and the certificate that it has shown. */
  readonly downstreamConnection?:
    | { readonly remoteAddress?: Address; readonly tls?: TlsInfo | undefined }
    | undefined;
  /** Called when an input asks for a part of the exchange that has not come yet: the caller may match again later. */
  onMissing?(): void;
}

const HeaderInput = Type.Object({ header_name: Type.String({ minLength: 1 }) });
const NETWORK = "envoy.extensions.matching.common_inputs.network.v3";
const SSL = "envoy.extensions.matching.common_inputs.ssl.v3";
const Nothing = Type.Object({});

/** The inputs that Envoy's HTTP matching has and that have their data here. */
export const MatchInput = TypedExtension({
  "envoy.type.matcher.v3.HttpRequestHeaderMatchInput": HeaderInput,
  "envoy.type.matcher.v3.HttpResponseHeaderMatchInput": HeaderInput,
  "envoy.type.matcher.v3.HttpResponseTrailerMatchInput": HeaderInput,
  "envoy.type.matcher.v3.HttpRequestTrailerMatchInput": HeaderInput,
  "envoy.type.matcher.v3.HttpResponseStatusCodeMatchInput": Nothing,
  "envoy.type.matcher.v3.HttpResponseStatusCodeClassMatchInput": Nothing,
  [`${SSL}.UriSanInput`]: Nothing,
  [`${SSL}.DnsSanInput`]: Nothing,
  [`${SSL}.SubjectInput`]: Nothing,
  [`${NETWORK}.FilterStateInput`]: Type.Object({ key: Type.String({ minLength: 1 }) }),
  "envoy.extensions.matching.common_inputs.environment_variable.v3.Config": Type.Object({
    name: Type.String({ minLength: 1 }),
  }),
  "envoy.type.matcher.v3.HttpRequestQueryParamMatchInput": Type.Object({
    query_param: Type.String({ minLength: 1 }),
  }),
  [`${NETWORK}.DestinationIPInput`]: Nothing,
  [`${NETWORK}.DestinationPortInput`]: Nothing,
  [`${NETWORK}.SourceIPInput`]: Nothing,
  [`${NETWORK}.SourcePortInput`]: Nothing,
  [`${NETWORK}.DirectSourceIPInput`]: Nothing,
  [`${NETWORK}.SourceTypeInput`]: Nothing,
  [`${NETWORK}.ServerNameInput`]: Nothing,
  [`${NETWORK}.TransportProtocolInput`]: Nothing,
  [`${NETWORK}.ApplicationProtocolInput`]: Nothing,
  [`${NETWORK}.DynamicMetadataInput`]: Type.Object({
    filter: Type.String({ minLength: 1 }),
    path: Type.Array(Type.Object({ key: Type.String({ minLength: 1 }) }), { minItems: 1 }),
  }),
  "xds.type.matcher.v3.HttpAttributesCelMatchInput": Nothing,
});
export type MatchInput = {
  readonly typed_config: { readonly "@type": string } & Record<string, unknown>;
};

const INPUT_MATCHERS = "envoy.extensions.matching.input_matchers";
const CelExpression = Type.Object({ expr: Type.Unknown() });
/** The fields of a CelExpression that may hold the parsed expression; its tree has the same form in all of them. */
const CEL_FORMS = ["parsed_expr", "checked_expr", "cel_expr_parsed", "cel_expr_checked"] as const;
/** The matchers of an input's value that Envoy has as extensions, beside texts. */
export const CustomMatch = TypedExtension({
  [`${INPUT_MATCHERS}.ip.v3.Ip`]: Type.Object({
    cidr_ranges: Type.Array(CidrRange, { minItems: 1 }),
    stat_prefix: Type.String({ minLength: 1 }),
  }),
  [`${INPUT_MATCHERS}.runtime_fraction.v3.RuntimeFraction`]: Type.Object({
    runtime_fraction: RuntimeFractionalPercent,
    seed: Type.Integer({ minimum: 0, default: 0 }),
  }),
  [`${INPUT_MATCHERS}.consistent_hashing.v3.ConsistentHashing`]: Type.Object({
    threshold: UInt32({ default: 0 }),
    modulo: UInt32({ minimum: 1 }),
    seed: Type.Integer({ minimum: 0, default: 0 }),
  }),
  [`${INPUT_MATCHERS}.metadata.v3.Metadata`]: Type.Object({
    value: ValueMatcher,
    invert: Type.Boolean({ default: false }),
  }),
  "xds.type.matcher.v3.CelMatcher": Type.Object({
    expr_match: Type.Object(
      Object.fromEntries(CEL_FORMS.map((form) => [form, Type.Optional(CelExpression)])),
    ),
    description: Type.Optional(Type.String()),
  }),
});

/** What a custom matcher says of an input's value. */
export function compileCustomMatch(
  config: MatchInput,
  path: string,
  cx: SetupContext,
): (value: unknown) => boolean {
  const { typed_config: typed } = config as Static<typeof CustomMatch>;
  if ("expr_match" in typed) return celMatch(typed.expr_match, `${path}.expr_match`, cx);
  if ("cidr_ranges" in typed) {
    const ranges = new CidrRanges(typed.cidr_ranges, `${path}.cidr_ranges`);
    return (value) => {
      const ip = typeof value === "string" ? parseIp(value) : undefined;
      return ip !== undefined && ranges.contains(ip);
    };
  }
  if ("runtime_fraction" in typed) {
    const fraction = new RuntimeFraction(typed.runtime_fraction, cx.runtime);
    const hash = hashOf(typed.seed, 1_000_000);
    return (value) => typeof value === "string" && fraction.enabled(hash(value));
  }
  if ("modulo" in typed) {
    const { threshold, modulo } = typed;
    const hash = hashOf(typed.seed, modulo);
    return (value) => typeof value === "string" && hash(value) >= threshold;
  }
  const matches = compileValueMatch(typed.value, `${path}.value`, cx);
  return (value) => value !== undefined && matches(value) !== typed.invert;
}

/** Compiles a CelMatcher. The value that it matches is the whole MatchSubject, from HttpAttributesCelMatchInput. */
function celMatch(
  forms: Readonly<Record<string, Static<typeof CelExpression> | undefined>>,
  path: string,
  cx: SetupContext,
): (value: unknown) => boolean {
  const given = CEL_FORMS.filter((form) => forms[form] !== undefined);
  const form = given[0];
  if (form === undefined || given.length > 1)
    throw new ConfigError(path, `give one of ${CEL_FORMS.join(", ")}`);
  const { expr } = forms[form]!;
  const condition = celCondition(expr, `${path}.${form}.expr`, cx);
  // A text "response" does not count; in JSON, this cannot be a part of a text.
  const readsResponse = JSON.stringify(expr).includes('"ident_expr":{"name":"response"}');
  return (value) => {
    const subject = value as MatchSubject;
    if (readsResponse && subject.response === undefined) subject.onMissing?.();
    return condition(subject);
  };
}

/** Whether the value of this input is the whole MatchSubject, which only a CelMatcher can use. */
export const isCelInput = ({ typed_config: typed }: MatchInput): boolean =>
  typed["@type"].endsWith(".HttpAttributesCelMatchInput");
/** Whether a `custom_match` is an expression. */
export const isCelMatch = ({ typed_config: typed }: MatchInput): boolean =>
  typed["@type"].endsWith(".CelMatcher");

/** Turns a text into a number below `modulo`. */
function hashOf(seed: number, modulo: number): (text: string) => number {
  const [start, divisor] = [BigInt(seed), BigInt(modulo)];
  return (text) => Number(xxHash64(text, start) % divisor);
}

/** Undefined: there is no value, which no condition matches. */
export type ReadInput = (subject: MatchSubject) => unknown;

/** Reads the value that an input names. `path` is where it stands in the config. */
export function compileInput(config: MatchInput, path: string): ReadInput {
  const typed = config.typed_config;
  const type = typed["@type"].slice(typed["@type"].lastIndexOf(".") + 1);
  const at = `${path}.typed_config`;
  switch (type) {
    case "HttpRequestHeaderMatchInput":
      return readHeader(typed.header_name as string, at, (subject) => subject.request);
    case "HttpResponseHeaderMatchInput":
      return readHeader(typed.header_name as string, at, (subject) => subject.response);
    case "HttpResponseTrailerMatchInput":
      return readHeader(typed.header_name as string, at, (subject) => subject.trailers);
    case "HttpRequestTrailerMatchInput":
      return readHeader(typed.header_name as string, at, (subject) => subject.requestTrailers);
    case "HttpResponseStatusCodeMatchInput":
      return (subject) => statusOf(subject);
    case "HttpResponseStatusCodeClassMatchInput":
      return (subject) => {
        const status = statusOf(subject);
        return status === undefined ? undefined : `${status[0]}xx`;
      };
    case "UriSanInput":
      return namesOf("URI");
    case "DnsSanInput":
      return namesOf("DNS");
    case "SubjectInput":
      return (subject) => certificateOf(subject)?.subject;
    case "FilterStateInput":
      return ({ filterState }) => filterStateText(filterState?.get(typed.key as string));
    case "Config": {
      const { environment } = surroundings;
      const name = typed.name as string;
      const value = Object.hasOwn(environment, name) ? environment[name] : undefined;
      return () => value;
    }
    case "HttpRequestQueryParamMatchInput":
      return ({ request }) => {
        const value = request && queryParameter(request.path, typed.query_param as string);
        return value && percentDecode(value);
      };
    case "DynamicMetadataInput": {
      const keys = (typed.path as { key: string }[]).map(({ key }) => key);
      return (subject) => valueAt(subject.metadata?.get(typed.filter as string), keys);
    }
    case "DestinationIPInput":
      return ({ info }) => ipOf(info.downstreamLocalAddress);
    case "DestinationPortInput":
      return ({ info }) => portOf(info.downstreamLocalAddress);
    case "SourceIPInput":
      return ({ info }) => ipOf(info.downstreamRemoteAddress);
    case "SourcePortInput":
      return ({ info }) => portOf(info.downstreamRemoteAddress);
    case "DirectSourceIPInput":
      return ({ info }) => ipOf(info.downstreamDirectAddress);
    case "SourceTypeInput":
      return ({ info }) => (isLocal(info) ? "local" : undefined);
    case "HttpAttributesCelMatchInput":
      return (subject) => subject;
    case "ServerNameInput":
      return (subject) => subject.serverName || undefined;
    case "TransportProtocolInput":
      return (subject) => subject.transportProtocol || undefined;
    default:
      return applicationProtocols;
  }
}

/** As Envoy's input writes them: `'h2','http/1.1'`. */
function applicationProtocols({ applicationProtocols: list }: MatchSubject): string | undefined {
  if (list === undefined || list.length === 0) return undefined;
  return list.map((name) => `'${name}'`).join(",");
}

/** The lines of one name, joined by commas as Envoy does it. */
function readHeader(
  name: string,
  path: string,
  of: (subject: MatchSubject) => HeaderMap | undefined,
): ReadInput {
  if (name.startsWith(":")) {
    return (subject) => pseudoHeader(subject, name.toLowerCase(), of(subject));
  }
  const header = nameOf(name, `${path}.header_name`);
  return (subject) => {
    const headers = of(subject);
    if (headers === undefined) subject.onMissing?.();
    const values = headers?.getAll(header);
    return values === undefined || values.length === 0 ? undefined : values.join(",");
  };
}

function pseudoHeader(
  subject: MatchSubject,
  name: string,
  headers: HeaderMap | undefined,
): string | undefined {
  if (headers === undefined) {
    subject.onMissing?.();
    return undefined;
  }
  if (headers === subject.response) {
    return name === ":status" ? String(subject.response.status) : undefined;
  }
  if (headers !== subject.request) return undefined;
  const { request } = subject;
  if (name === ":path") return request.path;
  if (name === ":method") return request.method;
  if (name === ":scheme") return request.scheme;
  return name === ":authority" ? request.authority : undefined;
}

const ipOf = (address: Address): string | undefined =>
  address.path === undefined ? address.ip : undefined;
const portOf = (address: Address): string | undefined =>
  address.path === undefined ? String(address.port) : undefined;

function isLocal(info: MatchSubject["info"]): boolean {
  const { downstreamDirectAddress: remote, downstreamLocalAddress: local } = info;
  if (remote.path !== undefined) return true;
  const bytes = parseIp(remote.ip);
  return remote.ip === local.ip || (bytes !== undefined && isLoopback(bytes));
}

function statusOf(subject: MatchSubject): string | undefined {
  if (subject.response === undefined) subject.onMissing?.();
  return subject.response === undefined ? undefined : String(subject.response.status);
}

function certificateOf({ downstreamConnection }: MatchSubject): Certificate | undefined {
  return downstreamConnection?.tls?.peer;
}

/** As Envoy joins them: with commas. */
function namesOf(type: AlternativeName["type"]): ReadInput {
  return (subject) => {
    const names = certificateOf(subject)?.names.filter((name) => name.type === type) ?? [];
    return names.length === 0 ? undefined : names.map(({ value }) => value).join(",");
  };
}

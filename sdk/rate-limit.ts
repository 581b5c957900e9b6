import { celProgram } from "./cel/condition.ts";
import { celText } from "./cel/print.ts";
import { ConfigError, type SetupContext } from "./extension.ts";
import { compileFormat, type Format } from "./format.ts";
import {
  compileHeaderMatch,
  compileQueryMatch,
  decodedParameter,
  HeaderMatcher,
  headerReader,
  QueryParameterMatcher,
} from "./header-match.ts";
import type { HttpStream } from "./http.ts";
import { CidrRange, CidrRanges, maskedIp, parseIp } from "./ip.ts";
import { valueAt } from "./metadata-match.ts";
import { type Static, Type, TypedExtension, UInt32 } from "./schema.ts";

const text = Type.String({ minLength: 1 });
const MAX_HITS = 1_000_000_000;
const MetadataKey = Type.Object({
  key: text,
  path: Type.Array(Type.Object({ key: text }), { minItems: 1 }),
});
const Metadata = Type.Object({
  descriptor_key: text,
  metadata_key: MetadataKey,
  default_value: Type.String({ default: "" }),
  source: Type.Optional(Type.Union([Type.Literal("DYNAMIC"), Type.Literal("ROUTE_ENTRY")])),
  skip_if_absent: Type.Boolean({ default: false }),
});
const KeyAndValue = { descriptor_key: Type.String({ default: "" }), descriptor_value: text };
type KeyAndValue = Readonly<Record<keyof typeof KeyAndValue, string>>;

const Action = Type.Object({
  source_cluster: Type.Optional(Type.Object({})),
  destination_cluster: Type.Optional(Type.Object({})),
  request_headers: Type.Optional(
    Type.Object({
      header_name: text,
      descriptor_key: text,
      skip_if_absent: Type.Boolean({ default: false }),
    }),
  ),
  query_parameters: Type.Optional(
    Type.Object({
      query_parameter_name: text,
      descriptor_key: text,
      skip_if_absent: Type.Boolean({ default: false }),
    }),
  ),
  remote_address: Type.Optional(Type.Object({})),
  masked_remote_address: Type.Optional(
    Type.Object({
      v4_prefix_mask_len: UInt32({ default: 32, maximum: 32 }),
      v6_prefix_mask_len: UInt32({ default: 128, maximum: 128 }),
    }),
  ),
  remote_address_match: Type.Optional(
    Type.Object({
      ...KeyAndValue,
      /** In the place of `descriptor_value`, which is a format here, where that gives "". */
      default_value: Type.String({ default: "" }),
      address_matcher: Type.Object({
        ranges: Type.Array(CidrRange, { default: [] }),
        invert_match: Type.Boolean({ default: false }),
      }),
    }),
  ),
  generic_key: Type.Optional(Type.Object(KeyAndValue)),
  extension: Type.Optional(
    TypedExtension({
      "envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor": Type.Object({
        descriptor_key: text,
        skip_if_error: Type.Boolean({ default: false }),
        text: Type.Optional(text),
        parsed: Type.Optional(Type.Unknown()),
      }),
    }),
  ),
  header_value_match: Type.Optional(
    Type.Object({
      ...KeyAndValue,
      expect_match: Type.Boolean({ default: true }),
      headers: Type.Array(HeaderMatcher, { minItems: 1 }),
    }),
  ),
  query_parameter_value_match: Type.Optional(
    Type.Object({
      ...KeyAndValue,
      expect_match: Type.Boolean({ default: true }),
      query_parameters: Type.Array(QueryParameterMatcher, { minItems: 1 }),
    }),
  ),
  metadata: Type.Optional(Metadata),
  dynamic_metadata: Type.Optional(Type.Omit(Metadata, ["source", "skip_if_absent"])),
});
type Action = Static<typeof Action>;

/** Envoy's `route.v3.RateLimit`. */
export const RateLimit = Type.Object({
  stage: UInt32({ default: 0, maximum: 10 }),
  disable_key: Type.String({ default: "" }),
  actions: Type.Array(Action, { minItems: 1 }),
  /** For rate limit services; local limits take no notice of it, as Envoy's. */
  limit: Type.Optional(
    Type.Object({ dynamic_metadata: Type.Optional(Type.Object({ metadata_key: MetadataKey })) }),
  ),
  hits_addend: Type.Optional(
    Type.Object({
      number: Type.Optional(Type.Integer({ minimum: 0, maximum: MAX_HITS })),
      format: Type.Optional(Type.String({ pattern: "^%.*%$" })),
    }),
  ),
  apply_on_stream_done: Type.Boolean({ default: false }),
});
export type RateLimit = Static<typeof RateLimit>;

/** One key and what a request has there. */
export interface DescriptorEntry {
  readonly key: string;
  readonly value: string;
}
/** What requests are counted by: those with equal descriptors share a limit. */
export type Descriptor = readonly DescriptorEntry[];

/** What one entry of `rate_limits` makes of a stream. */
export interface MadeDescriptor {
  readonly entries: Descriptor;
  /** How many requests it counts as; undefined: what the filter says, or one. */
  readonly hits: number | undefined;
}

/** One action, compiled: makes an entry, or "skipped", or undefined, which means that there is no descriptor at all. */
type Step = (stream: HttpStream) => DescriptorEntry | "skipped" | undefined;

/** One entry of `rate_limits`, compiled: makes at most one descriptor of a stream. */
export class DescriptorMaker {
  readonly stage: number;
  /** Part of the name of the runtime key that turns it off; "": none. */
  readonly disableKey: string;
  /** `apply_on_stream_done`: it counts when the stream has ended. */
  readonly onStreamDone: boolean;
  readonly #steps: readonly Step[];
  readonly #hits: ((stream: HttpStream) => number | undefined) | undefined;

  constructor(config: RateLimit, path: string, cx: SetupContext) {
    this.stage = config.stage;
    this.disableKey = config.disable_key;
    this.onStreamDone = config.apply_on_stream_done;
    this.#hits = compileHits(config.hits_addend, `${path}.hits_addend`);
    this.#steps = config.actions.map((action, k) =>
      compileAction(action, `${path}.actions[${k}]`, cx),
    );
  }

  /** Undefined: an action has no value for this stream, or `hits_addend` gives no number; either drops the whole descriptor. */
  make(stream: HttpStream): MadeDescriptor | undefined {
    const entries: DescriptorEntry[] = [];
    for (const step of this.#steps) {
      const entry = step(stream);
      if (entry === undefined) return undefined;
      if (entry !== "skipped") entries.push(entry);
    }
    if (entries.length === 0) return undefined;
    const hits = this.#hits?.(stream);
    if (this.#hits !== undefined && hits === undefined) return undefined;
    return { entries, hits };
  }
}

/** Reads how many requests a stream counts as; undefined where the format gives no number. */
function compileHits(
  config: RateLimit["hits_addend"],
  path: string,
): ((stream: HttpStream) => number | undefined) | undefined {
  if (config === undefined) return undefined;
  const { number, format: text } = config;
  if (text === undefined) return number === undefined ? undefined : () => number;
  const format = formatOf(text, `${path}.format`);
  return (stream) => {
    const value = format.format(stream);
    const hits = /^[0-9]{1,10}$/.test(value) ? Number(value) : MAX_HITS + 1;
    return hits > MAX_HITS ? undefined : hits;
  };
}

/** Missing values print as "", as in Envoy. */
function formatOf(text: string, path: string): Format {
  try {
    return compileFormat(text, { missing: "" });
  } catch (error) {
    throw new ConfigError(path, error instanceof Error ? error.message : String(error));
  }
}

/** Values that requests bring may be empty and make an entry all the same; those of `has` may not. */
const given = (key: string, value: string | undefined, skips: boolean) =>
  value === undefined ? (skips ? "skipped" : undefined) : { key, value };
const has = (key: string, value: string | undefined, skips = false) =>
  given(key, value === "" ? undefined : value, skips);

const literal = (config: KeyAndValue, usualKey: string): DescriptorEntry => ({
  key: config.descriptor_key || usualKey,
  value: config.descriptor_value,
});

function compileAction(action: Action, path: string, cx: SetupContext): Step {
  const kinds = Object.keys(action).filter((key) => action[key as keyof Action] !== undefined);
  if (kinds.length !== 1) throw new ConfigError(path, "give exactly one kind of action");
  const { request_headers: header, query_parameters: query, generic_key: generic } = action;
  if (header !== undefined) {
    const read = headerReader(header.header_name, `${path}.request_headers.header_name`);
    return ({ request }) => given(header.descriptor_key, read(request)[0], header.skip_if_absent);
  }
  if (query !== undefined) {
    return ({ request }) => {
      const value = decodedParameter(request.path, query.query_parameter_name);
      return given(query.descriptor_key, value, query.skip_if_absent);
    };
  }
  if (generic !== undefined) {
    const entry = literal(generic, "generic_key");
    return () => entry;
  }
  if (action.source_cluster !== undefined) {
    const entry = { key: "source_cluster", value: cx.node.cluster };
    return () => entry;
  }
  if (action.destination_cluster !== undefined) {
    return ({ route }) =>
      route?.action.type === "route" ? has("destination_cluster", route.action.cluster) : undefined;
  }
  if (action.remote_address !== undefined) {
    return ({ info }) => has("remote_address", info.downstreamRemoteAddress.ip);
  }
  return compileRareAction(action, path, cx);
}

function compileRareAction(action: Action, path: string, cx: SetupContext): Step {
  const { masked_remote_address: masked, extension } = action;
  const metadata = action.metadata ?? action.dynamic_metadata;
  if (extension !== undefined) {
    return compileExpression(extension.typed_config, `${path}.extension.typed_config`, cx);
  }
  if (masked !== undefined) {
    const { v4_prefix_mask_len: v4, v6_prefix_mask_len: v6 } = masked;
    return ({ info }) =>
      has("masked_remote_address", maskedIp(info.downstreamRemoteAddress.ip, v4, v6));
  }
  if (metadata !== undefined) {
    const isOfRoute = action.metadata?.source === "ROUTE_ENTRY";
    return compileMetadata(metadata, isOfRoute, action.metadata?.skip_if_absent ?? false);
  }
  return compileMatch(action, path, cx);
}

/** An action of CEL. */
function compileExpression(
  config: NonNullable<Action["extension"]>["typed_config"],
  path: string,
  cx: SetupContext,
): Step {
  const { descriptor_key: key, skip_if_error: skips, text, parsed } = config;
  if ((text === undefined) === (parsed === undefined))
    throw new ConfigError(path, "give one of text and parsed");
  const field = text === undefined ? "parsed" : "text";
  const program = celProgram(text ?? parsed, `${path}.${field}`, cx);
  return (stream) => given(key, celText(program(stream)), skips);
}

function compileMetadata(
  config: NonNullable<Action["dynamic_metadata"]>,
  isOfRoute: boolean,
  skips: boolean,
): Step {
  const { key: namespace, path } = config.metadata_key;
  const keys = path.map(({ key }) => key);
  return ({ route, metadata }) => {
    const values = isOfRoute ? route?.routeMetadata?.[namespace] : metadata.get(namespace);
    const value = valueAt(values, keys);
    const found = typeof value === "string" && value !== "" ? value : config.default_value;
    return has(config.descriptor_key, found, skips);
  };
}

/** The actions that make their entry for requests which match. */
function compileMatch(action: Action, path: string, cx: SetupContext): Step {
  const { remote_address_match: addressMatch, header_value_match: headerMatch } = action;
  if (addressMatch !== undefined) {
    const at = `${path}.remote_address_match`;
    const { ranges, invert_match: inverted } = addressMatch.address_matcher;
    const networks = new CidrRanges(ranges, `${at}.address_matcher.ranges`);
    const { key, value } = literal(addressMatch, "remote_address_match");
    const format = formatOf(value, `${at}.descriptor_value`);
    return (stream) => {
      const ip = parseIp(stream.info.downstreamRemoteAddress.ip);
      if (ip === undefined || networks.contains(ip) === inverted) return undefined;
      return has(key, format.format(stream) || addressMatch.default_value);
    };
  }
  if (headerMatch !== undefined) {
    const at = `${path}.header_value_match.headers`;
    const matchers = headerMatch.headers.map((h, k) => compileHeaderMatch(h, `${at}[${k}]`, cx));
    const entry = literal(headerMatch, "header_match");
    return ({ request }) =>
      matchers.every((m) => m.matches(request)) === headerMatch.expect_match ? entry : undefined;
  }
  const queryMatch = action.query_parameter_value_match!;
  const at = `${path}.query_parameter_value_match.query_parameters`;
  const matchers = queryMatch.query_parameters.map((q, k) =>
    compileQueryMatch(q, `${at}[${k}]`, cx, decodedParameter),
  );
  const entry = literal(queryMatch, "query_match");
  return ({ request }) =>
    matchers.every((m) => m.matches(request)) === queryMatch.expect_match ? entry : undefined;
}

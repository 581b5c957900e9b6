import type { LogEntry } from "./access-log.ts";
import { celCondition } from "./cel/condition.ts";
import { ConfigError, type SetupContext } from "./extension.ts";
import { GRPC_STATUS_NAMES, grpcStatusOf } from "./grpc-status.ts";
import { compileHeaderMatch, HeaderMatcher } from "./header-match.ts";
import { headerName, RequestHeaders } from "./headers.ts";
import { compileValueMatch, MetadataMatcher, valueAt } from "./metadata-match.ts";
import { FLAG_NAMES } from "./response-flags.ts";
import { FractionalPercent, fractionOf, RuntimeInteger, RuntimeUInt32 } from "./runtime.ts";
import { Enum, type Static, type TSchema, Type, TypedExtension } from "./schema.ts";

const Comparison = Type.Object({
  comparison: Type.Object({
    op: Enum(["EQ", "GE", "LE", "NE"], { default: "EQ" }),
    value: RuntimeUInt32,
  }),
});

/** Envoy's `AccessLogType`: which moment of a stream or connection a line tells of. */
const ACCESS_LOG_TYPES = [
  "NotSet",
  "TcpUpstreamConnected",
  "TcpPeriodic",
  "TcpConnectionEnd",
  "DownstreamStart",
  "DownstreamPeriodic",
  "DownstreamEnd",
  "UpstreamPoolReady",
  "UpstreamPeriodic",
  "UpstreamEnd",
  "DownstreamTunnelSuccessfullyEstablished",
  "UdpTunnelUpstreamConnected",
  "UdpPeriodic",
  "UdpSessionEnd",
  "TcpConnectionStart",
] as const;

/** Envoy's `AccessLogType`: the moment of a stream's or connection's life that an entry tells of. */
export type AccessLogType = (typeof ACCESS_LOG_TYPES)[number];

/** The names of gRPC statuses in this one filter's config, which spells one of them unlike the gRPC libraries. */
const GRPC_STATUSES = GRPC_STATUS_NAMES.map((name) => (name === "CANCELLED" ? "CANCELED" : name));

const leaves = {
  status_code_filter: Type.Optional(Comparison),
  duration_filter: Type.Optional(Comparison),
  not_health_check_filter: Type.Optional(Type.Object({})),
  traceable_filter: Type.Optional(Type.Object({})),
  runtime_filter: Type.Optional(
    Type.Object({
      runtime_key: Type.String({ minLength: 1 }),
      percent_sampled: Type.Optional(FractionalPercent),
      use_independent_randomness: Type.Boolean({ default: false }),
    }),
  ),
  header_filter: Type.Optional(Type.Object({ header: HeaderMatcher })),
  response_flag_filter: Type.Optional(
    Type.Object({ flags: Type.Array(Type.String(), { default: [] }) }),
  ),
  grpc_status_filter: Type.Optional(
    Type.Object({
      statuses: Type.Array(Enum(GRPC_STATUSES), { default: [] }),
      exclude: Type.Boolean({ default: false }),
    }),
  ),
  metadata_filter: Type.Optional(
    Type.Object({
      matcher: Type.Optional(MetadataMatcher),
      match_if_key_not_found: Type.Boolean({ default: true }),
    }),
  ),
  log_type_filter: Type.Optional(
    Type.Object({
      types: Type.Array(Enum(ACCESS_LOG_TYPES), { default: [] }),
      exclude: Type.Boolean({ default: false }),
    }),
  ),
  extension_filter: Type.Optional(
    TypedExtension({
      "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter": Type.Object({
        expression: Type.String(),
      }),
    }),
  ),
};
type Leaves = Static<ReturnType<typeof leavesObject>>;
const leavesObject = () => Type.Object(leaves);

/** Envoy's `accesslog.v3.AccessLogFilter`: one of its fields is given. */
export interface AccessLogFilter extends Leaves {
  readonly and_filter?: { readonly filters: readonly AccessLogFilter[] };
  readonly or_filter?: { readonly filters: readonly AccessLogFilter[] };
}
export const AccessLogFilter = Type.Unsafe<AccessLogFilter>(
  Type.Recursive(
    (Filter: TSchema) => {
      const several = Type.Optional(Type.Object({ filters: Type.Array(Filter, { minItems: 2 }) }));
      return Type.Object({ ...leaves, and_filter: several, or_filter: several });
    },
    { $id: "AccessLogFilter" },
  ),
);

/** Whether a line is written (or a local reply is taken by a mapper). */
export type LogFilter = (entry: LogEntry) => boolean;

/** `path`: where the filter stands in the package's config. */
export function compileAccessLogFilter(
  config: AccessLogFilter,
  path: string,
  cx: SetupContext,
): LogFilter {
  const given = Object.entries(config).filter(([, value]) => value !== undefined);
  const [field, value] = given[0] ?? [];
  if (field === undefined || given.length > 1)
    throw new ConfigError(path, `give one of ${Object.keys(COMPILERS).join(", ")}`);
  return COMPILERS[field]!(value as never, `${path}.${field}`, cx);
}

type Compile = (config: never, path: string, cx: SetupContext) => LogFilter;
type Of<K extends keyof AccessLogFilter> = NonNullable<AccessLogFilter[K]>;

const COMPILERS: Readonly<Record<string, Compile>> = {
  status_code_filter: (config: Of<"status_code_filter">, _path, cx) =>
    comparison(config, cx, ({ info }) => info.responseCode),
  duration_filter: (config: Of<"duration_filter">, _path, cx) =>
    comparison(config, cx, ({ info }) => {
      const ms = info.elapsed ?? info.duration;
      return ms < 0 ? undefined : Math.floor(ms);
    }),
  not_health_check_filter: () => (entry) => entry.info.healthCheck !== true,
  traceable_filter: () => (entry) => entry.info.traceForced === true,
  runtime_filter: runtimeFilter,
  and_filter: (config: Of<"and_filter">, path, cx) => {
    const all = compileAll(config, path, cx);
    return (entry) => all.every((filter) => filter(entry));
  },
  or_filter: (config: Of<"or_filter">, path, cx) => {
    const any = compileAll(config, path, cx);
    return (entry) => any.some((filter) => filter(entry));
  },
  header_filter: ({ header }: Of<"header_filter">, path, cx) => {
    const match = compileHeaderMatch(header, `${path}.header`, cx);
    return ({ request }) => match.matches(request ?? NO_HEADERS);
  },
  response_flag_filter: ({ flags }: Of<"response_flag_filter">, path) => {
    for (const [k, flag] of flags.entries()) {
      if (!Object.hasOwn(FLAG_NAMES, flag))
        throw new ConfigError(`${path}.flags[${k}]`, `"${flag}" is not a response flag`);
    }
    const wanted = new Set(flags);
    return ({ info }) =>
      wanted.size === 0 ? info.flags.length > 0 : info.flags.some((flag) => wanted.has(flag));
  },
  grpc_status_filter: ({ statuses, exclude }: Of<"grpc_status_filter">) => {
    const wanted = new Set(statuses.map((status) => GRPC_STATUSES.indexOf(status)));
    // Without a status Envoy takes it for UNKNOWN.
    return (entry) => wanted.has(grpcStatusOf(entry) ?? 2) !== exclude;
  },
  metadata_filter: metadataFilter,
  log_type_filter: ({ types, exclude }: Of<"log_type_filter">) => {
    const wanted = new Set<string>(types);
    return (entry) => wanted.has(logTypeOf(entry)) !== exclude;
  },
  extension_filter: ({ typed_config: { expression } }: Of<"extension_filter">, path, cx) =>
    celCondition(expression, `${path}.typed_config.expression`, cx),
};

const NO_HEADERS = new RequestHeaders();

/** %ACCESS_LOG_TYPE% */
export function logTypeOf(entry: Partial<Pick<LogEntry, "logType" | "request">>): string {
  return entry.logType ?? (entry.request === undefined ? "TcpConnectionEnd" : "DownstreamEnd");
}

function compileAll(
  { filters }: { readonly filters: readonly AccessLogFilter[] },
  path: string,
  cx: SetupContext,
): readonly LogFilter[] {
  return filters.map((filter, k) => compileAccessLogFilter(filter, `${path}.filters[${k}]`, cx));
}

/** A value that is missing passes no comparison. */
function comparison(
  { comparison: { op, value } }: Static<typeof Comparison>,
  cx: SetupContext,
  read: (entry: LogEntry) => number | undefined,
): LogFilter {
  const limit = new RuntimeInteger(value, cx.runtime);
  const test = OPERATIONS[op];
  return (entry) => {
    const actual = read(entry);
    return actual !== undefined && test(actual, limit.value);
  };
}

const OPERATIONS = {
  EQ: (a: number, b: number) => a === b,
  GE: (a: number, b: number) => a >= b,
  LE: (a: number, b: number) => a <= b,
  NE: (a: number, b: number) => a !== b,
} as const;

const REQUEST_ID = headerName("x-request-id");

/** The random number is taken from the request id, so that either all proxies that a request passes log it or none does. */
function runtimeFilter(
  config: Of<"runtime_filter">,
  _path: string,
  { runtime }: SetupContext,
): LogFilter {
  const { runtime_key: key, percent_sampled, use_independent_randomness: independent } = config;
  const share = percent_sampled && fractionOf(percent_sampled);
  const { numerator, denominator } = share ?? { numerator: 0, denominator: 100 };
  return ({ request }) => {
    // Envoy counts a value of the runtime in the default's own denominator here, not in percent.
    const limit = runtime.integer(key, numerator);
    const id = independent ? "" : (request?.get(REQUEST_ID) ?? "");
    const ofId = id.length < 8 ? Number.NaN : Number.parseInt(id.slice(0, 8), 16);
    const random = Number.isNaN(ofId) ? Math.floor(Math.random() * denominator) : ofId;
    return random % denominator < limit;
  };
}

function metadataFilter(
  { matcher, match_if_key_not_found: orElse }: Of<"metadata_filter">,
  path: string,
  cx: SetupContext,
): LogFilter {
  if (matcher === undefined) return () => orElse;
  const matches = compileValueMatch(matcher.value, `${path}.matcher.value`, cx);
  const keys = matcher.path.map(({ key }) => key);
  return ({ metadata }) => {
    const value = valueAt(metadata?.get(matcher.filter), keys);
    return value === undefined ? orElse : matches(value) !== matcher.invert;
  };
}

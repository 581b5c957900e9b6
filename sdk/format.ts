import type { LogEntry } from "./access-log.ts";
import { latin1Decode, latin1Encode, utf8Decode, utf8Encode } from "./bytes.ts";
import { compileDateFormat, isoTime } from "./date-format.ts";
import { type HeaderMap, type HeaderName, headerName } from "./headers.ts";
import { type Address, formatAddress } from "./network.ts";
import { FLAG_NAMES } from "./response-flags.ts";

/**
 * What Envoy's substitution formats (`%REQ(:METHOD)% %DURATION%`) are filled from. A `LogEntry` is one, and so is an `HttpStream`
 * while it runs.
 */
export type FormatSource = Pick<LogEntry, "info" | "request" | "response"> & Partial<LogEntry>;

export interface FormatOptions {
  /**
   * `log` (default): text, header bytes read as UTF-8, `-` for a value that is missing. `header`: one char a byte, "" for a
   * value that is missing, no control character whatever the values hold.
   */
  readonly purpose?: "log" | "header";
  /** In the place of a value that is missing. */
  readonly missing?: string;
  /**
   * Told of a command that nobody knows or that is written wrongly, and why; it prints as missing if this returns. Without it
   * `compileFormat` throws a FormatError.
   */
  readonly onUnknown?: (message: string, command: string) => void;
  /** Told of a command of Envoy's that has no data here: it prints as missing. */
  readonly onUnsupported?: (command: string) => void;
}

export class FormatError extends Error {}

export interface Format {
  format(source: FormatSource): string;
}

/** Parses a format once. `%%` is a percent sign. */
export function compileFormat(text: string, options: FormatOptions = {}): Format {
  return new TextFormat(parse(text, options), options);
}

/**
 * `json_format`: strings are formats and everything else stays as it is. A string that is one command keeps its value's type, null
 * when it is missing. Keys are sorted, as Envoy prints them; the line ends with a newline. `omitEmpty`: without keys that have no value.
 */
export function compileJsonFormat(
  tree: unknown,
  options: FormatOptions & { readonly omitEmpty?: boolean } = {},
): Format {
  const root = compileTree(tree, options);
  return { format: (source) => `${JSON.stringify(root(source) ?? null)}\n` };
}

/** Envoy's line for every request when the config gives no format. */
export const DEFAULT_LOG_FORMAT =
  '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ' +
  "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% " +
  '"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"\n';

type Value = string | number | boolean | object | undefined;
type Command = (source: FormatSource) => Value;
type Part = string | Command;

class TextFormat implements Format {
  readonly #parts: readonly Part[];
  readonly #missing: string;
  readonly #header: boolean;

  constructor(parts: readonly Part[], options: FormatOptions) {
    this.#header = options.purpose === "header";
    this.#missing = options.missing ?? (this.#header ? "" : "-");
    this.#parts = parts;
  }

  format(source: FormatSource): string {
    const parts = this.#parts;
    let text = "";
    for (let k = 0; k < parts.length; k++) {
      const part = parts[k]!;
      if (typeof part === "string") {
        text += part;
        continue;
      }
      const value = part(source);
      text +=
        value === undefined
          ? this.#missing
          : typeof value === "object"
            ? JSON.stringify(value)
            : value;
    }
    // Metadata may hold any text; a header may not, and the data path must not throw.
    return this.#header && CONTROL.test(text) ? text.replace(CONTROLS, " ") : text;
  }
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what a header value may not hold (RFC 9110 §5.5).
const CONTROL = /[\x00-\x08\x0a-\x1f\x7f]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: as above.
const CONTROLS = /[\x00-\x08\x0a-\x1f\x7f]/g;

/** `%COMMAND(parameter):length%`; the parameter ends with the first `)` that a `%` or `:length%` follows. */
const COMMAND = /%(?:%|([A-Z0-9_]+)(?:\((.*?)\))?(?::([0-9]{1,9}))?%)/sy;

function parse(text: string, options: FormatOptions): Part[] {
  const header = options.purpose === "header";
  const parts: Part[] = [];
  let literal = "";
  const flush = () => {
    if (literal !== "") parts.push(header ? bytesOf(literal) : literal);
    literal = "";
  };
  for (let k = 0; k < text.length; ) {
    const percent = text.indexOf("%", k);
    literal += text.slice(k, percent < 0 ? text.length : percent);
    if (percent < 0) break;
    COMMAND.lastIndex = percent;
    const match = COMMAND.exec(text);
    if (match === null) {
      const near = text.slice(percent, percent + 20);
      unknown(`"${near}" is not a command; a percent sign is written %%`, near, options);
      literal += "%";
      k = percent + 1;
      continue;
    }
    k = COMMAND.lastIndex;
    if (match[1] === undefined) {
      literal += "%";
      continue;
    }
    flush();
    const length = match[3] === undefined ? undefined : Number(match[3]);
    parts.push(command(match[1], match[2], length, options));
  }
  flush();
  return parts;
}

function unknown(message: string, name: string, options: FormatOptions): void {
  if (options.onUnknown === undefined) throw new FormatError(message);
  options.onUnknown(message, name);
}

const missing: Command = () => undefined;

function command(
  name: string,
  parameter: string | undefined,
  length: number | undefined,
  options: FormatOptions,
): Command {
  const make = COMMANDS[name];
  if (make === undefined) {
    if (UNSUPPORTED.test(name)) options.onUnsupported?.(name);
    else unknown(`%${name}% is not a command of access log formats`, name, options);
    return missing;
  }
  const text: Text =
    options.purpose === "header" ? { read: asIs, write: bytesOf } : { read: textOf, write: asIs };
  try {
    return make(parameter, length, text);
  } catch (error) {
    if (!(error instanceof FormatError) && !(error instanceof TypeError)) throw error;
    unknown(`%${name}%: ${error.message}`, name, options);
    return missing;
  }
}

/** How header bytes and other text become the text of the format. */
interface Text {
  readonly read: (headerValue: string) => string;
  readonly write: (text: string) => string;
}
type Make = (parameter: string | undefined, length: number | undefined, text: Text) => Command;

const asIs = (text: string): string => text;
// biome-ignore lint/suspicious/noControlCharactersInRegex: all of ASCII.
const ASCII = /^[\x00-\x7f]*$/;

function textOf(headerValue: string): string {
  if (ASCII.test(headerValue)) return headerValue;
  const bytes = latin1Encode(headerValue);
  return utf8Decode(bytes, 0, bytes.length);
}

function bytesOf(text: string): string {
  if (ASCII.test(text)) return text;
  const bytes = utf8Encode(text);
  return latin1Decode(bytes, 0, bytes.length);
}

// ---- json_format

function compileTree(
  tree: unknown,
  options: FormatOptions & { readonly omitEmpty?: boolean },
): Command {
  if (typeof tree === "string") {
    const parts = parse(tree, options);
    const only = parts[0];
    if (parts.length === 1 && typeof only === "function") return only;
    const format = new TextFormat(
      parts,
      options.omitEmpty === true ? { ...options, missing: "" } : options,
    );
    return (source) => format.format(source);
  }
  if (Array.isArray(tree)) {
    const items = tree.map((item) => compileTree(item, options));
    return (source) => items.map((item) => item(source) ?? null);
  }
  if (typeof tree === "object" && tree !== null) {
    const keys = Object.keys(tree).sort();
    const values = keys.map((key) => compileTree((tree as Record<string, unknown>)[key], options));
    const omitEmpty = options.omitEmpty === true;
    return (source) => {
      const record: Record<string, unknown> = {};
      for (let k = 0; k < keys.length; k++) {
        const value = values[k]!(source);
        if (value !== undefined) put(record, keys[k]!, value);
        else if (!omitEmpty) put(record, keys[k]!, null);
      }
      return record;
    };
  }
  if (tree === null || typeof tree === "boolean" || typeof tree === "number") {
    return () => tree as unknown as Value;
  }
  return missing;
}

/** `record[key] = value` that also takes a key named `__proto__`. */
function put(record: Record<string, unknown>, key: string, value: unknown): void {
  if (key !== "__proto__") record[key] = value;
  else
    Object.defineProperty(record, key, {
      value,
      enumerable: true,
      configurable: true,
      writable: true,
    });
}

// ---- commands

/** A command without parameter and length. */
function plain(value: Command): Make {
  return (parameter, length) => {
    if (parameter !== undefined && parameter !== "") throw new FormatError("takes no parameter");
    if (length !== undefined) throw new FormatError("takes no length");
    return value;
  };
}

/** A command that reads headers: `X?Y`, and a length. */
function header(of: (source: FormatSource) => HeaderMap | undefined): Make {
  return (parameter, length, text) => {
    const [first, second] = headerNames(parameter);
    return (source) => {
      const headers = of(source);
      if (headers === undefined) return undefined;
      const value =
        read(headers, source, first) ??
        (second === undefined ? undefined : read(headers, source, second));
      return value === undefined ? undefined : cut(text.read(value), length);
    };
  };
}

type HeaderKey = HeaderName | ":method" | ":path" | ":authority" | ":scheme" | ":status";

function headerNames(parameter: string | undefined): [HeaderKey, HeaderKey | undefined] {
  const [first, second, more] = (parameter ?? "").split("?");
  if (more !== undefined) throw new FormatError("takes a name and at most one other, X?Y");
  return [headerKey(first ?? ""), second === undefined ? undefined : headerKey(second)];
}

function headerKey(name: string): HeaderKey {
  const lower = name.toLowerCase();
  if (lower === ":method" || lower === ":path" || lower === ":scheme" || lower === ":status")
    return lower;
  if (lower === ":authority" || lower === "host") return ":authority";
  return headerName(name);
}

function read(headers: HeaderMap, source: FormatSource, key: HeaderKey): string | undefined {
  if (typeof key !== "string") return headers.get(key);
  if (headers === source.request) {
    const request = source.request;
    if (key === ":method") return request.method;
    if (key === ":path") return request.path;
    if (key === ":scheme") return request.scheme;
    if (key === ":authority") return request.authority;
    return undefined;
  }
  return headers === source.response && key === ":status"
    ? String(source.response.status)
    : undefined;
}

function cut(text: string, length: number | undefined): string {
  return length === undefined || text.length <= length ? text : text.slice(0, length);
}

const nonEmpty = (text: string | undefined): string | undefined => (text === "" ? undefined : text);
const happened = (ms: number): number | undefined => (ms < 0 ? undefined : Math.round(ms));
const between = (from: number, to: number): number | undefined =>
  from < 0 || to < 0 ? undefined : Math.max(0, Math.round(to) - Math.round(from));
const ipOf = (address: Address): string => address.path ?? address.ip;
const portOf = (address: Address): number | undefined =>
  address.path === undefined ? address.port : undefined;

/** `%X%`, `%X_WITHOUT_PORT%` and `%X_PORT%` of one address. */
function address(
  name: string,
  of: (source: FormatSource) => Address | undefined,
): Record<string, Make> {
  const take =
    (pick: (address: Address) => Value): Command =>
    (source) => {
      const value = of(source);
      return value === undefined ? undefined : pick(value);
    };
  return {
    [name]: plain(take(formatAddress)),
    [`${name}_WITHOUT_PORT`]: plain(take(ipOf)),
    [`${name}_PORT`]: plain(take(portOf)),
  };
}

function startTime(time: (source: FormatSource) => number): Make {
  return (parameter, length) => {
    if (length !== undefined) throw new FormatError("takes no length");
    if (parameter === undefined || parameter === "") return (source) => isoTime(time(source));
    const format = compileDateFormat(parameter);
    return (source) => format(time(source));
  };
}

/** Values below a namespace: `ns:key:inner`. */
function metadata(of: (source: FormatSource, namespace: string) => unknown): Make {
  return (parameter, length, text) => {
    const [namespace = "", ...path] = (parameter ?? "").split(":");
    if (namespace === "") throw new FormatError("takes a namespace, and keys after colons");
    return (source) => {
      let value = of(source, namespace);
      for (const key of path) {
        if (typeof value !== "object" || value === null || !Object.hasOwn(value, key))
          return undefined;
        value = (value as Record<string, unknown>)[key];
      }
      if (value === undefined || value === null) return undefined;
      if (typeof value === "string") return cut(text.write(value), length);
      if (length === undefined && (typeof value === "number" || typeof value === "boolean"))
        return value;
      // One char a byte matters for headers; in a JSON line an object stays an object.
      if (length === undefined && text.write === asIs) return value as object;
      return cut(text.write(JSON.stringify(value)), length);
    };
  };
}

const routeMetadata = metadata((source, namespace) =>
  source.routeMetadata !== undefined && Object.hasOwn(source.routeMetadata, namespace)
    ? source.routeMetadata[namespace]
    : undefined,
);

function queryAt(path: string): number {
  const at = path.indexOf("?");
  return at < 0 ? path.length : at;
}

const ORIGINAL_PATH = headerName("x-envoy-original-path");
const REQUEST_ID = headerName("x-request-id");
const GRPC_STATUS = headerName("grpc-status");

/** `PATH(WQ|NQ:ORIG|PATH|ORIG_OR_PATH)` */
const path: Make = (parameter, length, text) => {
  const [query = "", which = "ORIG_OR_PATH"] = (parameter ?? "").split(":");
  if (!["", "WQ", "NQ"].includes(query)) throw new FormatError(`"${query}" is not WQ or NQ`);
  if (!["ORIG", "PATH", "ORIG_OR_PATH"].includes(which)) {
    throw new FormatError(`"${which}" is not ORIG, PATH or ORIG_OR_PATH`);
  }
  return ({ request }) => {
    if (request === undefined) return undefined;
    const original = which === "PATH" ? undefined : request.get(ORIGINAL_PATH);
    const value = original ?? (which === "ORIG" ? undefined : request.path);
    if (value === undefined) return undefined;
    return cut(text.read(query === "NQ" ? value.slice(0, queryAt(value)) : value), length);
  };
};

const requestWithoutQuery: Make = (parameter, length, text) => {
  const [first, second] = headerNames(parameter);
  return (source) => {
    const request = source.request;
    if (request === undefined) return undefined;
    const value =
      read(request, source, first) ??
      (second === undefined ? undefined : read(request, source, second));
    return value === undefined ? undefined : cut(text.read(value.slice(0, queryAt(value))), length);
  };
};

const queryParameter: Make = (parameter, length, text) => {
  if (parameter === undefined || parameter === "")
    throw new FormatError("takes the name of a parameter");
  return ({ request }) => {
    if (request === undefined) return undefined;
    const path = request.path;
    for (const pair of path.slice(queryAt(path) + 1).split("&")) {
      const equals = pair.indexOf("=");
      if ((equals < 0 ? pair : pair.slice(0, equals)) === parameter) {
        return equals < 0 ? undefined : nonEmpty(cut(text.read(pair.slice(equals + 1)), length));
      }
    }
    return undefined;
  };
};

function grpcStatus(source: FormatSource): string | undefined {
  return source.trailers?.get(GRPC_STATUS) ?? source.response?.get(GRPC_STATUS);
}

const GRPC_CODES = [
  ["OK", "OK"],
  ["Canceled", "CANCELLED"],
  ["Unknown", "UNKNOWN"],
  ["InvalidArgument", "INVALID_ARGUMENT"],
  ["DeadlineExceeded", "DEADLINE_EXCEEDED"],
  ["NotFound", "NOT_FOUND"],
  ["AlreadyExists", "ALREADY_EXISTS"],
  ["PermissionDenied", "PERMISSION_DENIED"],
  ["ResourceExhausted", "RESOURCE_EXHAUSTED"],
  ["FailedPrecondition", "FAILED_PRECONDITION"],
  ["Aborted", "ABORTED"],
  ["OutOfRange", "OUT_OF_RANGE"],
  ["Unimplemented", "UNIMPLEMENTED"],
  ["Internal", "INTERNAL"],
  ["Unavailable", "UNAVAILABLE"],
  ["DataLoss", "DATA_LOSS"],
  ["Unauthenticated", "UNAUTHENTICATED"],
] as const;

const grpc: Make = (parameter, length) => {
  if (length !== undefined) throw new FormatError("takes no length");
  const style = parameter === undefined || parameter === "" ? "CAMEL_STRING" : parameter;
  if (!["CAMEL_STRING", "SNAKE_STRING", "NUMBER"].includes(style)) {
    throw new FormatError(`"${style}" is not CAMEL_STRING, SNAKE_STRING or NUMBER`);
  }
  return (source) => {
    const status = grpcStatus(source);
    if (status === undefined || !/^[0-9]{1,9}$/.test(status))
      return status === undefined ? undefined : "-1";
    const code = Number(status);
    const names = GRPC_CODES[code];
    return style === "NUMBER" || names === undefined
      ? code
      : names[style === "SNAKE_STRING" ? 1 : 0];
  };
};

const protocol: Command = ({ info, request }) =>
  request === undefined ? undefined : info.protocol;

const COMMANDS: Readonly<Record<string, Make>> = {
  REQ: header((s) => s.request),
  REQUEST_HEADER: header((s) => s.request),
  RESP: header((s) => s.response),
  RESPONSE_HEADER: header((s) => s.response),
  TRAILER: header((s) => s.trailers),
  RESPONSE_TRAILER: header((s) => s.trailers),
  REQ_WITHOUT_QUERY: requestWithoutQuery,
  PATH: path,
  QUERY_PARAM: queryParameter,
  START_TIME: startTime((s) => s.info.startTime),
  EMIT_TIME: startTime(() => Date.now()),
  PROTOCOL: plain(protocol),
  UPSTREAM_PROTOCOL: plain((s) => nonEmpty(s.upstreamProtocol)),
  RESPONSE_CODE: plain((s) => s.info.responseCode),
  RESPONSE_CODE_DETAILS: plain((s) => nonEmpty(s.info.responseCodeDetails)?.replaceAll(" ", "_")),
  RESPONSE_FLAGS: plain((s) => (s.info.flags.length === 0 ? "-" : s.info.flags.join(","))),
  RESPONSE_FLAGS_LONG: plain((s) =>
    s.info.flags.length === 0 ? "-" : s.info.flags.map((f) => FLAG_NAMES[f] ?? f).join(","),
  ),
  BYTES_RECEIVED: plain((s) => s.info.bytesReceived),
  BYTES_SENT: plain((s) => s.info.bytesSent),
  DURATION: plain((s) => happened(s.info.duration)),
  REQUEST_DURATION: plain((s) => happened(s.info.requestDuration)),
  RESPONSE_DURATION: plain((s) => happened(s.info.responseDuration)),
  RESPONSE_TX_DURATION: plain((s) => between(s.info.responseDuration, s.info.duration)),
  ROUTE_NAME: plain((s) => nonEmpty(s.info.routeName)),
  VIRTUAL_CLUSTER_NAME: plain((s) => nonEmpty(s.virtualClusterName)),
  FILTER_CHAIN_NAME: plain((s) => nonEmpty(s.filterChainName)),
  UPSTREAM_CLUSTER: plain((s) => nonEmpty(s.info.clusterName)),
  UPSTREAM_CLUSTER_RAW: plain((s) => nonEmpty(s.info.clusterName)),
  UPSTREAM_REQUEST_ATTEMPT_COUNT: plain((s) => s.info.attempts),
  UPSTREAM_TRANSPORT_FAILURE_REASON: plain((s) =>
    nonEmpty(s.info.upstreamTransportFailure)?.replaceAll(" ", "_"),
  ),
  ...address("UPSTREAM_HOST", (s) => s.info.upstreamHost),
  ...address("UPSTREAM_REMOTE_ADDRESS", (s) => s.info.upstreamHost),
  ...address("UPSTREAM_LOCAL_ADDRESS", (s) => s.info.upstreamLocalAddress),
  ...address("DOWNSTREAM_REMOTE_ADDRESS", (s) => s.info.downstreamRemoteAddress),
  ...address("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", (s) => s.info.downstreamDirectAddress),
  ...address("DOWNSTREAM_LOCAL_ADDRESS", (s) => s.info.downstreamLocalAddress),
  UPSTREAM_REMOTE_PORT: plain((s) => s.info.upstreamHost && portOf(s.info.upstreamHost)),
  UPSTREAM_LOCAL_PORT: plain(
    (s) => s.info.upstreamLocalAddress && portOf(s.info.upstreamLocalAddress),
  ),
  DOWNSTREAM_REMOTE_PORT: plain((s) => portOf(s.info.downstreamRemoteAddress)),
  DOWNSTREAM_DIRECT_REMOTE_PORT: plain((s) => portOf(s.info.downstreamDirectAddress)),
  DOWNSTREAM_LOCAL_PORT: plain((s) => portOf(s.info.downstreamLocalAddress)),
  CONNECTION_ID: plain((s) => s.info.connectionId),
  STREAM_ID: plain((s) => s.request?.get(REQUEST_ID)),
  REQUESTED_SERVER_NAME: plain((s) => nonEmpty(s.serverName)),
  DYNAMIC_METADATA: metadata((s, namespace) => s.metadata?.get(namespace)),
  METADATA: (parameter, length, text) => {
    const colon = (parameter ?? "").indexOf(":");
    const type = (parameter ?? "").slice(0, colon < 0 ? undefined : colon);
    const rest = colon < 0 ? undefined : parameter?.slice(colon + 1);
    if (type === "ROUTE") return routeMetadata(rest, length, text);
    if (type === "DYNAMIC") return COMMANDS.DYNAMIC_METADATA!(rest, length, text);
    throw new FormatError(`"${type}" is not ROUTE or DYNAMIC`);
  },
  GRPC_STATUS: grpc,
  GRPC_STATUS_NUMBER: (parameter, length, text) => {
    if (parameter !== undefined) throw new FormatError("takes no parameter");
    return grpc("NUMBER", length, text);
  },
  // Envoy prints an empty value here, not a missing one, for an answer that was not its own.
  LOCAL_REPLY_BODY: (_parameter, length, text) => (s) =>
    cut(text.write(s.localReplyBody ?? ""), length),
  ACCESS_LOG_TYPE: plain((s) => (s.request === undefined ? "TcpConnectionEnd" : "DownstreamEnd")),
};

/** Commands of Envoy's whose data nothing here collects yet. */
const UNSUPPORTED = new RegExp(
  "^(?:HOSTNAME|UNIQUE_ID|ENVIRONMENT|TRACE_ID|SPAN_ID|CEL|CUSTOM_FLAGS|FILTER_STATE|UPSTREAM_FILTER_STATE|" +
    "CLUSTER_METADATA|UPSTREAM_METADATA|START_TIME_LOCAL|EMIT_TIME_LOCAL|REQUEST_TX_DURATION|ROUNDTRIP_DURATION|" +
    "COMMON_DURATION|CONNECTION_TERMINATION_DETAILS|UPSTREAM_CONNECTION_ID|UPSTREAM_CONNECTION_POOL_READY_DURATION|" +
    "UPSTREAM_HOST_NAME|UPSTREAM_HOST_NAME_WITHOUT_PORT|UPSTREAM_HOSTS_ATTEMPTED\\w*|UPSTREAM_CONNECTION_IDS_ATTEMPTED|" +
    "UPSTREAM_DETECTED_CLOSE_TYPE|DOWNSTREAM_DETECTED_CLOSE_TYPE|BACKEND_\\w+|COALESCE|SUBSTITUTE|QUERY_PARAMS|" +
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON|DOWNSTREAM_LOCAL_CLOSE_REASON|UPSTREAM_LOCAL_CLOSE_REASON|" +
    "TLS_JA3_FINGERPRINT|TLS_JA4_FINGERPRINT|" +
    "(?:DOWNSTREAM|UPSTREAM)_(?:PEER|LOCAL|TLS)_\\w+|(?:DOWNSTREAM|UPSTREAM)_(?:WIRE|HEADER|DECOMPRESSED_HEADER)_BYTES_\\w+|" +
    "(?:DOWNSTREAM_)?(?:REQUEST|RESPONSE)_(?:HEADERS|TRAILERS)_BYTES|LISTENER_\\w+|DOWNSTREAM_(?:DIRECT_)?(?:REMOTE|LOCAL)_ADDRESS_ENDPOINT_ID|" +
    "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID|REQUESTED_HOST_\\w+)$",
);

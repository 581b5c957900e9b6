// Hot path: each command runs once a line, test/bench/access-log.ts.

import { logTypeOf } from "./access-log-filter.ts";
import { compileCel } from "./cel/compile.ts";
import { celJson, celText } from "./cel/print.ts";
import { compileDateFormat, isoTime, writeIsoTime } from "./date-format.ts";
import { filterStateText } from "./filter-state.ts";
import type { Command, FormatSource, FormatValue } from "./format.ts";
import { cut, type Make, nonEmpty, plain } from "./format-make.ts";
import { tlsCommands } from "./format-tls.ts";
import { wireCommands } from "./format-wire.ts";
import { GRPC_STATUS_NAMES, grpcStatusOf, isGrpcRequest } from "./grpc-status.ts";
import { requestSize, responseSize, trailersSize } from "./head-size.ts";
import { type HeaderMap, type HeaderName, headerName, SPAN } from "./headers.ts";
import type { AttemptedHost, StreamInfo } from "./http.ts";
import { maskedIp } from "./ip.ts";
import type { LineWriter } from "./line-writer.ts";
import { valueAt } from "./metadata-match.ts";
import { type Address, formatAddress, readInternalAddress } from "./network.ts";
import { FLAG_NAMES } from "./response-flags.ts";
import { surroundings } from "./surroundings.ts";
import { percentDecode } from "./wire-text.ts";

/** Undefined: there is no such command, or nothing collects its data. */
export function commandOf(name: string): Make | undefined {
  return Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
}

// ---- headers

function header(of: (source: FormatSource) => HeaderMap | undefined): Make {
  return (parameter, length, text) => {
    const [first, second] = headerNames(parameter);
    const command: Command = (source) => {
      const headers = of(source);
      if (headers === undefined) return undefined;
      const value =
        read(headers, source, first) ??
        (second === undefined ? undefined : read(headers, source, second));
      return value === undefined ? undefined : cut(text.read(value), length);
    };
    if (length === undefined)
      command.write = (source, line) => {
        const headers = of(source);
        if (headers === undefined) return false;
        const done = write(headers, source, first, line);
        if (done !== undefined || second === undefined) return done === true;
        return write(headers, source, second, line) === true;
      };
    return command;
  };
}

type HeaderKey = HeaderName | ":method" | ":path" | ":authority" | ":scheme" | ":status";

function headerNames(parameter: string | undefined): [HeaderKey, HeaderKey | undefined] {
  const [first, second, more] = (parameter ?? "").split("?");
  if (more !== undefined) throw new TypeError("takes a name and at most one other, X?Y");
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
    // All are empty where the client's bytes were no request, and the scheme where the proxy has refused it at once.
    if (key === ":method") return request.method || undefined;
    if (key === ":path") return request.path || undefined;
    if (key === ":scheme") return request.method === "" ? undefined : request.scheme || undefined;
    if (key === ":authority") return request.authority;
    return undefined;
  }
  return headers === source.response && key === ":status"
    ? String(source.response.status)
    : undefined;
}

/** Writes what `read` answers. Undefined: there is no such header; false: its value must be read. */
function write(
  headers: HeaderMap,
  source: FormatSource,
  key: HeaderKey,
  line: LineWriter,
): boolean | undefined {
  const { request } = source;
  const name = key === ":authority" && headers === request ? HOST : key;
  if (typeof name !== "string") return writeHeader(headers, name, line);
  if (headers !== request) return false;
  if (name === ":method" && !request.methodEdited && request.methodEnd > request.methodAt)
    return line.block(request, request.base + request.methodAt, request.base + request.methodEnd);
  if (name === ":path" && !request.pathEdited && request.pathEnd > request.pathAt)
    return line.block(request, request.base + request.pathAt, request.base + request.pathEnd);
  return false;
}

function writeHeader(headers: HeaderMap, name: HeaderName, line: LineWriter): boolean | undefined {
  const at = headers.find(name);
  if (at >= 0) {
    const { base, spans } = headers;
    const i = at * SPAN;
    return line.block(headers, base + spans[i + 2]!, base + spans[i + 3]!);
  }
  const edit = headers.edited(name);
  if (edit === undefined) return undefined;
  if (typeof edit === "string") return line.plain(edit);
  return line.part(edit.bytes, edit.valueAt, edit.valueEnd);
}

// ---- times

const happened = (ms: number): number | undefined => (ms < 0 ? undefined : Math.floor(ms));
const between = (from: number, to: number): number | undefined =>
  from < 0 || to < 0 ? undefined : Math.max(0, Math.floor(to) - Math.floor(from));

const come = (ms: number | undefined): number => (ms === undefined || ms < 0 ? Number.NaN : ms);

/** Points in time that %COMMON_DURATION% counts between: milliseconds from the start, NaN if it has not come. */
const POINTS: Readonly<Record<string, (info: StreamInfo) => number>> = {
  DS_RX_BEG: () => 0,
  DS_RX_END: (i) => come(i.requestDuration),
  US_CX_BEG: (i) => i.upstreamConnectBegin ?? Number.NaN,
  US_CX_END: (i) => i.upstreamConnectEnd ?? Number.NaN,
  US_HS_END: (i) => i.upstreamHandshakeEnd ?? Number.NaN,
  US_TX_BEG: (i) => come(i.upstreamTxBegin),
  US_TX_END: (i) => come(i.upstreamTxEnd),
  US_RX_BEG: (i) => come(i.responseDuration),
  US_RX_END: (i) => come(i.upstreamRxEnd),
  DS_TX_BEG: (i) => come(i.downstreamTxBegin),
  DS_TX_END: (i) => come(i.downstreamTxEnd),
};
const never = () => Number.NaN;
const PER_MS: Readonly<Record<string, number>> = { ms: 1, us: 1e3, ns: 1e6 };

/**
 * `COMMON_DURATION(START:END:PRECISION)`, the last `ms` unless it is given. In Envoy filters may add points of their own; here none does, so other names have no
 * value.
 */
const commonDuration: Make = (parameter, length) => {
  if (length !== undefined) throw new TypeError("takes no length");
  const [from = "", to = "", unit = "ms", more] = (parameter ?? "").split(":");
  const scale = Object.hasOwn(PER_MS, unit) ? PER_MS[unit]! : undefined;
  if (from === "" || to === "" || more !== undefined || scale === undefined)
    throw new TypeError("takes START:END or START:END:PRECISION, the last of them ms, us or ns");
  const start = Object.hasOwn(POINTS, from) ? POINTS[from]! : never;
  const end = Object.hasOwn(POINTS, to) ? POINTS[to]! : never;
  return ({ info }) => {
    const began = start(info);
    const ended = end(info);
    return ended >= began ? Math.floor((ended - began) * scale) : undefined;
  };
};

function startTime(time: (source: FormatSource) => number, local: boolean): Make {
  return (parameter, length) => {
    if (length !== undefined) throw new TypeError("takes no length");
    const format = parameter ?? "";
    if (local) {
      const print = compileDateFormat(format === "" ? "%Y-%m-%dT%H:%M:%E3S%z" : format, "local");
      return (source) => print(time(source));
    }
    if (format === "") {
      const command: Command = (source) => isoTime(time(source));
      command.write = (source, line) => {
        writeIsoTime(time(source), line);
        return true;
      };
      return command;
    }
    const print = compileDateFormat(format);
    return (source) => print(time(source));
  };
}

// ---- addresses

/** `formatAddress` as a command. */
function printedAddress(of: (source: FormatSource) => Address | undefined): Command {
  const command: Command = (source) => {
    const address = of(source);
    return address && nonEmpty(formatAddress(address));
  };
  command.write = (source, line) => {
    const address = of(source);
    if (address === undefined || address.path !== undefined || address.ip.includes(":"))
      return false;
    if (!line.plain(address.ip)) return false;
    line.byte(0x3a);
    line.number(address.port);
    return true;
  };
  return command;
}

const ipOf = (address: Address): string => address.path ?? address.ip;
/** A unix socket has an empty one. */
const portOf = (address: Address): number | string =>
  address.path === undefined ? address.port : "";

/** `%X%`, `%X_WITHOUT_PORT%`, `%X_PORT%` and `%X_ENDPOINT_ID%` of one address. */
function address(
  name: string,
  of: (source: FormatSource) => Address | undefined,
): Record<string, Make> {
  const take =
    (pick: (address: Address) => FormatValue): Command =>
    (source) => {
      const value = of(source);
      return value === undefined ? undefined : pick(value);
    };
  return {
    [name]: plain(printedAddress(of)),
    [`${name}_WITHOUT_PORT`]: (bits = "", length) => {
      if (length !== undefined) throw new TypeError("takes no length");
      // The client's end of a unix socket has no name.
      if (bits === "") return take((of) => nonEmpty(ipOf(of)));
      if (!/^\d{1,3}$/.test(bits) || Number(bits) > 128)
        throw new TypeError("takes the length of a prefix, 0 to 128");
      const most = Number(bits);
      return take((of) => (of.path === undefined ? maskedIp(of.ip, most, most) : of.path));
    },
    [name.replace(/_ADDRESS$/, "_PORT")]: plain(take(portOf)),
    // Listeners within the proxy have endpoints; sockets do not.
    [`${name}_ENDPOINT_ID`]: plain(take((of) => readInternalAddress(of)?.endpointId ?? "")),
  };
}

/**
 * One word for each host that an attempt was made at. Envoy 1.40 lists all of a TCP connection, and of a request that of its last
 * attempt, unless it found no connection.
 */
function attempted(word: (host: AttemptedHost) => string): Make {
  return plain(({ request, info }) => {
    const { attemptedBefore, upstreamHost, host, upstreamConnectionId } = info;
    if (request !== undefined && upstreamConnectionId === undefined) return undefined;
    if (upstreamHost === undefined) return attemptedBefore?.map(word).join(",");
    const last = word({ address: upstreamHost, hostname: host?.hostname ?? "" });
    return attemptedBefore === undefined ? last : [...attemptedBefore.map(word), last].join(",");
  });
}

// ---- metadata

/** Values below a namespace: `ns:key:inner`. */
function metadata(of: (source: FormatSource, namespace: string) => unknown): Make {
  return (parameter, length, text) => {
    const [namespace = "", ...path] = (parameter ?? "").split(":");
    if (namespace === "") throw new TypeError("takes a namespace, and keys after colons");
    return (source) => printValue(valueAt(of(source, namespace), path), length, text.write);
  };
}

/** In a JSON line an object stays an object. */
function printValue(
  value: unknown,
  length: number | undefined,
  write: (text: string) => string,
): FormatValue {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string") return cut(write(value), length);
  if (length === undefined) {
    if (typeof value === "number" || typeof value === "boolean") return value;
    // A header holds bytes, and JSON may hold any text.
    const sorted = withSortedKeys(value);
    const text = JSON.stringify(sorted);
    return write(text) === text ? (sorted as object) : write(text);
  }
  return cut(write(JSON.stringify(withSortedKeys(value))), length);
}

/** As Envoy prints a Struct. */
function withSortedKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withSortedKeys);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, item]) => [key, withSortedKeys(item)]));
}

const own = (values: unknown, key: string): unknown =>
  typeof values === "object" && values !== null && Object.hasOwn(values, key)
    ? (values as Record<string, unknown>)[key]
    : undefined;
const filterMetadata = (message: unknown, namespace: string): unknown =>
  own(own(message, "filter_metadata"), namespace);

const METADATA: Readonly<Record<string, Make>> = {
  DYNAMIC: metadata(
    // What listener filters have left belongs to the connection: its requests do not show it, as in Envoy.
    (s, namespace) =>
      (s.request === undefined ? (s.metadata ?? s.downstream?.metadata) : s.metadata)?.get(
        namespace,
      ),
  ),
  ROUTE: metadata((s, namespace) => own(s.routeMetadata, namespace)),
  CLUSTER: metadata((s, namespace) => filterMetadata(s.info.cluster?.metadata, namespace)),
  UPSTREAM_HOST: metadata((s, namespace) => filterMetadata(s.info.host?.metadata, namespace)),
  VIRTUAL_HOST: metadata((s, namespace) => own(s.virtualHostMetadata, namespace)),
  LISTENER: metadata((s, namespace) => filterMetadata(s.downstream?.listener.metadata, namespace)),
  LISTENER_FILTER_CHAIN: metadata((s, namespace) =>
    filterMetadata(s.downstream?.filterChainMetadata, namespace),
  ),
};

const anyMetadata: Make = (parameter, length, text) => {
  const colon = (parameter ?? "").indexOf(":");
  const type = (parameter ?? "").slice(0, colon < 0 ? undefined : colon);
  if (!Object.hasOwn(METADATA, type))
    throw new TypeError(`"${type}" is not one of ${Object.keys(METADATA).join(", ")}`);
  return METADATA[type]!(colon < 0 ? undefined : parameter?.slice(colon + 1), length, text);
};

/** `FILTER_STATE(key)`, `(key:PLAIN)`, `(key:TYPED)`, `(key:FIELD:name)`. */
const filterState: Make = (parameter, length, text) => {
  const [key = "", form = "TYPED", field = ""] = (parameter ?? "").split(":");
  if (key === "") throw new TypeError("takes a key");
  if (form !== "PLAIN" && form !== "TYPED" && !(form === "FIELD" && field !== ""))
    throw new TypeError(`"${form}" is not PLAIN, TYPED or FIELD:name`);
  return ({ filterState, downstream }) => {
    const value = (filterState ?? downstream?.filterState)?.get(key);
    if (value === undefined) return undefined;
    if (form === "PLAIN") {
      const said = filterStateText(value);
      return said === undefined ? undefined : cut(text.write(said), length);
    }
    if (form === "FIELD") return printValue(own(value, field), length, text.write);
    // JSON of a text, also where it stands in a line.
    if (typeof value === "string" && form === "TYPED")
      return length === undefined
        ? Object(text.write(value))
        : cut(JSON.stringify(text.write(value)), length);
    if (!isWritable(value)) return printValue(value, length, text.write);
    return printValue(value.toJSON(), length, text.write);
  };
};

/** An object that says itself what it is in JSON. */
interface Writable {
  toJSON(): unknown;
}

function isWritable(value: unknown): value is Writable {
  return typeof value === "object" && value !== null && "toJSON" in value;
}

// ---- paths

function queryAt(path: string): number {
  const at = path.indexOf("?");
  return at < 0 ? path.length : at;
}

const HOST = headerName("host");
const ORIGINAL_PATH = headerName("x-envoy-original-path");
const REQUEST_ID = headerName("x-request-id");

/** `PATH(WQ|NQ:ORIG|PATH|ORIG_OR_PATH)` */
const path: Make = (parameter, length, text) => {
  const [query = "", which = "ORIG_OR_PATH"] = (parameter ?? "").split(":");
  if (!["", "WQ", "NQ"].includes(query)) throw new TypeError(`"${query}" is not WQ or NQ`);
  if (!["ORIG", "PATH", "ORIG_OR_PATH"].includes(which)) {
    throw new TypeError(`"${which}" is not ORIG, PATH or ORIG_OR_PATH`);
  }
  return ({ request }) => {
    if (request === undefined) return undefined;
    const original = which === "PATH" ? undefined : request.get(ORIGINAL_PATH);
    const value = original ?? (which === "ORIG" ? undefined : request.path);
    // "": the client's bytes were no request.
    if (value === undefined || value === "") return undefined;
    return cut(text.read(query === "NQ" ? value.slice(0, queryAt(value)) : value), length);
  };
};

/** The message that must be among `formatters` for REQ_WITHOUT_QUERY to be a command. */
export const WITHOUT_QUERY = "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery";

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
    throw new TypeError("takes the name of a parameter");
  return ({ request }) => {
    if (request === undefined) return undefined;
    const path = request.path;
    for (const pair of path.slice(queryAt(path) + 1).split("&")) {
      const equals = pair.indexOf("=");
      if (percentDecode(equals < 0 ? pair : pair.slice(0, equals)) !== parameter) continue;
      const value = equals < 0 ? "" : percentDecode(pair.slice(equals + 1));
      return cut(text.read(value), length);
    }
    return undefined;
  };
};

/** `QUERY_PARAMS`, as on the wire; `QUERY_PARAMS(DECODED)`. */
const queryParameters: Make = (parameter = "", length, text) => {
  if (!["", "ORIG", "DECODED"].includes(parameter))
    throw new TypeError(`"${parameter}" is not ORIG or DECODED`);
  return ({ request }) => {
    const path = request?.path ?? "";
    const at = path.indexOf("?");
    if (at < 0) return undefined;
    const query = path.slice(at + 1);
    return cut(text.read(parameter === "DECODED" ? decodeVisible(query) : query), length);
  };
};

/** As Envoy prints a decoded query: escapes of what may not stand in a URL stay, and a percent sign that begins none is lost. */
function decodeVisible(query: string): string {
  return query.replace(/%(?:([0-9a-fA-F]{2})|(?=..))/gs, (coded, hex?: string) => {
    if (hex === undefined) return "";
    const char = String.fromCharCode(Number.parseInt(hex, 16));
    return /[!#-;=?-[\]_-z~]/.test(char) ? char : coded;
  });
}

// ---- expressions

/** `CEL(request.headers['x-a'] == 'b')`, `TYPED_CEL(...)`: what an expression comes to. */
const expression =
  (typed: boolean): Make =>
  (parameter, length, text) => {
    const program = compileCel(parameter ?? "", surroundings.regex);
    return (source) => {
      const value = program(source);
      if (typed && typeof value !== "string") return celJson(value);
      const printed = celText(value);
      return printed === undefined ? undefined : cut(text.read(printed), length);
    };
  };

// ---- gRPC

/** The names of gRPC statuses in its C++ library. */
const CAMEL_NAMES = GRPC_STATUS_NAMES.map((name) =>
  name === "OK"
    ? name
    : name === "CANCELLED"
      ? "Canceled"
      : name
          .split("_")
          .map((word) => word[0] + word.slice(1).toLowerCase())
          .join(""),
);

const grpc: Make = (parameter, length) => {
  if (length !== undefined) throw new TypeError("takes no length");
  const style = parameter === undefined || parameter === "" ? "CAMEL_STRING" : parameter;
  if (!["CAMEL_STRING", "SNAKE_STRING", "NUMBER"].includes(style))
    throw new TypeError(`"${style}" is not CAMEL_STRING, SNAKE_STRING or NUMBER`);
  const names = style === "SNAKE_STRING" ? GRPC_STATUS_NAMES : CAMEL_NAMES;
  return (source) => {
    if (source.request === undefined || !isGrpcRequest(source.request)) return undefined;
    const code = grpcStatusOf(source);
    if (code === undefined || style === "NUMBER") return code;
    return names[code] ?? String(code);
  };
};

const details: Make = (parameter, length) => {
  if (length !== undefined) throw new TypeError("takes no length");
  if (parameter === "ALLOW_WHITESPACES") return ({ info }) => nonEmpty(info.responseCodeDetails);
  return ({ info }) => {
    const text = info.responseCodeDetails;
    if (text === "") return undefined;
    return text.includes(" ") ? text.replaceAll(" ", "_") : text;
  };
};

const environment: Make = (parameter, length, text) => {
  if (parameter === undefined || parameter === "") throw new TypeError("takes a name");
  const { environment } = surroundings;
  // Envoy's own word for a variable that is not set, in headers too.
  if (!Object.hasOwn(environment, parameter)) return () => "-";
  const value = cut(text.write(environment[parameter]!), length);
  return () => nonEmpty(value);
};

/** The first with a value of `COALESCE({"operators": ["ROUTE_NAME", {"command": "REQ", "param": ":path", "max_length": 3}]})`. */
const coalesce: Make = (parameter, length, text) => {
  const { operators } = JSON.parse(parameter ?? "") as { operators?: unknown };
  if (!Array.isArray(operators) || operators.length === 0)
    throw new TypeError('takes {"operators": [...]}');
  const commands = operators.map((operator: unknown) => {
    const spec = typeof operator === "string" ? { command: operator } : (operator as object);
    const { command, param, max_length } = spec as Record<string, unknown>;
    const make = typeof command === "string" ? commandOf(command) : undefined;
    if (make === undefined) throw new TypeError(`${JSON.stringify(operator)} is not a command`);
    const limit = typeof max_length === "number" ? max_length : undefined;
    return make(typeof param === "string" ? param : undefined, limit, text);
  });
  return (source) => {
    for (const command of commands) {
      const value = command(source);
      if (value === undefined) continue;
      return length === undefined || typeof value === "object" ? value : cut(String(value), length);
    }
    return undefined;
  };
};

/** RFC 9562 §5.4 without a cryptographic source: it tells lines apart and guards nothing. */
function uuid(): string {
  const part = (bits: number) =>
    Math.floor(Math.random() * 2 ** bits)
      .toString(16)
      .padStart(bits / 4, "0");
  const variant = (0x8000 + Math.floor(Math.random() * 0x4000)).toString(16);
  return `${part(32)}-${part(16)}-4${part(12)}-${variant}-${part(48)}`;
}

const protocol: Command = ({ info, request }) =>
  nonEmpty(request === undefined ? info.connectionProtocol : info.protocol);
const ORIGINAL_HOST = headerName("x-envoy-original-host");
const SERVER_NAME_FROM = ["SNI_ONLY", "SNI_FIRST", "HOST_FIRST"];
const HOST_FROM = ["ORIG_OR_HOST", "HOST", "ORIG"];

/** `REQUESTED_SERVER_NAME(SNI_ONLY|SNI_FIRST|HOST_FIRST:ORIG_OR_HOST|HOST|ORIG)` */
const serverName: Make = (parameter, length) => {
  if (length !== undefined) throw new TypeError("takes no length");
  const [given = "", host = "ORIG_OR_HOST"] = (parameter ?? "").split(":");
  const order = given === "" ? "SNI_ONLY" : given;
  if (!SERVER_NAME_FROM.includes(order))
    throw new TypeError(`"${order}" is not SNI_ONLY, SNI_FIRST or HOST_FIRST`);
  if (!HOST_FROM.includes(host)) throw new TypeError(`"${host}" is not ORIG_OR_HOST, HOST or ORIG`);
  const named = (s: FormatSource) => nonEmpty(s.serverName ?? s.downstream?.serverName);
  if (order === "SNI_ONLY") return named;
  const asked = ({ request }: FormatSource): string | undefined => {
    const original = host === "HOST" ? undefined : request?.get(ORIGINAL_HOST);
    return nonEmpty(original ?? (host === "ORIG" ? undefined : request?.authority));
  };
  return order === "SNI_FIRST" ? (s) => named(s) ?? asked(s) : (s) => asked(s) ?? named(s);
};

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
  QUERY_PARAMS: queryParameters,
  REQUEST_HEADERS_BYTES: plain(requestSize),
  RESPONSE_HEADERS_BYTES: plain(responseSize),
  RESPONSE_TRAILERS_BYTES: plain(trailersSize),
  START_TIME: startTime((s) => s.info.startTime, false),
  START_TIME_LOCAL: startTime((s) => s.info.startTime, true),
  EMIT_TIME: startTime(() => Date.now(), false),
  EMIT_TIME_LOCAL: startTime(() => Date.now(), true),
  PROTOCOL: plain(protocol),
  UPSTREAM_PROTOCOL: plain((s) => nonEmpty(s.info.upstreamProtocol)),
  RESPONSE_CODE: plain((s) => s.info.responseCode),
  RESPONSE_CODE_DETAILS: details,
  RESPONSE_FLAGS: plain(({ info: { flags } }) =>
    flags.length === 0 ? "-" : flags.length === 1 ? flags[0] : flags.join(","),
  ),
  RESPONSE_FLAGS_LONG: plain(({ info: { flags } }) =>
    flags.length === 0 ? "-" : flags.map((f) => FLAG_NAMES[f] ?? f).join(","),
  ),
  CUSTOM_FLAGS: plain(() => ""),
  CONNECTION_TERMINATION_DETAILS: plain((s) => nonEmpty(s.info.connectionTerminationDetails)),
  BYTES_RECEIVED: plain((s) => s.info.bytesReceived),
  BYTES_SENT: plain((s) => s.info.bytesSent),
  // As in Envoy over TCP, where the kernel alone knows what it has sent again.
  BYTES_RETRANSMITTED: plain(() => 0),
  PACKETS_RETRANSMITTED: plain(() => 0),
  ...wireCommands("DOWNSTREAM", ({ info }) => info.downstreamWire),
  ...wireCommands("UPSTREAM", ({ info }) => info.upstreamWire),
  DURATION: plain((s) => happened(s.info.elapsed ?? s.info.duration)),
  REQUEST_DURATION: plain((s) => happened(s.info.requestDuration)),
  REQUEST_TX_DURATION: plain((s) => happened(s.info.upstreamTxEnd ?? -1)),
  RESPONSE_DURATION: plain((s) => happened(s.info.responseDuration)),
  RESPONSE_TX_DURATION: plain(({ info }) =>
    between(info.responseDuration, info.downstreamTxEnd ?? -1),
  ),
  UPSTREAM_CONNECTION_POOL_READY_DURATION: plain((s) => happened(s.info.upstreamPoolReady ?? -1)),
  // Measured for HTTP/3 alone.
  ROUNDTRIP_DURATION: plain(() => undefined),
  COMMON_DURATION: commonDuration,
  ROUTE_NAME: plain((s) => nonEmpty(s.info.routeName)),
  VIRTUAL_CLUSTER_NAME: plain((s) => nonEmpty(s.virtualClusterName)),
  FILTER_CHAIN_NAME: plain((s) => nonEmpty(s.filterChainName ?? s.downstream?.filterChainName)),
  LISTENER_NAME: plain((s) => nonEmpty(s.downstream?.listener.name)),
  UPSTREAM_CLUSTER: plain((s) => s.info.cluster?.observabilityName ?? nonEmpty(s.info.clusterName)),
  UPSTREAM_CLUSTER_RAW: plain((s) => nonEmpty(s.info.clusterName)),
  UPSTREAM_REQUEST_ATTEMPT_COUNT: plain((s) => s.info.attempts),
  UPSTREAM_TRANSPORT_FAILURE_REASON: plain((s) =>
    nonEmpty(s.info.upstreamTransportFailure)?.replaceAll(" ", "_"),
  ),
  DOWNSTREAM_TRANSPORT_FAILURE_REASON: plain((s) =>
    nonEmpty(s.info.downstreamTransportFailure)?.replaceAll(" ", "_"),
  ),
  UPSTREAM_HOST_NAME: plain(({ info: { host, upstreamHost } }) =>
    host === undefined ? undefined : host.hostname || (upstreamHost && formatAddress(upstreamHost)),
  ),
  UPSTREAM_HOST_NAME_WITHOUT_PORT: plain(({ info: { host, upstreamHost } }) =>
    host === undefined
      ? undefined
      : host.hostname.replace(/:\d+$/, "") || (upstreamHost && ipOf(upstreamHost)),
  ),
  UPSTREAM_HOSTS_ATTEMPTED: attempted(({ address }) => formatAddress(address)),
  UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT: attempted(({ address }) => ipOf(address)),
  UPSTREAM_HOST_NAMES_ATTEMPTED: attempted(
    ({ address, hostname }) => hostname || formatAddress(address),
  ),
  UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT: attempted(
    ({ address, hostname }) => hostname.replace(/:\d+$/, "") || ipOf(address),
  ),
  UPSTREAM_CONNECTION_ID: plain((s) => s.info.upstreamConnectionId ?? 0),
  // A list, so a text in JSON too.
  UPSTREAM_CONNECTION_IDS_ATTEMPTED: plain((s) => s.info.upstreamConnectionId?.toString()),
  DOWNSTREAM_DETECTED_CLOSE_TYPE: plain(({ info }) => info.downstreamCloseType ?? "Normal"),
  // As in Envoy, an attempt that a circuit breaker ends has one as well, though no host.
  UPSTREAM_DETECTED_CLOSE_TYPE: plain(({ info }) => {
    const tried = info.upstreamHost !== undefined || (info.upstreamPoolReady ?? -1) >= 0;
    return info.upstreamCloseType ?? (tried ? "Normal" : undefined);
  }),
  DOWNSTREAM_LOCAL_CLOSE_REASON: plain(({ info }) => info.downstreamLocalCloseReason),
  UPSTREAM_LOCAL_CLOSE_REASON: plain(({ info }) => info.upstreamLocalCloseReason),
  UPSTREAM_SERVER_NAME: plain((s) => nonEmpty(s.info.upstreamTls?.serverName)),
  ...address("UPSTREAM_REMOTE_ADDRESS", (s) => s.info.upstreamRemoteAddress),
  ...address("UPSTREAM_LOCAL_ADDRESS", (s) => s.info.upstreamLocalAddress),
  ...address("DOWNSTREAM_REMOTE_ADDRESS", (s) => s.info.downstreamRemoteAddress),
  ...address("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", (s) => s.info.downstreamDirectAddress),
  ...address("DOWNSTREAM_LOCAL_ADDRESS", (s) => s.info.downstreamLocalAddress),
  ...address(
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    ({ info }) => info.downstreamDirectLocalAddress ?? info.downstreamLocalAddress,
  ),
  UPSTREAM_HOST: plain(printedAddress(({ info }) => info.upstreamHost)),
  ...tlsCommands("DOWNSTREAM", (s) => s.downstream?.tls),
  DOWNSTREAM_TLS_VERSION: plain(({ downstream }) =>
    nonEmpty(downstream?.tls?.version ?? downstream?.tlsVersion ?? ""),
  ),
  ...tlsCommands("UPSTREAM", (s) => s.info.upstreamTls),
  CONNECTION_ID: plain((s) => s.info.connectionId),
  // An attempt has no id of its own.
  STREAM_ID: plain((s) =>
    s.logType?.startsWith("Upstream") === true
      ? undefined
      : (s.request?.get(REQUEST_ID) ?? s.info.streamId),
  ),
  UNIQUE_ID: plain(uuid),
  TRACE_ID: plain((s) => nonEmpty(s.traceId)),
  SPAN_ID: plain((s) => nonEmpty(s.spanId)),
  REQUESTED_SERVER_NAME: serverName,
  TLS_JA3_FINGERPRINT: plain((s) => nonEmpty(s.downstream?.ja3Fingerprint ?? "")),
  TLS_JA4_FINGERPRINT: plain((s) => nonEmpty(s.downstream?.ja4Fingerprint ?? "")),
  DYNAMIC_METADATA: METADATA.DYNAMIC!,
  CLUSTER_METADATA: METADATA.CLUSTER!,
  UPSTREAM_METADATA: METADATA.UPSTREAM_HOST!,
  METADATA: anyMetadata,
  FILTER_STATE: filterState,
  // The older name, of text alone.
  PER_REQUEST_STATE: (parameter, length, text) => filterState(`${parameter}:PLAIN`, length, text),
  GRPC_STATUS: grpc,
  GRPC_STATUS_NUMBER: (parameter, length, text) => {
    if (parameter !== undefined) throw new TypeError("takes no parameter");
    return grpc("NUMBER", length, text);
  },
  // Envoy prints an empty value here, not a missing one, for an answer that was not its own.
  LOCAL_REPLY_BODY: (_parameter, length, text) => (s) =>
    cut(text.write(s.localReplyBody ?? ""), length),
  // A value of a header is not part of a log's line.
  ACCESS_LOG_TYPE: (parameter, length, text) =>
    plain(text.header === true ? () => "NotSet" : logTypeOf)(parameter, length, text),
  HOSTNAME: plain(() => nonEmpty(surroundings.hostname)),
  ENVIRONMENT: environment,
  COALESCE: coalesce,
  CEL: expression(false),
  TYPED_CEL: expression(true),
};

/** Commands of Envoy's whose data nothing here collects. */
export const UNSUPPORTED = new RegExp(
  "^(?:UPSTREAM_FILTER_STATE|" +
    "DOWNSTREAM_CX_RTT|DOWNSTREAM_HANDSHAKE_DURATION|ROUTE_RESOLUTION_COUNT|ROUTE_RESOLUTION_TIME_US|" +
    "DYNAMIC_MODULE|" +
    "(?:UPSTREAM|DOWNSTREAM)_PEER_(?:CHAIN|ISSUER)_\\w+)$",
);

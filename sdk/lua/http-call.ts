import { latin1Decode, latin1Encode } from "../bytes.ts";
import type { SetupContext } from "../extension.ts";
import type { FetchError, FetchInit, FetchResponse } from "../fetch.ts";
import { type Args, integerArgument, tableArgument, textArgument } from "./arguments.ts";
import { argumentError, LateError, LuaError, libraryError } from "./error.ts";
import { numberText } from "./number.ts";
import { toNumber, truth, typeOf } from "./runtime.ts";
import { LuaTable } from "./table.ts";

/** The checked arguments of one `httpCall`. */
export interface HttpCall {
  readonly cluster: string;
  readonly path: string;
  readonly init: FetchInit & { readonly headers: readonly (readonly [string, string])[] };
  readonly options: Options;
}

const OPTIONS = "asynchronous timeout_ms trace_sampled return_duplicate_headers send_xff".split(
  " ",
);
/** The longest timeout that core allows a fetch. */
const TIMEOUT_MAX_MS = 600_000;

/** Reads the arguments of `httpCall`; throws LuaError if they are wrong. */
export function readCall(args: Args): HttpCall {
  const options = optionsOf(args);
  const cluster = textArgument(args, 1, "httpCall");
  const headers = headersFromTable(tableArgument(args, 2, "httpCall"), "httpCall", args);
  const body = args[2] === undefined ? undefined : textArgument(args, 3, "httpCall");
  const { timeoutMs } = options;
  const pseudo = new Map(headers.filter(([name]) => name.startsWith(":")));
  const method = pseudo.get(":method");
  const path = pseudo.get(":path");
  const authority = pseudo.get(":authority");
  if (method === undefined || path === undefined || authority === undefined)
    throw libraryError("http call headers must include ':path', ':method', and ':authority'");
  const lines = headers.filter(([name]) => !name.startsWith(":") && name !== "host");
  return {
    cluster,
    path,
    options,
    init: {
      method,
      headers: [["host", authority], ...lines],
      ...(body !== undefined && { body: latin1Encode(body) }),
      timeoutMs: timeoutMs === 0 ? TIMEOUT_MAX_MS : timeoutMs,
    },
  };
}

interface Options {
  /** 0: none, so that TIMEOUT_MAX_MS applies. */
  timeoutMs: number;
  asynchronous: boolean;
  keepsDuplicates: boolean;
  sendsXff: boolean;
}

/** Reads the timeout from the table of options; `k`: where Envoy has it among the arguments, for messages. */
function timeoutOf(value: unknown, k: number): number {
  const number = toNumber(value);
  if (number === undefined)
    throw argumentError(k, "httpCall", `number expected, got ${typeOf(value)}`);
  return number | 0;
}

/**
 * Reads the arguments from the fourth on: `timeout_ms, asynchronous`, or a table of options. As in Envoy the timeout is a signed
 * 32-bit integer, to which greater numbers wrap around.
 */
function optionsOf(args: Args): Options {
  const [, , , fourth] = args;
  const options: Options = {
    timeoutMs: 0,
    asynchronous: false,
    keepsDuplicates: false,
    sendsXff: true,
  };
  if (!(fourth instanceof LuaTable)) {
    options.timeoutMs = integerArgument(args, 4, "httpCall") | 0;
    const flag = args[4];
    if (flag !== undefined && typeof flag !== "boolean")
      throw libraryError("http call asynchronous flag must be 'true', 'false', or empty");
    options.asynchronous = flag === true;
  } else {
    for (let at = fourth.entryFrom(0); at >= 0; at = fourth.entryFrom(at + 1)) {
      const key = fourth.keyAt(at);
      const value = fourth.valueAt(at);
      if (typeof key !== "string" || !OPTIONS.includes(key))
        throw libraryError(`"${String(key)}" is not valid key for httpCall() options`);
      if (key === "timeout_ms") options.timeoutMs = timeoutOf(value, args.length + 3);
      else if (key === "asynchronous") options.asynchronous = truth(value);
      else if (key === "return_duplicate_headers") options.keepsDuplicates = truth(value);
      else if (key === "send_xff") options.sendsXff = truth(value);
    }
  }
  if (options.timeoutMs < 0) throw libraryError("http call timeout must be >= 0");
  return options;
}

/** Why there is no response, in the words of Envoy's router; keys are the reasons of FetchError. */
const REASONS: Readonly<Record<string, string>> = {
  connection_failed: "remote connection failure",
  connection_timeout: "connection timeout",
  overflow: "overflow",
  remote: "remote reset",
  refused: "remote refused stream reset",
  local: "local reset",
  protocol_error: "protocol error",
};

/**
 * Makes the call. Resolves with headers and body, or those of Envoy's 503 or 504 if it fails. Rejects for an unknown cluster.
 * `onBegun` is called when the request was passed to the cluster; it may never be called if the call fails.
 */
export function carryOut(
  cx: SetupContext,
  { cluster, path, init, options }: HttpCall,
  onBegun?: () => void,
): Promise<Answer> {
  const headers = [...init.headers, ...ownHeaders(cx, options)];
  const request = { ...init, headers, ...(onBegun && { onBegun }) };
  return answerOf(cx.fetch(`${cluster}:${path}`, request), options.keepsDuplicates);
}

/** Makes a call whose answer is not awaited. Resolves once the cluster has the request, or it failed; rejects as `carryOut`. */
export function sendOff(cx: SetupContext, call: HttpCall): Promise<undefined> {
  return new Promise((resolve, reject) => {
    const left = (): void => resolve(undefined);
    carryOut(cx, call, left).then(left, reject);
  });
}

/** The headers that Envoy adds to requests of its own. */
function ownHeaders(cx: SetupContext, { timeoutMs, sendsXff }: Options): [string, string][] {
  const lines: [string, string][] = [["x-envoy-internal", "true"]];
  if (sendsXff) lines.push(["x-forwarded-for", cx.node.address ?? "127.0.0.1"]);
  if (timeoutMs > 0) lines.push(["x-envoy-expected-rq-timeout-ms", String(timeoutMs)]);
  return lines;
}

type Answer = readonly [LuaTable, string | undefined];

/** Waits for the response. Has no reference to the request, so that thousands of waiting calls keep none in memory. */
async function answerOf(
  pending: Promise<FetchResponse>,
  keepsDuplicates: boolean,
): Promise<Answer> {
  try {
    const response = await pending;
    const bytes = await response.bytes();
    const lines = [...response.headers];
    return [
      headersTable(response.status, lines, keepsDuplicates),
      bytes.length === 0 ? undefined : latin1Decode(bytes, 0, bytes.length),
    ];
  } catch (error) {
    const { reason = "local", message } = error as Partial<FetchError>;
    if (reason === "no_cluster")
      throw new LateError("http call cluster invalid. Must be configured");
    if (reason === "timeout") return local(504, "upstream request timeout");
    if (reason === "no_host") return local(503, "no healthy upstream");
    if (reason === "too_large") return local(503, `httpCall: ${message}`);
    return local(
      503,
      `upstream connect error or disconnect/reset before headers. reset reason: ${REASONS[reason] ?? "connection termination"}`,
    );
  }
}

/** A local reply, as Envoy makes it for a call without a response. */
function local(status: number, body: string): readonly [LuaTable, string] {
  const lines: [string, string][] = [
    ["content-length", String(body.length)],
    ["content-type", "text/plain"],
  ];
  return [headersTable(status, lines, false), body];
}

/** The response headers as a table. Of a header with several lines it has the last value, or with `keepsDuplicates` a list. */
function headersTable(
  status: number,
  lines: readonly (readonly [string, string])[],
  keepsDuplicates: boolean,
): LuaTable {
  const table = new LuaTable();
  table.set(":status", String(status));
  for (const [name, value] of lines) {
    const before = table.get(name);
    if (!keepsDuplicates || before === undefined) table.set(name, value);
    else if (before instanceof LuaTable) before.set(before.length + 1, value);
    else {
      const list = new LuaTable();
      list.set(1, before);
      list.set(2, value);
      table.set(name, list);
    }
  }
  return table;
}

/** A token in lower case (RFC 9110 §5.6.2), or the name of a pseudo header. */
const TOKEN = /^:?[!#$%&'*+.^_`|~0-9a-z-]+$/;

/**
 * Reads headers from a table such as `{ [":status"] = "200", name = { "a", "b" } }`. Throws LuaError for invalid ones; Envoy's
 * message counts key and value as if they followed `args`, the arguments of the method `of`.
 */
export function headersFromTable(table: LuaTable, of: string, args: Args): [string, string][] {
  const found: [string, string][] = [];
  const textIn = (value: unknown, place: number): string => {
    if (typeof value === "number") return numberText(value);
    if (typeof value === "string") return value;
    throw argumentError(args.length + place, of, `string expected, got ${typeOf(value)}`);
  };
  const add = (name: string, value: unknown): void => {
    if (!TOKEN.test(name)) throw libraryError(`invalid header name '${name}'`);
    const text = textIn(value, 3);
    for (let k = 0; k < text.length; k++) {
      const code = text.charCodeAt(k);
      if ((code < 32 && code !== 9) || code === 127) throw libraryError("invalid header value");
    }
    found.push([name, text]);
  };
  for (let at = table.entryFrom(0); at >= 0; at = table.entryFrom(at + 1)) {
    const key = table.keyAt(at);
    // Envoy converts a numeric key to a text in place, whereupon its traversal fails with this message.
    if (typeof key === "number") throw new LuaError("invalid key to 'next'");
    const name = textIn(key, 2).toLowerCase();
    const value = table.valueAt(at);
    if (typeof value === "object" && value !== null && "array" in value)
      for (const item of (value as LuaTable).array) add(name, item);
    else add(name, value);
  }
  return found;
}

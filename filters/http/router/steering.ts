import { type HeaderName, headerName, type RequestHeaders } from "@tsproxy/sdk";
import { grpcConditions, httpConditions } from "./retry-conditions.ts";

const TIMEOUT = headerName("x-envoy-upstream-rq-timeout-ms");
const PER_TRY_TIMEOUT = headerName("x-envoy-upstream-rq-per-try-timeout-ms");
const STREAM_DURATION = headerName("x-envoy-upstream-stream-duration-ms");
const ALT_RESPONSE = headerName("x-envoy-upstream-rq-timeout-alt-response");
const HEDGE = headerName("x-envoy-hedge-on-per-try-timeout");
const MAX_RETRIES = headerName("x-envoy-max-retries");
const RETRY_ON = headerName("x-envoy-retry-on");
const RETRY_GRPC_ON = headerName("x-envoy-retry-grpc-on");
const STATUS_CODES = headerName("x-envoy-retriable-status-codes");
const HEADER_NAMES = headerName("x-envoy-retriable-header-names");
const ALT_STAT_NAME = headerName("x-envoy-upstream-alt-stat-name");
const EXPECTED_TIMEOUT = headerName("x-envoy-expected-rq-timeout-ms");

/** Request headers that steer this proxy, and are not passed on. */
const STEERING: readonly HeaderName[] = [
  TIMEOUT,
  PER_TRY_TIMEOUT,
  STREAM_DURATION,
  ALT_RESPONSE,
  HEDGE,
  MAX_RETRIES,
  RETRY_ON,
  RETRY_GRPC_ON,
  STATUS_CODES,
  HEADER_NAMES,
  ALT_STAT_NAME,
];
const NAMES: ReadonlySet<string> = new Set(STEERING.map((name) => name.text));
/** Limit of entries in a list of status codes or header names; further ones are ignored. */
const LISTED = 64;

/** What the steering headers of a request say. Undefined: the header is absent or not valid. */
export interface Steering {
  readonly timeoutMs: number | undefined;
  readonly expectedTimeoutMs: number | undefined;
  readonly perTryTimeoutMs: number | undefined;
  readonly streamDurationMs: number | undefined;
  /** A timeout is answered with 204 instead of 504. */
  readonly quietTimeout: boolean;
  readonly hedge: boolean | undefined;
  /** Bits of retry conditions (`retry-conditions.ts`). */
  readonly retryOn: number | undefined;
  readonly maxRetries: number | undefined;
  readonly statusCodes: readonly number[];
  readonly headerNames: readonly HeaderName[];
  readonly altStatName: string | undefined;
}

/** Whether a filter has added a steering header. The connection manager has removed those of external clients already. */
export function isSteeredByFilter(headers: RequestHeaders): boolean {
  const { added } = headers;
  for (let k = 0; k < added.length; k += 2) if (NAMES.has(added[k]!)) return true;
  return false;
}

/**
 * Takes the steering headers of an internal client or of a filter off the head. `respectExpected`: if a proxy before this one has
 * set `x-envoy-expected-rq-timeout-ms`, then `x-envoy-upstream-rq-timeout-ms` stays, for a proxy behind this one.
 */
export function takeSteering(headers: RequestHeaders, respectExpected: boolean): Steering {
  const keepsTimeout = respectExpected && headers.has(EXPECTED_TIMEOUT);
  const retryOn = textOf(headers, RETRY_ON);
  const retryGrpcOn = textOf(headers, RETRY_GRPC_ON);
  const hedge = textOf(headers, HEDGE);
  const steering: Steering = {
    timeoutMs: keepsTimeout ? undefined : whole(textOf(headers, TIMEOUT)),
    expectedTimeoutMs: whole(textOf(headers, EXPECTED_TIMEOUT)),
    perTryTimeoutMs: whole(textOf(headers, PER_TRY_TIMEOUT)),
    streamDurationMs: whole(textOf(headers, STREAM_DURATION)),
    quietTimeout: headers.has(ALT_RESPONSE),
    hedge: hedge === "true" ? true : hedge === "false" ? false : undefined,
    retryOn:
      retryOn === undefined && retryGrpcOn === undefined
        ? undefined
        : httpConditions(retryOn ?? "").bits | grpcConditions(retryGrpcOn ?? "").bits,
    maxRetries: whole(textOf(headers, MAX_RETRIES)),
    statusCodes: listed(textOf(headers, STATUS_CODES)).flatMap((text) => whole(text) ?? []),
    headerNames: listed(textOf(headers, HEADER_NAMES)).flatMap(nameOrNone),
    altStatName: textOf(headers, ALT_STAT_NAME),
  };
  for (const name of STEERING) if (name !== TIMEOUT || !keepsTimeout) headers.remove(name);
  return steering;
}

/** Envoy keeps each of these headers on one line: further values go behind the first with a comma. */
function textOf(headers: RequestHeaders, name: HeaderName): string | undefined {
  const values = headers.getAll(name);
  return values.length === 0 ? undefined : values.join(",");
}

function listed(text: string | undefined): string[] {
  if (text === undefined) return [];
  return text.split(",", LISTED).map((part) => part.trim());
}

/** A number of 1 to 15 decimal digits; undefined: the text is none. Timers and counts need no more digits. */
function whole(text: string | undefined): number | undefined {
  return text !== undefined && /^ *[0-9]{1,15} *$/.test(text) ? Number(text) : undefined;
}

function nameOrNone(text: string): HeaderName[] {
  try {
    return [headerName(text)];
  } catch {
    return [];
  }
}

/** Headers that `strict_check_headers` may name, and whether a value of theirs is valid. */
const STRICT: Readonly<Record<string, (text: string) => boolean>> = {
  [TIMEOUT.text]: (text) => whole(text) !== undefined,
  [PER_TRY_TIMEOUT.text]: (text) => whole(text) !== undefined,
  [MAX_RETRIES.text]: (text) => whole(text) !== undefined,
  [RETRY_ON.text]: (text) => httpConditions(text).valid,
  [RETRY_GRPC_ON.text]: (text) => grpcConditions(text).valid,
};
export const STRICT_NAMES = Object.keys(STRICT);

/** The first of the named headers with an invalid value; undefined: none. */
export function badSteering(
  headers: RequestHeaders,
  names: readonly string[],
): { readonly name: string; readonly value: string } | undefined {
  for (const name of names) {
    const value = headers.get(name);
    if (value !== undefined && !STRICT[name]!(value)) return { name, value };
  }
  return undefined;
}

import type { ResponseHeaders, RetryPolicy } from "@tsproxy/sdk";
import { headerName } from "@tsproxy/sdk";
import { FAILURE, type UpstreamFailure } from "./upstream-failure.ts";

/** Conditions of `retry_on` and `x-envoy-retry-on`, as bits. */
const HTTP: Readonly<Record<string, number>> = {
  "5xx": 1 << 0,
  "gateway-error": 1 << 1,
  "connect-failure": 1 << 2,
  "retriable-4xx": 1 << 3,
  "refused-stream": 1 << 4,
  "retriable-status-codes": 1 << 5,
  "retriable-headers": 1 << 6,
  "envoy-ratelimited": 1 << 7,
  reset: 1 << 8,
  "reset-before-request": 1 << 9,
  /** Never true: no upstream speaks HTTP/3 here. */
  "http3-post-connect-failure": 1 << 10,
};
/** Conditions of `retry_on` and `x-envoy-retry-grpc-on`; the bit of a gRPC status is 1 << (11 + status). */
const GRPC_SHIFT = 11;
const GRPC: Readonly<Record<string, number>> = {
  cancelled: 1 << (GRPC_SHIFT + 1),
  "deadline-exceeded": 1 << (GRPC_SHIFT + 4),
  "resource-exhausted": 1 << (GRPC_SHIFT + 8),
  internal: 1 << (GRPC_SHIFT + 13),
  unavailable: 1 << (GRPC_SHIFT + 14),
};
const ANY_GRPC = Object.values(GRPC).reduce((all, bit) => all | bit, 0);

const RATE_LIMITED = headerName("x-envoy-ratelimited");
const GRPC_STATUS = headerName("grpc-status");

export interface Conditions {
  readonly bits: number;
  /** Every word names a condition. */
  readonly valid: boolean;
}

export const httpConditions = (text: string): Conditions => parse(text, HTTP);
export const grpcConditions = (text: string): Conditions => parse(text, GRPC);

/** The bits of a policy's `retry_on`, which may mix both kinds of conditions. Unknown words are ignored. */
export function policyConditions(policy: RetryPolicy): number {
  let bits = 0;
  for (const word of policy.on) bits |= bitOf(HTTP, word) | bitOf(GRPC, word);
  return bits;
}

function parse(text: string, words: Readonly<Record<string, number>>): Conditions {
  let bits = 0;
  let valid = true;
  for (const part of text.split(",")) {
    const word = part.trim();
    // As in Envoy, nothing between two commas is no word, so an empty header names no unknown condition.
    if (word === "") continue;
    const bit = bitOf(words, word);
    if (bit === 0) valid = false;
    bits |= bit;
  }
  return { bits, valid };
}

function bitOf(words: Readonly<Record<string, number>>, word: string): number {
  return Object.hasOwn(words, word) ? words[word]! : 0;
}

/** What a response is compared with if the conditions `retriable-status-codes` and `retriable-headers` are on. */
export interface Retriable {
  readonly statusCodes: readonly number[];
  headers(headers: ResponseHeaders): boolean;
}

/** Whether a response is to be retried, by its head. */
export function retriesHead(bits: number, headers: ResponseHeaders, also: Retriable): boolean {
  const { status } = headers;
  // Another proxy has limited the rate: only `envoy-ratelimited` asks for a retry then.
  if (headers.has(RATE_LIMITED)) return (bits & HTTP["envoy-ratelimited"]!) !== 0;
  if (status >= 500 && status < 600) {
    if ((bits & HTTP["5xx"]!) !== 0) return true;
    const gateway = status >= 502 && status <= 504;
    if (gateway && (bits & HTTP["gateway-error"]!) !== 0) return true;
  }
  if (status === 409 && (bits & HTTP["retriable-4xx"]!) !== 0) return true;
  if ((bits & HTTP["retriable-status-codes"]!) !== 0 && also.statusCodes.includes(status)) {
    return true;
  }
  if ((bits & HTTP["retriable-headers"]!) !== 0 && also.headers(headers)) return true;
  if ((bits & ANY_GRPC) === 0) return false;
  const text = headers.get(GRPC_STATUS);
  if (text === undefined || !/^[0-9]{1,2}$/.test(text)) return false;
  const grpc = Number(text);
  return grpc <= 16 && (bits & ANY_GRPC & (1 << (GRPC_SHIFT + grpc))) !== 0;
}

/** Whether a failed attempt is to be retried. `sent`: some attempt of this request has reached an upstream. */
export function retriesFailure(bits: number, failure: UpstreamFailure, sent: boolean): boolean {
  if (failure === FAILURE.overflow) return false;
  if ((bits & (HTTP["5xx"]! | HTTP["gateway-error"]! | HTTP.reset!)) !== 0) return true;
  if (!sent && (bits & HTTP["reset-before-request"]!) !== 0) return true;
  if (failure === FAILURE.remoteRefused) return (bits & HTTP["refused-stream"]!) !== 0;
  const connecting = failure === FAILURE.connectionFailed || failure === FAILURE.connectionTimeout;
  return connecting && (bits & HTTP["connect-failure"]!) !== 0;
}

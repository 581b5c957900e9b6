import { type FetchContext, FetchError, fetchFrom, latin1Decode, latin1Encode } from "@tsproxy/sdk";
import type { FetchAnswer, FetchCall } from "./sandbox/fetches.ts";

const TIMEOUT_MAX_MS = 600_000;
const BYTES_MAX = 4 * 1024 * 1024;

/** Carries out what a sandbox has asked for; nothing of the call is believed. JSON of a FetchAnswer. */
export async function answerFetch(cx: FetchContext, text: string): Promise<string> {
  const { call, target, method, headers, body, timeoutMs, maxBytes } = JSON.parse(
    text,
  ) as Partial<FetchCall>;
  try {
    const response = await fetchFrom(cx, String(target), {
      method: String(method),
      headers: Array.isArray(headers) ? headers.map(([n, v]) => [String(n), String(v)]) : [],
      ...(typeof body === "string" && { body: latin1Encode(body) }),
      timeoutMs: clamp(timeoutMs, TIMEOUT_MAX_MS),
      maxBytes: clamp(maxBytes ?? 1024 * 1024, BYTES_MAX),
    });
    const bytes = await response.bytes();
    return encode({
      call: Number(call),
      status: response.status,
      headers: [...response.headers],
      body: latin1Decode(bytes, 0, bytes.length),
    });
  } catch (error) {
    const isKnown = error instanceof FetchError;
    return encode({
      call: Number(call),
      reason: isKnown ? error.reason : "malformed",
      message: String((error as Error).message),
    });
  }
}

function clamp(value: unknown, max: number): number {
  return typeof value === "number" && value >= 0 ? Math.min(value, max) : max;
}

function encode(answer: FetchAnswer): string {
  return JSON.stringify(answer);
}

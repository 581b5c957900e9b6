import type {
  Chunk,
  HeaderMap,
  HookResult,
  HttpFilter,
  RequestHeaders,
  ResponseHeaders,
} from "@tsproxy/sdk";
import { HOOK, KIND } from "./sandbox/layout.ts";

/** What the hooks of a parked http filter do: park the head or the chunk with the KIND of its record and the bit of its HOOK. */
export interface HookedHttp {
  head(kind: number, bit: number, map: HeaderMap, endStream: boolean): HookResult;
  body(kind: number, bit: number, chunk: Chunk, endStream: boolean): HookResult;
}

/** The hooks; each is put on the prototype of stubs whose package has it. */
export const METHODS: readonly (readonly [bit: number, name: keyof HttpFilter, method: unknown])[] =
  [
    [
      HOOK.REQUEST_HEADERS,
      "onRequestHeaders",
      function (this: HookedHttp, headers: RequestHeaders, endStream: boolean): HookResult {
        return this.head(KIND.REQUEST_HEADERS, HOOK.REQUEST_HEADERS, headers, endStream);
      },
    ],
    [
      HOOK.REQUEST_BODY,
      "onRequestBody",
      function (this: HookedHttp, chunk: Chunk, endStream: boolean): HookResult {
        return this.body(KIND.REQUEST_BODY, HOOK.REQUEST_BODY, chunk, endStream);
      },
    ],
    [
      HOOK.REQUEST_TRAILERS,
      "onRequestTrailers",
      function (this: HookedHttp, trailers: HeaderMap): HookResult {
        return this.head(KIND.REQUEST_TRAILERS, HOOK.REQUEST_TRAILERS, trailers, true);
      },
    ],
    [
      HOOK.RESPONSE_HEADERS,
      "onResponseHeaders",
      function (this: HookedHttp, headers: ResponseHeaders, endStream: boolean): HookResult {
        return this.head(KIND.RESPONSE_HEADERS, HOOK.RESPONSE_HEADERS, headers, endStream);
      },
    ],
    [
      HOOK.RESPONSE_BODY,
      "onResponseBody",
      function (this: HookedHttp, chunk: Chunk, endStream: boolean): HookResult {
        return this.body(KIND.RESPONSE_BODY, HOOK.RESPONSE_BODY, chunk, endStream);
      },
    ],
    [
      HOOK.RESPONSE_TRAILERS,
      "onResponseTrailers",
      function (this: HookedHttp, trailers: HeaderMap): HookResult {
        return this.head(KIND.RESPONSE_TRAILERS, HOOK.RESPONSE_TRAILERS, trailers, true);
      },
    ],
  ];

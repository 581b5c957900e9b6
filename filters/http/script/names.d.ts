// What scripts find beside the language: `tsproxy filter check` holds them to it. Declared for the whole program that they are checked in.
import type {
  BucketRate,
  FetchInit,
  FetchResponse,
  HttpStream,
  Log,
  Reply,
  SharedCounter,
  Stats,
  TokenBucket,
  TokenBuckets,
  TokenBucketsOptions,
  TtlMap,
  TtlMapOptions,
  Verdict,
} from "@tsproxy/sdk";
import type { ScriptRequest, ScriptResponse } from "./message.ts";

declare global {
  // biome-ignore lint/suspicious/noExplicitAny: what the user's config gives is the user's to know.
  const config: Readonly<Record<string, any>>;
  const log: Log;
  const stats: Stats;
  function reply(status: number, options?: Partial<Omit<Reply, "type" | "status">>): Reply;
  function fetch(target: string, init?: FetchInit): Promise<FetchResponse>;
  const shared: {
    counter(name: string): SharedCounter;
    tokenBucket(name: string, rate: BucketRate): TokenBucket;
    tokenBuckets(name: string, options: TokenBucketsOptions): TokenBuckets;
    map(name: string, options: TtlMapOptions): TtlMap;
  };
  /** The functions that a script may define; their parameters need no types in the script. */
  interface ScriptHooks {
    onRequest(req: ScriptRequest, stream: HttpStream): Verdict | PromiseLike<Verdict>;
    onResponse(
      res: ScriptResponse,
      req: ScriptRequest,
      stream: HttpStream,
    ): Verdict | PromiseLike<Verdict>;
  }
}

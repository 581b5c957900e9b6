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

type Answer = Verdict | PromiseLike<Verdict>;

/** What scripts find beside the language; `tsproxy filter check` reads these names, one a line, and holds scripts to them. */
export interface ScriptNames {
  // biome-ignore lint/suspicious/noExplicitAny: what the user's config gives is the user's to know.
  readonly config: Readonly<Record<string, any>>;
  readonly log: Log;
  readonly stats: Stats;
  readonly reply: (status: number, options?: Partial<Omit<Reply, "type" | "status">>) => Reply;
  readonly fetch: (target: string, init?: FetchInit) => Promise<FetchResponse>;
  readonly shared: {
    counter(name: string): SharedCounter;
    tokenBucket(name: string, rate: BucketRate): TokenBucket;
    tokenBuckets(name: string, options: TokenBucketsOptions): TokenBuckets;
    map(name: string, options: TtlMapOptions): TtlMap;
  };
}

/** The functions that a script may define. */
export interface ScriptHooks {
  onRequest(req: ScriptRequest, stream: HttpStream): Answer;
  onResponse(res: ScriptResponse, req: ScriptRequest, stream: HttpStream): Answer;
}

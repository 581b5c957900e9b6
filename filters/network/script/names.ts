import type {
  BucketRate,
  CloseEvent,
  FetchInit,
  FetchResponse,
  Log,
  SharedCounter,
  Stats,
  TokenBucket,
  TokenBuckets,
  TokenBucketsOptions,
  TtlMap,
  TtlMapOptions,
} from "@tsproxy/sdk";
import type { ScriptConnection, ScriptData } from "./connection.ts";

type Answer = void | PromiseLike<void>;

/** What scripts find beside the language; `tsproxy filter check` reads these names, one a line, and holds scripts to them. */
export interface ScriptNames {
  // biome-ignore lint/suspicious/noExplicitAny: what the user's config gives is the user's to know.
  readonly config: Readonly<Record<string, any>>;
  readonly log: Log;
  readonly stats: Stats;
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
  onConnect(conn: ScriptConnection): Answer;
  onData(data: ScriptData, conn: ScriptConnection, end: boolean): Answer;
  onWrite(data: ScriptData, conn: ScriptConnection, end: boolean): Answer;
  onClose(conn: ScriptConnection, event: CloseEvent): Answer;
}

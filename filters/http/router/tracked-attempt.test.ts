import {
  type Cluster,
  FLAG,
  headerName,
  latin1Encode,
  NAME_ID,
  RequestHeaders,
  ResponseHeaders,
} from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import { TrackedAttempt } from "./tracked-attempt.ts";

it("counts the headers of the connection, which the codec has removed, in a response's head", () => {
  const cx = new TestContext();
  const cluster = { stats: cx.stats.scope("cluster.c.") } as Partial<Cluster> as Cluster;
  const head = new ResponseHeaders();
  const line = "connection: keep-alive";
  head.memory = latin1Encode(line);
  const { hash } = headerName("connection");
  head.addSpan(0, 10, 12, line.length, hash, NAME_ID.CONNECTION | FLAG.REMOVED);
  const tracks = { timeoutBudgets: false, requestResponseSizes: true };
  const begun = { startedAt: 0, perTryMs: 0 };
  const attempt = new TrackedAttempt(cluster, tracks, new RequestHeaders(), begun);
  attempt.onHead(head);
  attempt.end(1);
  const recorded = (what: string) => cx.stats.recorded.get(`cluster.c.upstream_rs_headers_${what}`);
  // `:status: 200` and `connection: keep-alive`.
  expect([recorded("size"), recorded("count")]).toEqual([[30], [2]]);
});

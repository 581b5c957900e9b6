import { describe, expect, it } from "vitest";
import { latin1Decode, latin1Encode } from "./bytes.ts";
import { type GrpcError, type GrpcMethod, type GrpcOptions, grpcCall, grpcStream } from "./grpc.ts";
import { HeaderMap } from "./headers.ts";
import { chunkings } from "./testing/chunkings.ts";
import { TestCluster } from "./testing/cluster.ts";
import { TestContext } from "./testing/context.ts";

const METHOD: GrpcMethod<string, string> = {
  path: "/echo.Echo/Say",
  encode: latin1Encode,
  decode: (bytes) => {
    const text = latin1Decode(bytes, 0, bytes.length);
    if (text === "bad") throw new Error("no such message");
    return text;
  },
};
const frame = (text: string, flag = 0) =>
  `${String.fromCharCode(flag, 0, 0, text.length >> 8, text.length & 255)}${text}`;
const GRPC = { "content-type": "application/grpc" };

function harness() {
  const cx = new TestContext();
  const up = new TestCluster("up", cx.stats);
  cx.clusterMap.set("up", up);
  return { cx, up };
}
function trailers(...lines: string[]) {
  const map = new HeaderMap();
  for (let k = 0; k < lines.length; k += 2) map.append(lines[k]!, lines[k + 1]!);
  return map;
}
/** A call, and what became of it. */
function call(options: GrpcOptions = {}, cluster = "up") {
  const { cx, up } = harness();
  const { answer, cancel } = grpcCall(cx, cluster, METHOD, "hi", options);
  const outcome = answer.then(
    (message) => message,
    ({ code, message }: GrpcError) => `${code} ${message}`,
  );
  return { cx, up, cancel, outcome };
}

describe("a call", () => {
  it("is one message there, one back, with the head that Envoy's clients send", async () => {
    const { up, cx, outcome } = call({ timeoutMs: 1500, metadata: [["x-a", "b"]] });
    const { last } = up;
    expect([last.method, last.path, last.body, last.ended]).toEqual([
      "POST",
      "/echo.Echo/Say",
      frame("hi"),
      true,
    ]);
    expect(last.headers).toEqual([
      ["host", "up"],
      ["te", "trailers"],
      ["grpc-timeout", "1500m"],
      ["content-type", "application/grpc"],
      ["x-a", "b"],
    ]);
    last.respond(200, GRPC);
    last.send(frame("hello"), false);
    last.endWithTrailers(trailers("grpc-status", "0"));
    expect(await outcome).toBe("hello");
    expect(cx.clock.armed).toBe(0);
  });

  it("asks a cluster whose name is beyond Latin-1, with its UTF-8 bytes as the host", () => {
    const { cx, up } = harness();
    cx.clusterMap.set("кластер", up);
    grpcCall(cx, "кластер", METHOD, "hi", {}).answer.catch(() => {});
    expect(up.last.headers[0]).toEqual(["host", Buffer.from("кластер").toString("latin1")]);
  });

  it("reads its answer however it is cut", async () => {
    for (const pieces of chunkings(frame("hello"))) {
      const { up, outcome } = call();
      up.last.respond(200, GRPC);
      for (const piece of pieces) up.last.send(piece, false);
      up.last.endWithTrailers(trailers("grpc-status", "0"));
      expect(await outcome).toBe("hello");
    }
  });

  it("fails with the server's status, which may be all that it answers", async () => {
    const refused = call();
    refused.up.last.respond(200, { ...GRPC, "grpc-status": "7", "grpc-message": "n%C3%B6%zz" }, "");
    expect(await refused.outcome).toBe("7 nö%zz");
    const late = call();
    late.up.last.respond(200, GRPC);
    late.up.last.send(frame("hello"), false);
    late.up.last.endWithTrailers(trailers("grpc-status", "5"));
    expect(await late.outcome).toBe("5 NOT_FOUND");
  });

  it("fails with what an answer that is no gRPC stands for", async () => {
    for (const [status, headers, outcome] of [
      [503, {}, "14 the answer has the HTTP status 503"],
      [404, GRPC, "12 the answer has the HTTP status 404"],
      [200, { "content-type": "text/html" }, "2 the answer is no gRPC"],
    ] as const) {
      const asked = call();
      asked.up.last.respond(status, headers);
      expect(await asked.outcome).toBe(outcome);
      expect(asked.up.last.wasReset).toBe(true);
    }
  });

  it("fails when there are fewer or more messages, or other ones, than there may be", async () => {
    const answered = async (body: string, ...status: string[]) => {
      const asked = call({ maxMessageBytes: 10 });
      asked.up.last.respond(200, GRPC);
      asked.up.last.send(body, false);
      asked.up.last.endWithTrailers(trailers(...status));
      return asked.outcome;
    };
    const ok = ["grpc-status", "0"];
    expect(await answered("", ...ok)).toMatch(/^12 .*no message/);
    expect(await answered(frame("a") + frame("b"), ...ok)).toMatch(/^12 .*more than one/);
    expect(await answered(frame("bad"), ...ok)).toMatch(/^13 .*no such message/);
    expect(await answered(frame("a", 1), ...ok)).toMatch(/^13 .*flag 1/);
    expect(await answered(frame("a".repeat(11)), ...ok)).toMatch(/^8 .*11 bytes, where 10/);
    expect(await answered(frame("ab").slice(0, 6), ...ok)).toMatch(/^13 .*mid-message/);
    expect(await answered(frame("a"))).toMatch(/^2 /);
    expect(await answered(frame("a"), "grpc-status", "x")).toMatch(/^2 /);
  });

  it("fails when its time is over, and tells the server", async () => {
    const { cx, up, outcome } = call({ timeoutMs: 100 });
    cx.clock.advance(150);
    expect(await outcome).toBe("4 no status within 100 ms");
    expect(up.last.wasReset).toBe(true);
  });

  it("fails without a cluster, a connection, or half-way", async () => {
    const lost = call({}, "other");
    lost.cx.clock.advance(20);
    expect(await lost.outcome).toBe('14 no cluster "other"');
    const { cx, up } = harness();
    up.answer = { reason: "connection_failed", host: undefined, transportFailure: "refused" };
    const { answer } = grpcCall(cx, "up", METHOD, "hi");
    cx.clock.advance(20);
    await expect(answer).rejects.toMatchObject({ code: 14, message: "connection_failed: refused" });
    const cut = call();
    cut.up.last.break("remote");
    expect(await cut.outcome).toBe("13 the call was cut: remote");
    const refused = call();
    refused.up.last.break("refused");
    expect(await refused.outcome).toBe("14 the call was cut: refused");
  });

  it("can be cancelled, before and after there is a connection", async () => {
    const sent = call();
    sent.cancel();
    expect(await sent.outcome).toBe("1 cancelled");
    expect(sent.up.last.wasReset).toBe(true);
    const { cx, up } = harness();
    up.answer = "pending";
    const waiting = grpcCall(cx, "up", METHOD, "hi", { timeoutMs: 1000 });
    waiting.cancel();
    await expect(waiting.answer).rejects.toMatchObject({ code: 1 });
    expect([up.last.cancelled, cx.clock.armed]).toEqual([true, 0]);
  });
});

describe("a stream", () => {
  function open(pending = false) {
    const { cx, up } = harness();
    if (pending) up.answer = "pending";
    const heard: string[] = [];
    const stream = grpcStream(
      cx,
      "up",
      METHOD,
      {},
      {
        onMetadata: (headers) => heard.push(`head ${headers.get("x-a")}`),
        onMessage: (message) => heard.push(message),
        onEnd: ({ code, message, metadata }) =>
          heard.push(`end ${code} ${message} ${metadata?.get("x-t") ?? ""}`.trimEnd()),
        onBlocked: (blocked) => heard.push(blocked ? "blocked" : "free"),
      },
    );
    return { cx, up, heard, stream };
  }

  it("sends and hears as long as both ends like", () => {
    const { up, heard, stream } = open();
    stream.send("a");
    up.last.respond(200, { ...GRPC, "x-a": "1" });
    up.last.send(frame("A"), false);
    stream.send("b");
    stream.end();
    stream.send("c");
    expect([up.last.body, up.last.ended]).toEqual([frame("a") + frame("b"), true]);
    up.last.send(frame("B") + frame("C"), false);
    up.last.endWithTrailers(trailers("grpc-status", "0", "x-t", "2"));
    expect(heard).toEqual(["head 1", "A", "B", "C", "end 0  2"]);
  });

  it("keeps what is sent before there is a connection, and while the server is slow", () => {
    const { up, heard, stream } = open(true);
    stream.send("a");
    stream.pause(true);
    up.last.connect();
    expect([up.last.body, up.last.paused]).toEqual([frame("a"), true]);
    up.last.block(true);
    stream.send("b");
    stream.end();
    expect([up.last.body, up.last.ended]).toEqual([frame("a"), false]);
    up.last.block(false);
    expect([up.last.body, up.last.ended]).toEqual([frame("a") + frame("b"), true]);
    expect(heard).toEqual(["blocked", "free"]);
  });

  it("is cut off when its server takes nothing of what is sent", () => {
    const { cx, up, heard, stream } = open();
    up.last.block(true);
    for (let k = 0; k < 5; k++) stream.send("x".repeat(1024 * 1024));
    expect(heard).toEqual(["blocked"]);
    cx.clock.advance(20);
    expect(heard).toEqual(["blocked", "end 8 too much to send"]);
    expect(up.last.wasReset).toBe(true);
  });

  it("says nothing more once it is cancelled, and gives back what a server ends early", () => {
    const { up, heard, stream } = open();
    up.last.respond(200, GRPC);
    stream.cancel();
    expect(up.last.wasReset).toBe(true);
    expect(heard).toEqual(["head undefined"]);
    const early = open();
    early.up.last.respond(200, { ...GRPC, "grpc-status": "8" }, "");
    expect(early.up.last.wasReset).toBe(true);
    expect(early.heard).toEqual(["end 8"]);
  });
});

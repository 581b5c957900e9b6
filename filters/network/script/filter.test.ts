import { Chunk, latin1Decode, latin1Encode, type NetworkFilter } from "@tsproxy/sdk";
import { TestChain, TestConnection, TestContext } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import network from "./filter.ts";

const inline = (code: string) => ({
  inline: { code, file: "front.yaml", line: 2, indent: 0 },
  config: { word: "HELLO" },
});

function open(config: object) {
  const cx = new TestContext();
  const connection = new TestConnection();
  const factory = cx.setup(network, config);
  const filter: NetworkFilter = factory.create(connection, connection.chain);
  /** What later filters get. */
  const send = async (text: string, end = false) => {
    const lent = latin1Encode(`..${text}`);
    const chunk = new Chunk(lent, 2, lent.length);
    const result = filter.onData?.(chunk, end);
    if (result === undefined) return latin1Decode(chunk.memory, chunk.at, chunk.end);
    lent.fill(33);
    const bytes = (await (result as Promise<Uint8Array | undefined>))!;
    return latin1Decode(bytes, 0, bytes.length);
  };
  return { cx, connection, filter, send };
}

describe("a network script", () => {
  it("sees bytes, replaces them, and keeps what it needs for its connection", async () => {
    const { send } = open(
      inline(`
      function onData(data, conn, end) {
        conn.state.n = (conn.state.n ?? 0) + data.length;
        if (data.text() === config.word) data.replace("hi " + conn.state.n + end);
      }`),
    );
    expect([await send("abc"), await send("HELLO", true)]).toEqual(["abc", "hi 8true"]);
  });

  it("waits for its promise with bytes of its own", async () => {
    const { send } = open(
      inline(`
      async function onData(data) { await undefined; const text = data.text(); await undefined; data.replace(text + text); }`),
    );
    expect(await send("ab")).toBe("abab");
  });

  it("changes what goes to the client, and does not see what it sends itself", async () => {
    const cx = new TestContext();
    const connection = new TestConnection();
    const script = `
      function onData(data, conn) { conn.send("ok "); }
      async function onWrite(data, conn, end) {
        await undefined;
        if (data.text() === "secret") { conn.send("gone: "); data.replace("******"); }
        if (end) conn.send("bye");
      }`;
    const chain = new TestChain(cx, cx.setup(network, inline(script)), connection);
    await chain.fromServer("secret").fromClient("x").fromServer("", true).settled();
    expect([connection.written, connection.ended]).toEqual(["ok gone: ******bye", true]);
  });

  it("answers the client and closes", async () => {
    const { connection, filter } = open({
      onConnect: {
        code: 'conn.send("no\\n"); conn.close("reset");',
        file: "f",
        line: 1,
        indent: 0,
      },
      config: {},
    });
    filter.onConnect?.();
    expect([connection.written, connection.closed, filter.onData]).toEqual([
      "no\n",
      "reset",
      undefined,
    ]);
  });

  it("tells its errors by the line of the config", async () => {
    const { send } = open(inline(`\nfunction onData() {\n  throw new Error("on purpose");\n}`));
    await expect(send("x")).rejects.toThrow(/^front\.yaml:4:\d+: on purpose$/);
    expect(() => open(inline("const a = 1;"))).toThrow(
      /neither onConnect nor onData nor onWrite nor onClose/,
    );
    expect(() => open({ config: {} })).toThrow(
      /give one of inline, file, and onConnect or onData or onWrite or onClose/,
    );
  });

  it("hears of the end", () => {
    const { cx, filter } = open(
      inline(`function onClose(conn, event) { stats.counter("closed." + event.by).inc(); }`),
    );
    filter.onClose?.({ by: "remote", phase: "connected", timeout: false, error: undefined });
    expect(cx.stats.value("closed.remote")).toBe(1);
  });
});

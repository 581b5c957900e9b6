import { Chunk, latin1Decode, latin1Encode } from "@tsproxy/sdk";
import { TestCluster, TestConnection, TestContext, withDefaults } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import { Config } from "./config.ts";
import lua from "./filter.ts";

function harness(text: string) {
  const cx = new TestContext();
  const factory = cx.setup(lua, withDefaults(Config, { source_code: { text, modules: {} } }));
  return {
    cx,
    connect() {
      const connection = new TestConnection(7);
      const filter = factory.create(connection, connection.chain);
      const send = (bytes: string, endStream = false) => {
        const chunk = new Chunk(latin1Encode(bytes), 0, bytes.length);
        const result = filter.onData?.(chunk, endStream);
        return { result, passed: () => latin1Decode(chunk.memory, chunk.at, chunk.end) };
      };
      return { connection, filter, send };
    },
  };
}
const messages = (cx: TestContext) => cx.logged.map(({ message }) => message);

it("greets, answers, and changes or drops what comes", () => {
  const { cx, connect } = harness(`
    function onNewConnection(conn)
      conn:data().lines = 0
      conn:write("hello " .. conn:remoteAddress() .. "\\n")
    end
    function onData(conn, data, last)
      local text = data:getBytes(0, data:length())
      conn:data().lines = conn:data().lines + 1
      if text == "quit" then conn:write("bye") conn:close() conn:drop() return end
      data:setBytes(text:upper() .. tostring(last))
    end
    function onClose(conn, why) conn:logInfo(conn:id() .. " " .. why .. " " .. conn:data().lines) end`);
  const { connection, filter, send } = connect();
  filter.onConnect?.();
  expect(connection.take()).toBe("hello 192.0.2.1:40000\n");
  expect(send("abc\xff").passed()).toBe("ABC\xfffalse");
  expect(send("x", true).passed()).toBe("Xtrue");
  expect(send("quit").passed()).toBe("");
  expect([connection.take(), connection.closed]).toEqual(["bye", "flush"]);
  filter.onClose?.({ by: "remote", phase: "connected", timeout: false, error: undefined });
  expect(messages(cx)).toEqual(["script log: 7 remote 3"]);
  expect([cx.stats.value("lua.executions"), cx.stats.value("lua.errors")]).toEqual([5, 0]);
});

it("suspends the connection behind an httpCall", async () => {
  const { cx, connect } = harness(`
    function onData(conn, data)
      local headers, body = conn:httpCall("auth", {
        [":method"] = "GET", [":path"] = "/", [":authority"] = "a"
      }, nil, 1000)
      data:setBytes(headers[":status"] .. body .. data:getBytes(0, data:length()))
    end`);
  const auth = new TestCluster("auth", cx.stats);
  cx.clusterMap.set("auth", auth);
  const { result } = connect().send("data");
  auth.last.respond(200, {}, " ok ");
  expect(latin1Decode(...range((await result) as Uint8Array))).toBe("200 ok data");
});
const range = (bytes: Uint8Array): [Uint8Array, number, number] => [bytes, 0, bytes.length];

it("changes, drops and goes before what others write to the client", () => {
  const { connect } = harness(`
    function onWrite(conn, data, last)
      local text = data:getBytes(0, data:length())
      if text == "secret" then conn:write("withheld ") conn:drop() return end
      data:setBytes(text:gsub("http:", "https:") .. (last and "." or ""))
    end`);
  const { connection, filter } = connect();
  expect([filter.onConnect, filter.onData]).toEqual([undefined, undefined]);
  const written = (text: string, endStream = false) => {
    const chunk = new Chunk(latin1Encode(text), 0, text.length);
    filter.onWrite?.(chunk, endStream);
    return latin1Decode(chunk.memory, chunk.at, chunk.end);
  };
  expect(written("see http://a")).toBe("see https://a");
  expect(written("secret")).toBe("");
  expect(connection.take()).toBe("withheld ");
  expect(written("bye", true)).toBe("bye.");
});

it("logs and counts what fails; the connection goes on", async () => {
  const { cx, connect } = harness(`
    function onNewConnection(conn) conn.nope() end
    function onData(conn, data)
      local text = data:getBytes(0, data:length())
      if text == "loop" then while true do end end
      if text == "yield" then coroutine.yield() end
      if text == "close" then conn:close("gently") end
      conn:httpCall("none", { [":method"] = "GET", [":path"] = "/", [":authority"] = "a" }, nil, 1)
    end`);
  const { connection, filter, send } = connect();
  filter.onConnect?.();
  for (const text of ["loop", "yield", "close", "call"]) {
    const { result, passed } = send(text);
    await result;
    expect(passed()).toBe(text);
  }
  expect(connection.closed).toBeUndefined();
  expect(messages(cx).map((line) => line.replace(/.*\]:\d+: /, ""))).toEqual([
    "attempt to call field 'nope' (a nil value)",
    "script log: script ran for more than 100 ms",
    "script log: script performed an unexpected yield",
    `script log: close() takes "flush", "abort" or "reset", not "gently"`,
    "script log: http call cluster invalid. Must be configured",
  ]);
  expect(cx.stats.value("lua.errors")).toBe(5);
});

it("refuses a script that does nothing, or cannot be loaded", () => {
  expect(() => harness("x = 1")).toThrow(
    /defines none of onNewConnection, onData, onWrite, onClose/,
  );
  expect(() => harness("function")).toThrow(/script load error: .*'<name>' expected near '<eof>'/);
});

import { latin1Encode, RequestHeaders } from "@tsproxy/sdk";
import { requestHeaders } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import { open } from "./test-client.ts";

describe("a tunnel", () => {
  const SWITCH =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
  const upgrade = () => requestHeaders("GET", "/ws", "host", "a", "upgrade", "websocket");

  it("is asked for with Upgrade, and after 101 carries bytes as they are", () => {
    const { connection, events, ask, send } = open();
    const encoder = ask(upgrade(), false, "websocket");
    expect(connection.take()).toBe(
      "GET /ws HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    );
    send(`${SWITCH}down`);
    encoder.encodeBody(latin1Encode("up"), 0, 2, false);
    expect(connection.take()).toBe("up");
    expect(events.take()).toEqual([
      "retire",
      "head 101 [connection: upgrade, upgrade: websocket]",
      "body down",
    ]);
  });

  it("is asked for with GET when the client came with an extended CONNECT (RFC 8441)", () => {
    const { connection, ask } = open();
    ask(requestHeaders("CONNECT", "/ws", "host", "a"), false, "websocket");
    expect(connection.take()).toBe(
      "GET /ws HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    );
  });

  it("is asked for with CONNECT, and the authority for a target", () => {
    const { connection, events, ask, send } = open();
    const encoder = ask(requestHeaders("CONNECT", "", "host", "a:1"), false);
    expect(connection.take()).toBe("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n");
    send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nraw");
    encoder.encodeBody(latin1Encode("up"), 0, 2, false);
    expect(connection.take()).toBe("up");
    expect(events.take()).toEqual(["retire", "head 200 []", "body raw"]);
  });

  it("gets no byte before the upstream agrees, for it could be a request of its own", () => {
    const { connection, events, ask, send } = open();
    const encoder = ask(upgrade(), false, "websocket");
    const head = connection.take().length;
    encoder.encodeBody(latin1Encode("early"), 0, 5, false);
    expect(connection.take()).toBe("");
    // The client is read on, so that one who leaves is noticed.
    expect(events.take()).toEqual([]);
    const many = latin1Encode("x".repeat(64 * 1024));
    encoder.encodeBody(many, 0, many.length, false);
    expect(events.take()).toEqual(["blocked"]);
    send(SWITCH);
    expect(connection.take()).toBe(`early${"x".repeat(64 * 1024)}`);
    expect(encoder.wireSent).toBe(head + 5 + 64 * 1024);
    expect(events.take()).toContain("drained");
  });

  it("that is refused ends the connection, unless the request has ended", () => {
    const refused = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    for (const ends of [false, true]) {
      const { connection, events, ask, send } = open();
      const encoder = ask(upgrade(), false, "websocket");
      connection.take();
      encoder.encodeBody(latin1Encode("GET /smuggled"), 0, 13, ends);
      send(refused);
      encoder.encodeBody(latin1Encode("more"), 0, 4, true);
      expect(connection.take()).toBe("");
      expect(events.take()).toEqual(["head 403 end [content-length: 0]", ends ? "idle" : "retire"]);
      expect(connection.open).toBe(ends);
    }
  });

  it("of an upgrade keeps the letters of Connection, in a copy of the head too", () => {
    const { ask, connection } = open();
    const copy = new RequestHeaders();
    copy.method = "GET";
    copy.path = "/ws";
    copy.append("connection", "Upgrade");
    copy.append("upgrade", "websocket");
    ask(copy, false, "websocket");
    expect(connection.take()).toContain("\r\nconnection: Upgrade\r\n");
  });

  it("of an upgrade keeps the length that the client has given", () => {
    const { connection, ask } = open();
    ask(requestHeaders("GET", "/", "host", "h", "content-length", "3"), false, "websocket");
    expect(connection.take()).toContain("content-length: 3\r\n");
  });

  it("is not opened by a 101 that does not say to what", () => {
    const { events, ask, send } = open();
    ask(upgrade(), false, "websocket");
    send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
    expect(events.take()).toEqual(["head 101 end []", "retire"]);
  });

  it("is not opened by a 101 that claims a length", () => {
    const { events, ask, send } = open();
    ask(upgrade(), false, "websocket");
    send(`${SWITCH.slice(0, -2)}Content-Length: 3\r\n\r\n`);
    expect(events.take()).toEqual(["retire", "error 502 http1.content_length_not_allowed"]);
  });

  it("is not opened by a 101 that nobody asked for, and bytes behind it end the connection", () => {
    const { connection, events, ask, send } = open();
    ask();
    send(SWITCH);
    expect(events.take()).toEqual(["head 101 end []", "idle"]);
    ask();
    send(`${SWITCH}hello`);
    expect(events.take()).toEqual(["head 101 end []", "idle", "failed", "retire"]);
    expect(connection.open).toBe(false);
  });

  it("after CONNECT keeps each half open until its own end", () => {
    const { connection, events, codec, ask, send } = open();
    const encoder = ask(requestHeaders("CONNECT", "", "host", "a:1"), false);
    send("HTTP/1.1 200 OK\r\n\r\n");
    codec.onEof();
    expect(events.take().at(-1)).toBe("end");
    connection.take();
    encoder.encodeBody(latin1Encode("late"), 0, 4, true);
    expect(connection.take()).toBe("late");
    expect(connection.ended).toBe(true);
    expect(connection.closed).toBe("flush");
  });

  it("whose client ends first still brings the upstream's bytes", () => {
    const { connection, events, codec, ask, send } = open();
    const encoder = ask(requestHeaders("CONNECT", "", "host", "a:1"), false);
    send("HTTP/1.1 200 OK\r\n\r\n");
    encoder.encodeBody(latin1Encode(""), 0, 0, true);
    expect(connection.ended).toBe(true);
    send("late");
    codec.onEof();
    expect(events.take().slice(-3)).toEqual(["body late", "end", "idle"]);
    expect(connection.closed).toBe("flush");
  });

  it("of an upgrade does not end by halves", () => {
    const { connection, events, codec, ask, send } = open();
    const encoder = ask(upgrade(), true, "websocket");
    send(SWITCH);
    encoder.encodeBody(latin1Encode(""), 0, 0, true);
    expect(connection.ended).toBe(false);
    send("late");
    codec.onEof();
    expect(events.take().slice(-2)).toEqual(["body late", "reset connection_closed"]);
    expect(connection.open).toBe(false);
  });

  it("gives up when more waits for it than is sensible", () => {
    const { connection, events, ask } = open();
    const encoder = ask(upgrade(), false, "websocket");
    const bytes = new Uint8Array(600 * 1024);
    encoder.encodeBody(bytes, 0, bytes.length, false);
    encoder.encodeBody(bytes, 0, bytes.length, false);
    expect(events.take()).toEqual(["blocked", "retire", "reset overflow"]);
    expect(connection.closed).toBe("abort");
  });
});

import fs from "node:fs";
import net from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { GATHERING_BYTES, Gathering } from "./gathering.ts";
import { socketPair } from "./socket-pair.ts";
import { onAccepted, type StreamHandle } from "./stream-handle.ts";

/** Two workers of one process: a listener of worker 1, and what worker 0 is given. */
class Bench {
  readonly shared = new SharedArrayBuffer(GATHERING_BYTES);
  readonly first = new Gathering(this.shared, 0);
  readonly second = new Gathering(this.shared, 1);
  readonly #clients: net.Socket[] = [];
  readonly #server = net.createServer();
  readonly #kept: net.Socket[] = [];

  static async open(): Promise<Bench> {
    const bench = new Bench();
    const [taken, given] = await socketPair();
    bench.first.takeFrom(taken.fd, (name, handle) => bench.#answer(`first ${name}`, handle));
    bench.second.giveThrough(given.fd);
    await new Promise<void>((resolve) => bench.#server.listen(0, "127.0.0.1", resolve));
    onAccepted(bench.#server, (handle) => {
      const serve = () => bench.#answer("second", handle);
      if (!bench.second.give("main\n1", handle, serve)) serve();
    });
    return bench;
  }

  /** Connects, sends a byte before anybody reads, and tells who answers. */
  async ask(): Promise<string> {
    const { port } = this.#server.address() as net.AddressInfo;
    const client = net.connect(port, "127.0.0.1");
    this.#clients.push(client);
    client.write("?");
    return new Promise((resolve) => client.once("data", (bytes) => resolve(bytes.toString())));
  }

  close(): void {
    for (const socket of [...this.#clients, ...this.#kept]) socket.destroy();
    this.#server.close();
  }

  #answer(who: string, handle: StreamHandle): void {
    (who === "second" ? this.second : this.first).onOpened();
    const socket = new net.Socket({ handle } as unknown as net.SocketConstructorOpts);
    this.#kept.push(socket);
    socket.once("data", (bytes) => socket.write(`${who}${bytes}`));
  }
}

describe("Gathering", () => {
  let bench: Bench;
  afterEach(() => bench.close());

  it("passes a connection on, unread and with the name of its listener, until there are four", async () => {
    bench = await Bench.open();
    const who: string[] = [];
    for (let k = 0; k < 6; k++) who.push(await bench.ask());
    const given = "first main\n1?";
    expect(who).toEqual([given, given, given, given, "second?", "second?"]);
    bench.first.onClosed();
    bench.second.onClosed();
    bench.second.onClosed();
    expect(await bench.ask()).toBe(given);
  });
  it("counts those on their way, which a worker that hangs does not take", async () => {
    bench = await Bench.open();
    const who = await Promise.all(Array.from({ length: 6 }, () => bench.ask()));
    expect(who.filter((answer) => answer === "second?")).toHaveLength(2);
  });
  it("passes none on to a worker that takes none", async () => {
    bench = await Bench.open();
    bench.first.takes = false;
    bench.first.tick();
    expect(await bench.ask()).toBe("second?");
    bench.first.takes = true;
    expect(await bench.ask()).toBe("first main\n1?");
  });
  it("serves connections where they arrive if the other worker has ended", async () => {
    bench = await Bench.open();
    const [taken, given] = await socketPair();
    bench.second.giveThrough(given.fd);
    const ended = new net.Socket({ fd: taken.fd });
    await new Promise<void>((resolve) => {
      ended.once("close", () => resolve());
      ended.destroy();
    });
    expect(await bench.ask()).toBe("second?");
    expect(await bench.ask()).toBe("second?");
  });
});

describe("SocketEnd", () => {
  it("is closed with its thread if that never opened it, which the other end sees", async () => {
    const [first, second] = await socketPair();
    const peer = new net.Socket({ fd: second.fd });
    peer.resume();
    first.reclaim();
    await new Promise<void>((resolve) => peer.once("close", () => resolve()));
  });
  it("leaves alone what has the descriptor's number after the thread has closed its socket", async () => {
    const [first, second] = await socketPair();
    fs.closeSync(first.fd);
    const opened = [fs.openSync(__filename, "r")];
    while (!opened.includes(first.fd)) opened.push(fs.openSync(__filename, "r"));
    first.reclaim();
    expect(fs.readSync(first.fd, Buffer.alloc(1))).toBe(1);
    for (const fd of opened) fs.closeSync(fd);
    second.reclaim();
  });
});

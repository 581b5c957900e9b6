// Hot path: every datagram.
import { type Address, Chunk, type UdpHandler, type UdpSocket } from "@tsproxy/sdk";
import type { ConnectionTable } from "./connection-table.ts";
import type { Io } from "./io.ts";
import { COMMAND, SOCKET_ERRORS } from "./ring.ts";
import { unmapped } from "./unmapped.ts";

const SEPARATOR = 10; // between `ip|port` and the bytes of a datagram

/** A UDP socket as packages see it. */
class Endpoint implements UdpSocket {
  id = -1;
  open = true;
  localAddress: Address;
  readonly handler: UdpHandler;
  readonly #table: UdpTable;

  constructor(table: UdpTable, localAddress: Address, handler: UdpHandler) {
    this.#table = table;
    this.localAddress = localAddress;
    this.handler = handler;
  }

  send(memory: Uint8Array, at: number, end: number, to?: Address): boolean {
    return this.open && this.#table.send(this, memory, at, end, to);
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    this.#table.close(this);
  }
}

/** The UDP sockets of an isolate, by id. */
export class UdpTable {
  readonly #io: Io;
  readonly #connections: ConnectionTable;
  readonly #byId = new Map<number, Endpoint>();
  readonly #chunk: Chunk;

  constructor(io: Io, connections: ConnectionTable) {
    this.#io = io;
    this.#connections = connections;
    this.#chunk = new Chunk(io.memory, 0, 0);
  }

  /** Takes over a listener's socket, which core has bound. */
  adopt(id: number, localAddress: Address, handler: UdpHandler): UdpSocket {
    const endpoint = new Endpoint(this, localAddress, handler);
    endpoint.id = id;
    this.#byId.set(id, endpoint);
    return endpoint;
  }

  connect(address: Address, handler: UdpHandler, bind: Address | undefined): UdpSocket {
    const endpoint = new Endpoint(this, bind ?? { ip: "", port: 0 }, handler);
    const text = `${address.ip}|${address.port}|${bind?.ip ?? ""}`;
    this.#connections.soon(() => {
      if (!endpoint.open) return;
      const io = this.#io;
      endpoint.id = io.takeId();
      this.#byId.set(endpoint.id, endpoint);
      const at = io.placeText(text);
      io.command(COMMAND.UDP_CONNECT, endpoint.id, at, text.length);
    });
    return endpoint;
  }

  send(
    endpoint: Endpoint,
    memory: Uint8Array,
    at: number,
    end: number,
    to: Address | undefined,
  ): boolean {
    if (this.#connections.soonIsNow && endpoint.id >= 0) {
      this.#send(endpoint.id, memory, at, end, to);
      return true;
    }
    if (this.#connections.soonIsFull) return false;
    const copy = memory.slice(at, end);
    this.#connections.soon(() => {
      if (endpoint.open) this.#send(endpoint.id, copy, 0, copy.length, to);
    });
    return true;
  }

  #send(id: number, memory: Uint8Array, at: number, end: number, to: Address | undefined): void {
    const io = this.#io;
    const head = to === undefined ? "\n" : `${to.ip}|${to.port}\n`;
    const from = io.placeText(head);
    io.place(memory, at, end);
    io.command(COMMAND.DATAGRAM, id, from, head.length + end - at);
  }

  close(endpoint: Endpoint): void {
    this.#connections.soon(() => {
      if (endpoint.id >= 0) this.#io.command(COMMAND.CLOSE, endpoint.id, 0, 0);
    });
  }

  // ---- events

  /** EVENT.DATAGRAM of ring.ts. */
  onDatagram(id: number, offset: number, length: number): void {
    const endpoint = this.#byId.get(id);
    if (endpoint === undefined || !endpoint.open) return;
    if (length < 0) {
      endpoint.handler.onError(SOCKET_ERRORS[-length] ?? "EIO");
      return;
    }
    const { memory } = this.#io;
    let at = offset;
    let text = "";
    for (; memory[at] !== SEPARATOR; at++) text += String.fromCharCode(memory[at]!);
    const bar = text.indexOf("|");
    const chunk = this.#chunk;
    chunk.memory = memory;
    chunk.at = at + 1;
    chunk.end = offset + length;
    endpoint.handler.onDatagram(chunk, {
      ip: unmapped(text.slice(0, bar)),
      port: Number(text.slice(bar + 1)),
    });
  }

  /** True if the socket was one of this table. */
  onClosed(id: number): boolean {
    const endpoint = this.#byId.get(id);
    if (endpoint === undefined) return false;
    endpoint.open = false;
    this.#byId.delete(id);
    this.#connections.soon(() => this.#io.command(COMMAND.RELEASE, id, 0, 0));
    return true;
  }
}

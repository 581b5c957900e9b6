import type dgram from "node:dgram";
import { CLOSED_FLAG, EVENT } from "../inside/ring.ts";
import type { Crossing } from "./crossing.ts";
import { errorIndex } from "./socket-errors.ts";
import { type Entry, MAX_CONNECTIONS, type SocketTable } from "./socket-table.ts";
import { closeUdp, connectUdp, sendUdp } from "./udp.ts";

const NEWLINE = 10;

/** The UDP sockets of a worker. A datagram crosses as one event or command: `ip|port`, a line feed, and its bytes. */
export class Datagrams {
  readonly #crossing: Crossing;
  readonly #table: SocketTable;

  constructor(crossing: Crossing, table: SocketTable) {
    this.#crossing = crossing;
    this.#table = table;
  }

  /** Obeys COMMAND.UDP_CONNECT: a socket with one peer, named by the text as `ip|port|local ip`. */
  connect(entry: Entry, offset: number, length: number): void {
    const [ip = "", port = "0", bind = ""] = this.#crossing.text(offset, length).split("|");
    this.attach(entry, connectUdp(ip, Number(port), bind));
    if (this.#table.open >= MAX_CONNECTIONS) this.close(entry);
  }

  /** Tells the isolate of a listener's bound socket, with an id to send by. */
  bound(name: string, socket: dgram.Socket): void {
    const { address, port } = socket.address();
    const entry = this.#table.issue();
    this.attach(entry, socket);
    const text = `${name}|${address}|${port}`;
    this.#crossing.push(EVENT.UDP_BOUND, entry.id, this.#crossing.putText(text), text.length);
    this.#crossing.schedule();
    socket.once("close", () => this.close(entry));
  }

  attach(entry: Entry, socket: dgram.Socket): void {
    entry.udp = socket;
    this.#table.open++;
    socket.on("message", (bytes, from) => {
      const crossing = this.#crossing;
      // A listener's socket stays open until the next isolate takes it over.
      if (crossing.ended) return;
      const head = `${from.address}|${from.port}\n`;
      const size = head.length + bytes.length;
      crossing.needInput(size);
      const at = crossing.segments.inputAt;
      crossing.memory.write(head, at, "latin1");
      bytes.copy(crossing.memory, at + head.length);
      crossing.segments.inputAt = at + size;
      crossing.push(EVENT.DATAGRAM, entry.id, at, size);
      crossing.schedule();
    });
    socket.on("error", (error: NodeJS.ErrnoException) => this.#onError(entry, error.code));
  }

  #onError(entry: Entry, code: string | undefined): void {
    if (entry.closed || this.#crossing.ended) return;
    this.#crossing.push(EVENT.DATAGRAM, entry.id, 0, -errorIndex(code));
    this.#crossing.schedule();
  }

  /** Obeys COMMAND.DATAGRAM. */
  send(entry: Entry, offset: number, length: number): void {
    const crossing = this.#crossing;
    if (entry.closed || !crossing.isPiece(offset, length)) return;
    let at = offset;
    while (crossing.memory[at] !== NEWLINE && at < offset + length) at++;
    const [ip = "", port = "0"] = crossing.text(offset, at - offset).split("|");
    const bytes = Buffer.from(crossing.memory.subarray(at + 1, offset + length));
    const to = ip === "" ? undefined : { ip, port: Number(port) };
    const onError = (code: string): void => this.#onError(entry, code);
    if (!sendUdp(entry.udp!, bytes, to, onError)) onError("EAGAIN");
  }

  close(entry: Entry): void {
    if (entry.closed) return;
    entry.closed = true;
    this.#table.open--;
    closeUdp(entry.udp!);
    this.#crossing.push(EVENT.CLOSED, entry.id, CLOSED_FLAG.LOCAL, 0);
    this.#crossing.schedule();
  }
}

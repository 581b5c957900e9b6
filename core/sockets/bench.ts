import net from "node:net";
import { createRing, EVENT, indexOf, RELAYED, WORD } from "../inside/ring.ts";
import { Crossing } from "./crossing.ts";
import { Sockets } from "./sockets.ts";
import { onAccepted } from "./stream-handle.ts";

interface BenchEvent {
  readonly kind: number;
  readonly id: number;
  /** The last of an event's words. */
  readonly size: number;
  readonly text: string;
}

/** A worker with two clients. The test is its isolate: it sees the events, and its commands are run at once. */
export class Bench {
  readonly events: BenchEvent[] = [];
  readonly ids: number[] = [];
  readonly clients: net.Socket[] = [];
  readonly sockets: Sockets;
  readonly #words: Int32Array;
  readonly #crossing: Crossing;
  readonly #server = net.createServer();
  #onEvent: () => void = () => {};
  #commands: number[] = [];

  constructor() {
    const ring = createRing({ events: 8, commands: 8, segments: 4, slots: 2 });
    this.#words = new Int32Array(ring);
    this.#crossing = new Crossing(ring, (count) => this.#run(count));
    this.sockets = new Sockets(this.#crossing, (error) => {
      throw error;
    });
  }

  async open(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    onAccepted(this.#server, (handle) => this.sockets.take("l", handle));
    const { port } = this.#server.address() as net.AddressInfo;
    for (let k = 0; k < 2; k++) {
      const client = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true });
      client.on("error", () => {});
      this.clients.push(client);
      await this.until(() => this.ids.length > k);
    }
  }

  #run(count: number): number {
    const words = this.#words;
    for (let i = words[WORD.EVENTS]! >> 2, k = 0; k < count; k++, i += 4) {
      const [kind, id, at, size] = [words[i]!, words[i + 1]!, words[i + 2]!, words[i + 3]!];
      if (kind === EVENT.ACCEPTED) this.ids.push(id);
      const text = kind === EVENT.DATA ? this.#crossing.text(at, size) : "";
      this.events.push({ kind, id, size, text });
    }
    words.set(this.#commands, words[WORD.COMMANDS]! >> 2);
    words[WORD.CONSUMED] = count;
    words[WORD.AGAIN] = 0;
    words[WORD.WAKE_IN] = -1;
    const commands = this.#commands.length / 4;
    this.#commands = [];
    this.#onEvent();
    return commands;
  }

  command(op: number, id: number, a = 0, b = 0): void {
    this.answer(op, id, a, b);
    this.#crossing.poke();
  }

  /** A command that the next crossing leaves, whatever it is for. */
  answer(op: number, id: number, a = 0, b = 0): void {
    this.#commands.push(op, id, a, b);
  }

  /** How often the isolate has been entered. */
  get crossings(): number {
    return this.#crossing.counts.crossings;
  }

  /** Where a write may take its bytes from. */
  get output(): number {
    return this.#crossing.segments.outputStart;
  }

  /** Leaves no room for the bytes of an event: the next ones need a flush, which has an event to tell of. */
  fillInput(): void {
    while (this.#crossing.place(8) >= 0);
    this.#crossing.push(EVENT.DRAINED, this.ids[0]!, 0, 0);
  }

  /** Settles once this holds; looks at every crossing. */
  until(holds: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      this.#onEvent = () => {
        if (holds()) resolve();
      };
      this.#onEvent();
    });
  }

  has(kind: number, id: number): boolean {
    return this.events.some((event) => event.kind === kind && event.id === id);
  }

  get data(): string[] {
    return this.events.filter(({ kind }) => kind === EVENT.DATA).map(({ text }) => text);
  }

  relayed(id: number, cell: number): number {
    const at = (this.#words[WORD.RELAYED]! >> 3) + indexOf(id) * RELAYED.CELLS;
    return new Float64Array(this.#words.buffer)[at + cell]!;
  }

  close(): void {
    for (const client of this.clients) client.destroy();
    this.sockets.destroy();
    this.#server.close();
  }
}

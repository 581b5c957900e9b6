import { type Listed, Roster, type Relay as SdkRelay } from "@tsproxy/sdk";
import type { SocketConnection } from "./connection.ts";
import type { Io } from "./io.ts";
import { COMMAND, indexOf, RELAYED, WORD } from "./ring.ts";
import type { TimerWheel, WheelTimer } from "./timers.ts";

/** Handlers hear at least this often of what was passed on, so that stats are never older. */
const TELL_MS = 1000;

/** The relays of an isolate. */
export class RelayTable {
  readonly #io: Io;
  readonly #cells: Float64Array;
  readonly #all = new Roster<Relay>();
  readonly #timer: WheelTimer;

  constructor(io: Io, wheel: TimerWheel) {
    this.#io = io;
    const { control } = io;
    this.#cells = new Float64Array(control.buffer, control[WORD.RELAYED]!);
    this.#timer = wheel.timer(() => this.#tell());
  }

  /** Begins as soon as nothing is kept for either of the two. */
  begin(one: SocketConnection, other: SocketConnection): Relay {
    const relay = new Relay(
      new RelayedBytes(this.#cells, one),
      new RelayedBytes(this.#cells, other),
      {
        command: (on) => this.#io.command(COMMAND.RELAY, one.id, other.id, on ? 1 : 0),
        onOver: () => this.#all.delete(relay),
      },
    );
    this.#all.add(relay);
    if (!this.#timer.armed) this.#timer.arm(TELL_MS);
    return relay;
  }

  #tell(): void {
    for (const relay of [...this.#all]) relay.settle();
    if (this.#all.size > 0) this.#timer.arm(TELL_MS);
  }
}

/**
 * Two connections of sockets whose bytes core passes on by itself, both ways.
 *
 *   waiting ──nothing is kept for either──> core relays ──bytes are kept──> waiting
 *      └────────────────────── one of the two closes ──────────────────────────> over
 *
 * While it waits their handlers get all bytes, as if there were no relay. In a flush in which it begins they may still get some that
 * were read before; bytes kept then send it back to waiting, so that core writes nothing before them.
 */
export class Relay implements SdkRelay, Listed {
  place = -1;
  readonly #one: RelayedBytes;
  readonly #other: RelayedBytes;
  readonly #table: { command(on: boolean): void; onOver(): void };
  #on = false;
  #over = false;

  constructor(
    one: RelayedBytes,
    other: RelayedBytes,
    table: { command(on: boolean): void; onOver(): void },
  ) {
    this.#one = one;
    this.#other = other;
    this.#table = table;
  }

  /** To be called when one of the two begins to keep bytes, or keeps none any more. */
  update(): void {
    const on = !this.#over && !this.#one.connection.keeps && !this.#other.connection.keeps;
    if (on === this.#on) return;
    this.#on = on;
    this.#table.command(on);
  }

  settle(): void {
    const received = this.#one.take();
    const sent = this.#other.take();
    if (received === 0 && sent === 0) return;
    this.#one.connection.countRelayed(received, sent);
    this.#other.connection.countRelayed(sent, received);
    this.#one.tell(received);
    this.#other.tell(sent);
  }

  end(): void {
    if (this.#over) return;
    this.#over = true;
    this.update();
    this.#table.onOver();
    this.#one.connection.relay = undefined;
    this.#other.connection.relay = undefined;
    this.settle();
  }
}

/** What core has passed on of the bytes of one connection. */
class RelayedBytes {
  readonly connection: SocketConnection;
  readonly #cells: Float64Array;
  readonly #at: number;
  #taken = 0;

  constructor(cells: Float64Array, connection: SocketConnection) {
    this.connection = connection;
    this.#cells = cells;
    this.#at = indexOf(connection.id) * RELAYED.CELLS;
    cells.fill(0, this.#at, this.#at + RELAYED.CELLS);
  }

  /** Answers how many were passed on since the last call. */
  take(): number {
    const bytes = this.#cells[this.#at + RELAYED.BYTES]!;
    const more = bytes - this.#taken;
    this.#taken = bytes;
    return more;
  }

  tell(bytes: number): void {
    const { connection } = this;
    try {
      connection.handler.onRelayed?.(
        bytes,
        this.#cells[this.#at + RELAYED.SIZE]!,
        this.#cells[this.#at + RELAYED.AT]!,
      );
    } catch (error) {
      connection.fail(error);
    }
  }
}

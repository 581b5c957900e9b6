import { Chunk, latin1Decode, latin1Encode } from "../bytes.ts";
import {
  type CloseEvent,
  type NetworkFilter,
  type NetworkFilterFactory,
  type NetworkResult,
  stop,
} from "../network.ts";
import { assertNetworkVerdict } from "../no-verdict.ts";
import { TestConnection } from "./connection.ts";
import type { TestContext } from "./context.ts";

const CLOSED: CloseEvent = { by: "remote", phase: "connected", timeout: false, error: undefined };

/**
 * One network filter, with a played chain and client around it. Events that come during a promise or a `stop` wait in order.
 *
 *     const chain = new TestChain(cx, cx.setup(filter, config));
 *     await chain.connect().fromClient("hello").fromServer("hi").settled();
 *     expect([chain.passed, chain.connection.written]).toEqual(["hello", "hi"]);
 */
export class TestChain {
  readonly connection: TestConnection;
  readonly filter: NetworkFilter;
  /** What later filters have got, one char per byte. What goes to the client is in `connection`. */
  passed = "";
  /** Whether they have got FIN too. */
  passedEnd = false;
  /** What a hook threw, or its promise was rejected with: the connection is closed. */
  error: unknown = undefined;
  readonly #cx: TestContext;
  readonly #reading: Direction;
  readonly #writing: Direction;
  #closed = false;

  constructor(cx: TestContext, factory: NetworkFilterFactory, connection = new TestConnection()) {
    this.#cx = cx;
    this.connection = connection;
    const resumeReading = (): void => this.#reading.resume();
    this.filter = factory.create(connection, {
      resumeReading,
      injectWrite: (bytes, endStream) => connection.chain.injectWrite(bytes, endStream),
    });
    const { filter } = this;
    const fail = (error: unknown): void => {
      this.error = error;
      connection.close("abort");
    };
    this.#reading = new Direction(connection, fail, {
      ask: (chunk, endStream) =>
        chunk === undefined ? filter.onConnect?.() : filter.onData?.(chunk, endStream),
      pass: (bytes, endStream) => {
        this.passed += latin1Decode(bytes, 0, bytes.length);
        this.passedEnd ||= endStream;
      },
      keepsStopped: true,
    });
    this.#writing = new Direction(connection, fail, {
      ask: (chunk, endStream) => filter.onWrite?.(chunk!, endStream),
      pass: (bytes, endStream) => connection.chain.injectWrite(bytes, endStream),
      keepsStopped: false,
    });
  }

  connect(): this {
    this.#reading.push({ bytes: undefined, endStream: false });
    return this;
  }
  /** Plays bytes that the client sends. `endStream`: followed by FIN. */
  fromClient(text: string, endStream = false): this {
    this.#reading.push({ bytes: latin1Encode(text), endStream });
    return this;
  }
  /** Plays bytes that a later filter writes to the client. `endStream`: followed by FIN. */
  fromServer(text: string, endStream = false): this {
    this.#writing.push({ bytes: latin1Encode(text), endStream });
    return this;
  }

  /** Whether a promise of the filter is pending, or it has stopped what the client sends. */
  get waiting(): boolean {
    return this.#reading.isPaused || this.#writing.isPaused;
  }

  /** Lets promises settle that wait for nothing outside of the test. */
  async settled(): Promise<this> {
    await this.#cx.turn();
    return this;
  }

  /** Closes the connection: calls `onClose`, once. */
  close(event = CLOSED): void {
    if (this.#closed) return;
    this.#closed = true;
    this.connection.open = false;
    this.filter.onClose?.(event);
  }
}

interface Event {
  /** Undefined: the event is the new connection itself. */
  readonly bytes: Uint8Array | undefined;
  readonly endStream: boolean;
}

/** One direction of a connection: events are handled one after the other. */
class Direction {
  isPaused = false;
  readonly #connection: TestConnection;
  readonly #fail: (error: unknown) => void;
  readonly #ask: (chunk: Chunk | undefined, endStream: boolean) => NetworkResult;
  readonly #pass: (bytes: Uint8Array, endStream: boolean) => void;
  readonly #keepsStopped: boolean;
  readonly #events: Event[] = [];
  /** Forwards what the filter has stopped; called by `resume`. */
  #stopped: (() => void) | undefined = undefined;
  #resumed = false;

  constructor(
    connection: TestConnection,
    fail: (error: unknown) => void,
    filter: {
      readonly ask: (chunk: Chunk | undefined, endStream: boolean) => NetworkResult;
      readonly pass: (bytes: Uint8Array, endStream: boolean) => void;
      /** Whether `stop` holds bytes back until `resume`; otherwise it drops them, as they are then the filter's own. */
      readonly keepsStopped: boolean;
    },
  ) {
    this.#connection = connection;
    this.#fail = fail;
    this.#ask = filter.ask;
    this.#pass = filter.pass;
    this.#keepsStopped = filter.keepsStopped;
  }

  push(event: Event): void {
    if (!this.#connection.open) return;
    this.#events.push(event);
    this.#go();
  }

  #go(): void {
    while (!this.isPaused && this.#events.length > 0 && this.#connection.open)
      this.#run(this.#events.shift()!);
  }

  #run({ bytes, endStream }: Event): void {
    // The memory is lent, as a socket's is: a filter that still reads it after the hook finds other bytes.
    const memory = new Uint8Array((bytes?.length ?? 0) + 4);
    if (bytes !== undefined) memory.set(bytes, 2);
    const chunk = bytes && new Chunk(memory, 2, memory.length - 2);
    this.#resumed = false;
    this.isPaused = true;
    const goOn = (): void => {
      this.isPaused = false;
      if (chunk !== undefined) this.#pass(chunk.copy(), endStream);
    };
    try {
      const result = this.#ask(chunk, endStream);
      assertNetworkVerdict(result, false);
      chunk?.replace(chunk.copy());
      memory.fill(0x21);
      if (result === undefined) goOn();
      else if (result === stop) this.#stop(goOn);
      else this.#wait(result, chunk, goOn);
    } catch (error) {
      this.#fail(error);
    }
  }

  #wait(
    result: Promise<void | Uint8Array | typeof stop>,
    chunk: Chunk | undefined,
    goOn: () => void,
  ): void {
    const settled = result.then((brought) => {
      assertNetworkVerdict(brought, true);
      return brought;
    });
    settled.then(
      (brought) => {
        if (!this.#connection.open) return;
        if (brought instanceof Uint8Array) chunk?.replace(brought);
        if (brought === stop) this.#stop(goOn);
        else goOn();
        this.#go();
      },
      (error) => {
        if (this.#connection.open) this.#fail(error);
      },
    );
  }

  #stop(goOn: () => void): void {
    if (!this.#keepsStopped) this.isPaused = false;
    else if (this.#resumed) goOn();
    else this.#stopped = goOn;
  }

  /** Forwards what the filter has stopped. */
  resume(): void {
    const stopped = this.#stopped;
    this.#stopped = undefined;
    this.#resumed = true;
    stopped?.();
    this.#go();
  }
}

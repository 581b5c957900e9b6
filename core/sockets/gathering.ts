import type { StreamHandle, WriteRequest } from "./stream-handle.ts";

/** While all workers together have fewer connections than this, new ones are passed on to worker 0. */
const GATHERED = 4;
/** No connections are passed on to worker 0 while its event loop is busy for more than this many thousandths of the time. */
const BUSY = 500;
/** Index in the shared memory: the thousandths of the time in which worker 0 was busy, averaged over about a second. */
const LOAD = 0;
/** Weight of the last 100 ms in that average. */
const WEIGHT = 0.1;
/** Value at LOAD while worker 0 takes no connections of other workers. */
const TAKES_NONE = 1000;
/** Written by worker 0: how many connections it has been given so far. */
const TAKEN = 1;
/** Then two words for each worker: its open connections from clients, and how many it has given so far. */
const WORKERS = 2;
const WORDS = 2;
const GIVEN = 1;
/** Workers from this index on keep all that they accept: they get no socket pair. */
export const GATHERING_WORKERS = 256;
/** Size of the memory that the Gatherings of all workers share. */
export const GATHERING_BYTES = (WORKERS + WORDS * GATHERING_WORKERS) * 4;

/** libuv's unix socket, of the kind that can pass other sockets on (SCM_RIGHTS). */
interface IpcPipe {
  onread: (bytes?: ArrayBuffer) => void;
  pendingHandle: StreamHandle | null;
  open(fd: number): number;
  readStart(): number;
  writeUtf8String(request: WriteRequest, text: string, handle: StreamHandle): number;
  unref(): void;
  close(): void;
}
interface Bindings {
  readonly Pipe: new (type: number) => IpcPipe;
  readonly constants: { readonly IPC: number };
  readonly WriteWrap: new () => WriteRequest;
  readonly streamBaseState: Int32Array;
  readonly kReadBytesOrError: number;
  readonly kArrayBufferOffset: number;
}

function binding(name: string): Bindings {
  return (process as unknown as { binding(name: string): Bindings }).binding(name);
}
const { Pipe, constants } = binding("pipe_wrap");
const { WriteWrap, streamBaseState, kReadBytesOrError, kArrayBufferOffset } =
  binding("stream_wrap");

/**
 * One worker's part in gathering clients at worker 0 while they are few: its code is hot, all clients share its connections to
 * upstreams, and a listener behaves as with one worker. The kernel spreads connections over all workers. Another worker passes a
 * connection on to worker 0, unread, while fewer than GATHERED are open and worker 0 is not busy; otherwise it serves it itself.
 */
export class Gathering {
  readonly #shared: Int32Array;
  /** The first of this worker's words. */
  readonly #at: number;
  /** Leads to worker 0. Undefined: there is no socket pair (yet), or this is worker 0. */
  #out: IpcPipe | undefined = undefined;
  /** Worker 0: see `takes`. */
  #takes = true;
  #last = performance.eventLoopUtilization();
  #load = 0;

  /** `shared`: GATHERING_BYTES of memory, the same for all workers. `index`: this worker's. */
  constructor(shared: SharedArrayBuffer, index: number) {
    this.#shared = new Int32Array(shared);
    this.#at = WORKERS + WORDS * index;
    this.#shared[this.#at] = 0;
    // What was on its way to a worker 0 that has ended is lost.
    if (index === 0) this.#shared[TAKEN] = this.#sum(GIVEN);
  }

  onOpened(): void {
    this.#shared[this.#at]!++;
  }
  onClosed(): void {
    this.#shared[this.#at]!--;
  }

  /** Worker 0: measures how busy its event loop is. To be called every 100 ms. */
  tick(): void {
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, this.#last);
    this.#last = now;
    this.#load += WEIGHT * (utilization * 1000 - this.#load);
    if (this.#takes) this.#shared[LOAD] = this.#load;
  }

  /** Opens `fd`, this worker's end of a socket pair with worker 0. */
  giveThrough(fd: number): void {
    this.#out?.close();
    this.#out = open(fd);
  }

  /**
   * Passes an accepted connection on to worker 0. `name`: that of its listener. False: the caller has to serve the connection. If
   * passing it on fails later, `onFailed` is called, and has to serve it.
   */
  give(name: string, handle: StreamHandle, onFailed: () => void): boolean {
    const pipe = this.#out;
    if (pipe === undefined || this.#shared[LOAD]! > BUSY) return false;
    // Those on their way count too: worker 0 may hang.
    const onTheWay = Math.max(0, this.#sum(GIVEN) - this.#shared[TAKEN]!);
    if (this.#sum(0) + onTheWay >= GATHERED) return false;
    const request = new WriteWrap();
    request.oncomplete = (status) => {
      // Worker 0 has a descriptor of its own for the connection now.
      if (status === 0) return handle.close();
      // Worker 0 has ended. Main sends a new socket pair once it has started worker 0 again.
      if (this.#out === pipe) this.#out = undefined;
      pipe.close();
      this.#shared[this.#at + GIVEN]!--;
      onFailed();
    };
    request.bytes = handle;
    if (pipe.writeUtf8String(request, JSON.stringify(name), handle) !== 0) return false;
    this.#shared[this.#at + GIVEN]!++;
    return true;
  }

  /** Worker 0: opens `fd`, its end of a socket pair. `onGiven` gets each connection passed on, and its listener's name. */
  takeFrom(fd: number, onGiven: (name: string, handle: StreamHandle) => void): void {
    const pipe = open(fd);
    if (pipe === undefined) return;
    pipe.onread = (bytes) => {
      const length = streamBaseState[kReadBytesOrError]!;
      const handle = pipe.pendingHandle;
      pipe.pendingHandle = null;
      if (length < 0 || bytes === undefined) {
        // The worker at the other end has ended.
        pipe.close();
      } else if (handle !== null) {
        const text = Buffer.from(bytes, streamBaseState[kArrayBufferOffset], length).toString();
        onGiven(JSON.parse(text) as string, handle);
        this.#shared[TAKEN]!++;
      }
    };
    pipe.readStart();
  }

  /** Worker 0: whether other workers may pass connections on to it. Not while its isolate is rebuilt, nor while it drains. */
  set takes(on: boolean) {
    this.#takes = on;
    this.#shared[LOAD] = on ? 0 : TAKES_NONE;
  }

  /** The sum of one word of all workers. */
  #sum(word: number): number {
    let sum = 0;
    for (let k = WORKERS + word; k < this.#shared.length; k += WORDS) sum += this.#shared[k]!;
    return sum;
  }
}

function open(fd: number): IpcPipe | undefined {
  const pipe = new Pipe(constants.IPC);
  if (pipe.open(fd) !== 0) return undefined;
  pipe.unref();
  return pipe;
}

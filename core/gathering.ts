import type { StreamHandle, WriteRequest } from "./stream-handle.ts";

/** Connections of all workers together up to which they gather at worker 0. */
const GATHERED = 4;
/** Worker 0 takes no connections of others while its event loop is busy for more than these thousandths of the time. */
const BUSY = 500;
/** Written by worker 0: the thousandths of the time in which it was busy, averaged over about a second. */
const LOAD = 0;
/** Weight of the last 100 ms in that average. */
const WEIGHT = 0.1;
/** Value of LOAD: worker 0 takes none. */
const TAKES_NONE = 1000;
/** Then, for each worker: the number of its open connections from clients. */
const OPEN = 1;

/** Memory of a Gathering, shared by up to this many workers. */
const WORKERS_MAX = 1024;
export const GATHERING_BYTES = (OPEN + WORKERS_MAX) * 4;

/** libuv's unix socket of the kind that can carry other sockets. */
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
 * With few clients, worker 0 serves them all: its code is hot, its connections to upstreams serve all of them, and a listener behaves
 * as with one worker. The kernel deals connections to all workers; another worker passes an accepted connection on to worker 0, unread,
 * as long as there are fewer than GATHERED and worker 0 is not busy. All others stay where the kernel put them.
 */
export class Gathering {
  readonly #shared: Int32Array;
  readonly #index: number;
  /** Leads to worker 0. */
  #out: IpcPipe | undefined = undefined;
  #takes = true;
  #last = performance.eventLoopUtilization();
  #load = 0;

  /** `shared`: of GATHERING_BYTES, the same for all workers. */
  constructor(shared: SharedArrayBuffer, index: number) {
    this.#shared = new Int32Array(shared);
    this.#index = index;
    this.#shared[OPEN + index] = 0;
  }

  onOpened(): void {
    this.#shared[OPEN + this.#index]!++;
  }
  onClosed(): void {
    this.#shared[OPEN + this.#index]!--;
  }

  /** Worker 0: to be called every 100 ms. */
  tick(): void {
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, this.#last);
    this.#last = now;
    this.#load += WEIGHT * (utilization * 1000 - this.#load);
    if (this.#takes) this.#shared[LOAD] = this.#load;
  }

  /** Opens this worker's end of the pair that connects it with worker 0. */
  giveThrough(fd: number): void {
    this.#out?.close();
    this.#out = open(fd);
  }

  /**
   * Passes the connection on to worker 0. False: it has to be served here. `name`: of its listener. `onFailed` is called later if the
   * connection could not be passed on after all.
   */
  give(name: string, handle: StreamHandle, onFailed: () => void): boolean {
    const pipe = this.#out;
    if (pipe === undefined || this.#shared[LOAD]! > BUSY || this.#all() >= GATHERED) return false;
    const request = new WriteWrap();
    request.oncomplete = (status) => {
      if (status === 0) return handle.close();
      // Worker 0 has ended: main brings a new pair once there is another one.
      if (this.#out === pipe) this.#out = undefined;
      pipe.close();
      onFailed();
    };
    request.bytes = handle;
    return pipe.writeUtf8String(request, JSON.stringify(name), handle) === 0;
  }

  /** Worker 0: opens its end of a pair. `onGiven` is called with each connection and the name of its listener. */
  takeFrom(fd: number, onGiven: (name: string, handle: StreamHandle) => void): void {
    const pipe = open(fd);
    if (pipe === undefined) return;
    pipe.onread = (bytes) => {
      const length = streamBaseState[kReadBytesOrError]!;
      const handle = pipe.pendingHandle;
      pipe.pendingHandle = null;
      if (length < 0 || bytes === undefined) {
        // That worker has ended.
        pipe.close();
      } else if (handle !== null) {
        const text = Buffer.from(bytes, streamBaseState[kArrayBufferOffset], length).toString();
        onGiven(JSON.parse(text) as string, handle);
      }
    };
    pipe.readStart();
  }

  /** Worker 0: whether the others may pass connections on; not while its isolate is built again or it drains. */
  set takes(on: boolean) {
    this.#takes = on;
    this.#shared[LOAD] = on ? 0 : TAKES_NONE;
  }

  #all(): number {
    let all = 0;
    for (let k = OPEN; k < this.#shared.length; k++) all += this.#shared[k]!;
    return all;
  }
}

function open(fd: number): IpcPipe | undefined {
  const pipe = new Pipe(constants.IPC);
  if (pipe.open(fd) !== 0) return undefined;
  pipe.unref();
  return pipe;
}

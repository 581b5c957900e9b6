// Hot path: sockets and the ring (test/bench).
import type dgram from "node:dgram";
import net from "node:net";
import type { TLSSocket } from "node:tls";
import { getSystemErrorName } from "node:util";
import { CLOSED_FLAG, COMMAND, EVENT, SOCKET_ERRORS, WORD } from "../inside/ring.ts";
import type { AddressConfig } from "../protocol.ts";
import type { Gathering } from "./gathering.ts";
import { SecureWrites } from "./secure-writes.ts";
import { Segments, Slots } from "./segments.ts";
import { acceptPeer, closeSocket, endSocket } from "./socket-close.ts";
import { type Entry, type RawSocket, SocketTable } from "./socket-table.ts";
import {
  onAccepted,
  onRead,
  type StreamHandle,
  type WriteRequest,
  writeBuffer,
  writev,
} from "./stream-handle.ts";
import {
  closeWhenQuiet,
  type ListenOptions,
  listenTcp,
  setKeepAlive,
  socketPath,
} from "./tcp-listen.ts";
import type { Contexts } from "./tls.ts";
import { startTls, type TlsRequest } from "./tls-socket.ts";
import { bindUdp, closeUdp, connectUdp, sendUdp } from "./udp.ts";

/** A read of this many bytes gives a socket a read slot of its own; a read below SMALL takes it away again. */
const BULK = 16 * 1024;
const SMALL = 4 * 1024;
/** This many waiting events are handled at once; fewer wait for the end of the poll phase. */
const BATCH = 64;
/** Rounds of entering the sandboxes in one flush; what they have left to do waits for the next flush. */
const ROUNDS = 16;

/** What a flush enters beside the builtin isolate: a sandbox. */
export interface Visited {
  /** True if it has records to handle. Called after each crossing into the builtin isolate. */
  wantsEntry(): boolean;
  /** Handles all its records in one crossing; the answers come back as events (EVENT.VERDICT). */
  enter(): void;
}

/** A listening socket. `path`: of a unix socket, else "". */
export interface Listening {
  readonly server: net.Server | dgram.Socket;
  readonly path: string;
  /** High watermark of the bytes that wait to be sent on a connection. 0: Node's own. */
  bufferBytes?: number;
}

/**
 * All sockets of a worker. They read into shared memory; events gather until the poll phase ends, the isolate handles them
 * in one crossing, and its commands run after it has returned.
 */
export class Sockets {
  readonly #run: (events: number) => number;
  readonly #buffer: SharedArrayBuffer;
  readonly #control: Int32Array;
  readonly #clock: Float64Array;
  readonly #memory: Buffer;
  readonly #events: number;
  readonly #eventCount: number;
  readonly #commands: number;
  readonly #ids: number;
  readonly #idCount: number;
  readonly #landingAt: number;
  readonly #landing: Buffer;
  /** Sockets without a slot of their own read into the landing area; `#onRead` copies the bytes on. */
  readonly #onread: net.OnReadOpts;
  readonly #total: number;
  readonly #segments: Segments;
  readonly #slots: Slots;
  readonly #slotViews: Buffer[] = [];
  readonly #slotReaders: (Entry | undefined)[] = [];
  /** Connections that were paused or resumed in this flush. */
  readonly #turned: Entry[] = [];
  /** Slots whose bytes are named by events of this flush. */
  readonly #busySlots: number[] = [];
  readonly #table = new SocketTable();
  #queue = new Int32Array(4096);
  #queued = 0;
  #scheduled = false;
  #running = false;
  #again = false;
  #wakeTimer: NodeJS.Timeout | undefined = undefined;
  #wakeAt = Number.POSITIVE_INFINITY;
  readonly #visited: Visited[] = [];
  readonly #sweep: NodeJS.Timeout;
  readonly #onDead: (error: unknown) => void;
  readonly #contexts: Contexts | undefined;
  readonly #gathering: Gathering | undefined;
  #dead = false;
  readonly #listeners = new Map<string, Listening>();
  /** Listening sockets that were given to the successor of this object. */
  readonly #given = new Set<unknown>();
  #open = 0;
  onPark: (box: number, token: number, offset: number, length: number) => void = () => {};
  onForget: (box: number, token: number) => void = () => {};
  readonly counts = { crossings: 0, events: 0, pinned: 0, copied: 0, refused: 0 };

  /**
   * `run` enters the isolate with a number of events and answers the number of commands. `onDead` is called when it throws: the
   * isolate is lost, and all its sockets have been destroyed.
   */
  constructor(
    ring: SharedArrayBuffer,
    run: (events: number) => number,
    onDead: (error: unknown) => void,
    contexts?: Contexts,
    gathering?: Gathering,
  ) {
    this.#run = run;
    this.#contexts = contexts;
    this.#gathering = gathering;
    this.#onDead = onDead;
    this.#buffer = ring;
    this.#control = new Int32Array(ring);
    this.#clock = new Float64Array(ring, WORD.NOW * 4, 1);
    this.#memory = Buffer.from(ring);
    const word = (index: number): number => this.#control[index]!;
    this.#events = word(WORD.EVENTS) >> 2;
    this.#eventCount = word(WORD.EVENT_COUNT);
    this.#commands = word(WORD.COMMANDS) >> 2;
    this.#ids = word(WORD.IDS) >> 2;
    this.#idCount = word(WORD.ID_COUNT);
    this.#landingAt = word(WORD.LANDING);
    this.#landing = this.#memory.subarray(this.#landingAt, this.#landingAt + word(WORD.SLOT_SIZE));
    this.#onread = { buffer: this.#landing, callback: () => true };
    this.#total = word(WORD.TOTAL);
    const segments = Math.floor((word(WORD.SLOTS) - word(WORD.SEGMENTS)) / word(WORD.SEGMENT_SIZE));
    this.#segments = new Segments(word(WORD.SEGMENTS), word(WORD.SEGMENT_SIZE), segments);
    const slots = Math.floor((this.#total - word(WORD.SLOTS)) / word(WORD.SLOT_SIZE));
    this.#slots = new Slots(word(WORD.SLOTS), word(WORD.SLOT_SIZE), slots);
    for (let s = 0; s < slots; s++) {
      const at = this.#slots.base + s * this.#slots.size;
      this.#slotViews[s] = this.#memory.subarray(at, at + this.#slots.size);
    }
    for (let k = 0; k < this.#idCount; k++) this.#offer(k);
    this.#tick();
    this.#sweep = setInterval(() => this.#reclaimSlots(), 1000);
  }

  get memory(): Buffer {
    return this.#memory;
  }
  get open(): number {
    return this.#open;
  }
  /** Free segments and slots; tests look here for leaks. */
  get free(): { readonly segments: number; readonly slots: number } {
    return { segments: this.#segments.freeCount, slots: this.#slots.freeCount };
  }

  visit(visited: Visited): void {
    this.#visited.push(visited);
  }
  leave(visited: Visited): void {
    const at = this.#visited.indexOf(visited);
    if (at >= 0) this.#visited.splice(at, 1);
  }

  // ---- events: they wait in a queue, and each crossing takes as many as the ring has places

  push(kind: number, id: number, offset: number, length: number): void {
    if (this.#queued * 4 === this.#queue.length) {
      const bigger = new Int32Array(this.#queue.length * 2);
      bigger.set(this.#queue);
      this.#queue = bigger;
    }
    const queue = this.#queue;
    const i = this.#queued++ * 4;
    queue[i] = kind;
    queue[i + 1] = id;
    queue[i + 2] = offset;
    queue[i + 3] = length;
    this.counts.events++;
  }

  /** Sees to it that queued events reach the isolate: at the end of the poll phase, or now if there are many. */
  schedule(): void {
    if (this.#running) return;
    if (this.#queued >= BATCH) this.flush();
    else if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(this.#onImmediate);
    }
  }

  readonly #onImmediate = (): void => {
    this.#scheduled = false;
    this.flush();
  };

  #tick(): void {
    this.#clock[0] = performance.now();
  }

  /** Enters the isolate without an event: a timer is due, or it was entered outside a flush and has commands. */
  poke(): void {
    this.#again = true;
    this.flush();
  }

  flush(): void {
    if (this.#running || this.#dead) return;
    this.#running = true;
    this.#tick();
    const control = this.#control;
    let head = 0;
    try {
      for (let round = 0; ; round++) {
        while (head < this.#queued || this.#again) {
          const n = Math.min(this.#eventCount, this.#queued - head);
          const queue = this.#queue;
          for (let k = 0, i = this.#events, j = head * 4; k < n * 4; k++)
            control[i + k] = queue[j + k]!;
          control[WORD.OUT_START] = this.#segments.outputStart;
          control[WORD.OUT_END] = this.#segments.outputEnd;
          this.counts.crossings++;
          control[WORD.BEAT]!++;
          const commands = this.#run(n);
          control[WORD.BEAT]!++;
          head += Math.min(n, control[WORD.CONSUMED]!);
          this.#again = control[WORD.AGAIN] !== 0;
          this.#execute(commands);
        }
        head = 0;
        this.#queued = 0;
        // Only here, where no event waits: the memory that events name is used again after the flush.
        if (round === ROUNDS) break;
        const entered = this.#enterVisited();
        if (!entered && this.#queued === 0) break;
      }
    } catch (error) {
      if ((control[WORD.BEAT]! & 1) === 1) control[WORD.BEAT]!++;
      this.#running = false;
      this.destroy();
      this.#onDead(error);
      return;
    }
    // A stream that waits for a sandbox may pause and resume its connection in one flush: only the final state matters.
    for (let k = 0; k < this.#turned.length; k++) {
      const entry = this.#turned[k]!;
      this.#setReading(entry, !entry.paused);
    }
    this.#turned.length = 0;
    for (let k = 0; k < this.#busySlots.length; k++) this.#slots.drop(this.#busySlots[k]!);
    this.#busySlots.length = 0;
    this.#segments.resetInput();
    this.#running = false;
    this.#armWake();
    for (const visited of this.#visited) if (visited.wantsEntry()) this.schedule();
  }

  #enterVisited(): boolean {
    let entered = false;
    for (const visited of this.#visited) {
      if (visited.wantsEntry()) {
        entered = true;
        visited.enter();
      }
    }
    return entered;
  }

  #armWake(): void {
    const wakeIn = this.#control[WORD.WAKE_IN]!;
    if (wakeIn < 0) return;
    const at = this.#clock[0]! + wakeIn;
    if (at >= this.#wakeAt - 1) return;
    this.#wakeAt = at;
    if (this.#wakeTimer !== undefined) clearTimeout(this.#wakeTimer);
    this.#wakeTimer = setTimeout(this.#onWake, wakeIn);
  }

  readonly #onWake = (): void => {
    this.#wakeAt = Number.POSITIVE_INFINITY;
    this.#wakeTimer = undefined;
    this.poke();
  };

  // ---- reading

  /** Makes room in the input segment, by a flush if need be. */
  #needInput(size: number): void {
    if (!this.#segments.hasInput(size)) this.flush();
  }

  /** `n` bytes were read into the entry's slot or the landing area. Answers the buffer for the next read; undefined: the same. */
  #onRead(entry: Entry, n: number): Buffer | undefined {
    let offset: number;
    if (entry.slot >= 0) {
      entry.active = true;
      offset = this.#slots.base + entry.slot * this.#slots.size;
      this.#slots.hold(entry.slot);
      this.#busySlots.push(entry.slot);
    } else {
      this.#needInput(n);
      offset = this.#segments.inputAt;
      this.#memory.copy(this.#memory, offset, this.#landingAt, this.#landingAt + n);
      // Aligned as in `#copyIn`.
      this.#segments.inputAt = (offset + n + 7) & ~7;
    }
    this.push(EVENT.DATA, entry.id, offset, n);
    // The next read in this poll phase would overwrite a full slot.
    if (n === this.#slots.size) this.flush();
    else this.schedule();
    if (entry.paused) this.#setReading(entry, false);
    return entry.closed ? undefined : this.#nextBuffer(entry, n);
  }

  #nextBuffer(entry: Entry, n: number): Buffer | undefined {
    if (entry.slot < 0) return n >= BULK ? this.#takeSlot(entry) : undefined;
    const quiet = n < SMALL;
    if (!quiet && this.#slots.isQuiet(entry.slot)) return undefined;
    this.#slots.drop(entry.slot);
    entry.slot = -1;
    return quiet ? this.#landing : this.#takeSlot(entry);
  }

  #takeSlot(entry: Entry): Buffer {
    const slot = this.#slots.take();
    entry.slot = slot;
    if (slot < 0) return this.#landing;
    this.#slotReaders[slot] = entry;
    return this.#slotViews[slot]!;
  }

  /** Takes slots back from sockets that have fallen silent: `#nextBuffer` is called only after a read. Called once a second. */
  #reclaimSlots(): void {
    for (let slot = 0; slot < this.#slotReaders.length; slot++) {
      const entry = this.#slotReaders[slot];
      if (entry === undefined || entry.slot !== slot || entry.closed) continue;
      if (entry.active) entry.active = false;
      else if (entry.socket?._handle) {
        entry.socket._handle.useUserBuffer(this.#landing);
        this.#slots.drop(slot);
        entry.slot = -1;
        this.#slotReaders[slot] = undefined;
      }
    }
  }

  #setReading(entry: Entry, on: boolean): void {
    const socket = entry.socket;
    const handle = socket?._handle;
    if (!handle || socket!.destroyed || entry.connecting || handle.reading === on) return;
    if (entry.handshakes) return;
    handle.reading = on;
    if (on) handle.readStart();
    else handle.readStop();
  }

  #adopt(entry: Entry, socket: RawSocket): void {
    entry.socket = socket;
    this.#open++;
    if (socket._handle) onRead(socket._handle, (n) => this.#onRead(entry, n));
    this.#listenTo(entry, socket);
  }

  /** Events of a TCP socket below TLS are ignored: the entry's socket is the TLS one then. */
  #listenTo(entry: Entry, socket: RawSocket): void {
    socket.on("end", () => {
      if (entry.socket !== socket) return;
      this.push(EVENT.EOF, entry.id, 0, 0);
      this.schedule();
    });
    socket.on("error", (e: NodeJS.ErrnoException) => {
      entry.error = errorIndex(e.code);
    });
    socket.on("close", () => {
      if (entry.socket === socket) this.#onClosed(entry, entry.error);
    });
    socket.on("drain", () => {
      if (entry.blocked && entry.socket === socket) this.#onDrain(entry);
    });
  }

  #onDrain(entry: Entry): void {
    entry.blocked = false;
    this.push(EVENT.DRAINED, entry.id, 0, 0);
    this.schedule();
  }

  #onClosed(entry: Entry, error: number): void {
    if (entry.closed) return;
    entry.closed = true;
    entry.plain = undefined;
    entry.secure?.end();
    this.#open--;
    if (entry.accepted) this.#gathering?.onClosed();
    if (entry.slot >= 0) {
      this.#slots.drop(entry.slot);
      this.#slotReaders[entry.slot] = undefined;
      entry.slot = -1;
    }
    const flags =
      (entry.local ? CLOSED_FLAG.LOCAL : 0) | (entry.connecting ? CLOSED_FLAG.CONNECTING : 0);
    this.push(EVENT.CLOSED, entry.id, flags, error);
    this.schedule();
  }

  // ---- commands

  #execute(count: number): void {
    const control = this.#control;
    const end = this.#commands + count * 4;
    for (let i = this.#commands; i < end; ) {
      const word = control[i]!;
      const op = word & 0xff;
      const id = control[i + 1]!;
      if (op === COMMAND.PARK) {
        this.onPark(word >>> 8, id, control[i + 2]!, control[i + 3]!);
        i += 4;
        continue;
      }
      if (op === COMMAND.FORGET) {
        this.onForget(word >>> 8, id);
        i += 4;
        continue;
      }
      const entry = this.#table.find(id);
      if (entry === undefined) {
        i += 4;
        continue;
      }
      const socket = entry.socket;
      if (op === COMMAND.WRITE) {
        if (entry.plain !== undefined) i = this.#write(entry, entry.plain, i, end);
        else if (socket === undefined || socket.destroyed || socket.writableEnded) i += 4;
        else i = this.#writeThrough(entry, socket, i, end);
        continue;
      }
      if (op === COMMAND.CLOSE || op === COMMAND.END || op === COMMAND.TLS) entry.plain = undefined;
      if (op === COMMAND.CONNECT) this.#connect(entry, control[i + 2]!, control[i + 3]!);
      else if (op === COMMAND.RELEASE) {
        if (!this.#table.release(entry)) this.counts.refused++;
      } else if (op === COMMAND.UDP_CONNECT)
        this.#connectUdp(entry, control[i + 2]!, control[i + 3]!);
      else if (entry.udp !== undefined) {
        if (op === COMMAND.DATAGRAM) this.#sendDatagram(entry, control[i + 2]!, control[i + 3]!);
        else if (op === COMMAND.CLOSE) this.#closeUdp(entry);
      } else if (socket !== undefined && !socket.destroyed) {
        if (op === COMMAND.CLOSE) closeSocket(entry, socket, control[i + 2]!, control[i + 3]!);
        else if (op === COMMAND.END) endSocket(entry, socket);
        else if (op === COMMAND.PAUSE || op === COMMAND.RESUME) {
          entry.paused = op === COMMAND.PAUSE;
          this.#turned.push(entry);
        } else if (op === COMMAND.TLS) this.#startTls(entry, control[i + 2]!, control[i + 3]!);
        else if (op === COMMAND.UNREAD) this.#unread(entry, control[i + 2]!, control[i + 3]!);
        else if (op === COMMAND.ACCEPT_PEER) acceptPeer(socket);
      }
      i += 4;
    }
    // The isolate takes the ids for its own connections from the front: replace those that it has taken.
    for (let k = 0; k < this.#idCount; k++) {
      const entry = this.#table.find(control[this.#ids + k]!);
      if (entry?.offered) break;
      this.#offer(k);
    }
  }

  #offer(place: number): void {
    const entry = this.#table.issue();
    entry.offered = true;
    this.#control[this.#ids + place] = entry.id;
  }

  #isPiece(offset: number, length: number): boolean {
    return (
      length > 0 && (this.#segments.holds(offset, length) || this.#slots.holds(offset, length))
    );
  }

  /** Consecutive write commands for one socket become one writev. Answers the index of the command after them. */
  #write(entry: Entry, handle: StreamHandle, from: number, end: number): number {
    const control = this.#control;
    const id = entry.id;
    const mayPin = this.#segments.mayPin;
    let first: Uint8Array | undefined;
    let pieces: Uint8Array[] | undefined;
    let i = from;
    for (; i < end && control[i] === COMMAND.WRITE && control[i + 1] === id; i += 4) {
      const offset = control[i + 2]!;
      const length = control[i + 3]!;
      if (!this.#isPiece(offset, length)) {
        this.counts.refused++;
        continue;
      }
      let piece: Uint8Array = new Uint8Array(this.#buffer, offset, length);
      if (!mayPin && offset < this.#slots.base) {
        this.counts.copied++;
        piece = piece.slice();
      }
      if (first === undefined) first = piece;
      else (pieces ??= [first]).push(piece);
    }
    if (first === undefined) return i;
    const request = pieces === undefined ? writeBuffer(handle, first) : writev(handle, pieces);
    if (request !== undefined) this.#onUnwritten(entry, handle, request, from, i, mayPin);
    return i;
  }

  #onUnwritten(
    entry: Entry,
    handle: StreamHandle,
    request: WriteRequest | string,
    from: number,
    end: number,
    mayPin: boolean,
  ): void {
    if (typeof request === "string") {
      entry.error = errorIndex(request);
      entry.plain = undefined;
      entry.socket?.destroy();
      return;
    }
    this.#pin(entry, request, from, end, mayPin);
    if (!entry.blocked && handle.writeQueueSize >= entry.socket!.writableHighWaterMark) {
      entry.blocked = true;
      this.push(EVENT.BLOCKED, entry.id, 0, 0);
    }
  }

  /** The kernel did not take everything: libuv still points into the memory of these commands. */
  #pin(entry: Entry, request: WriteRequest, from: number, end: number, mayPin: boolean): void {
    const letGo = this.#hold(from, end, mayPin);
    this.counts.pinned++;
    entry.writing++;
    request.oncomplete = (status) => {
      letGo();
      this.#onWritten(entry, status);
    };
  }

  /** Keeps the memory that the write commands in [from, end) name from being reused until the returned function is called. */
  #hold(from: number, end: number, mayPin: boolean): () => void {
    const slots: number[] = [];
    const segments: number[] = [];
    for (let i = from; i < end; i += 4) {
      const offset = this.#control[i + 2]!;
      if (!this.#isPiece(offset, this.#control[i + 3]!)) continue;
      if (offset >= this.#slots.base) {
        const slot = this.#slots.of(offset);
        this.#slots.hold(slot);
        slots.push(slot);
      } else if (mayPin) {
        const segment = this.#segments.of(offset);
        if (!segments.includes(segment)) {
          this.#segments.pin(segment);
          segments.push(segment);
        }
      }
    }
    return () => {
      for (const slot of slots) this.#slots.drop(slot);
      for (const segment of segments) this.#segments.unpin(segment);
    };
  }

  #onWritten(entry: Entry, status: number): void {
    entry.writing--;
    const { socket } = entry;
    if (socket === undefined || entry.closed || socket.destroyed) return;
    if (status < 0) {
      entry.error = errorIndex(getSystemErrorName(status));
      socket.destroy();
    } else if (entry.writing === 0 && entry.blocked) this.#onDrain(entry);
  }

  // ---- TLS

  #startTls(entry: Entry, offset: number, length: number): void {
    const raw = entry.socket!;
    const request = JSON.parse(this.#text(offset, length)) as TlsRequest;
    const context = this.#contexts?.get(request.context);
    if (context === undefined || entry.raw !== undefined) {
      raw.destroy();
      return;
    }
    if (entry.slot >= 0) {
      this.#slots.drop(entry.slot);
      this.#slotReaders[entry.slot] = undefined;
      entry.slot = -1;
    }
    const onTold = (told: string): void => {
      this.push(EVENT.SECURED, entry.id, this.#putText(told), told.length);
      this.schedule();
      // Bytes that came with the end of the handshake are delivered after this event.
      this.#readDecrypted(entry, socket);
    };
    const onKeyLog = this.#contexts?.onKeyLog;
    const socket = startTls(raw, context, request, onTold, onKeyLog) as unknown as RawSocket;
    entry.raw = raw;
    entry.socket = socket;
    entry.handshakes = true;
    this.#listenTo(entry, socket);
  }

  /** After the handshake: decrypted bytes arrive in the landing area, as plain reads do, without a buffer for each read. */
  #readDecrypted(entry: Entry, socket: RawSocket): void {
    const handle = socket._handle;
    if (!handle || socket.destroyed) return;
    entry.handshakes = false;
    entry.secure = new SecureWrites(
      handle,
      entry.raw?._handle ?? handle,
      () => entry.blocked && this.#onDrain(entry),
      (error) => {
        entry.error = errorIndex(error);
        socket.destroy();
      },
    );
    handle.useUserBuffer(this.#landing);
    onRead(handle, (n) => {
      if (!this.#running && entry.late === undefined && this.#segments.hasInput(n))
        this.#copyIn(entry, this.#memory, this.#landingAt, n);
      // A flush in between may read other bytes into the landing area.
      else this.#onDecrypted(entry, Buffer.from(this.#landing.subarray(0, n)));
      return undefined;
    });
    this.#setReading(entry, !entry.paused);
  }

  /** A listener filter has looked at these bytes before TLS was started: TLS gets them first. */
  #unread(entry: Entry, offset: number, length: number): void {
    const bytes = Buffer.from(this.#memory.subarray(offset, offset + length));
    const socket = entry.socket as unknown as TLSSocket & {
      _handle: { receive(bytes: Buffer): void } | null;
    };
    if (entry.raw !== undefined) process.nextTick(() => socket._handle?.receive(bytes));
  }

  #onDecrypted(entry: Entry, bytes: Buffer): void {
    if (this.#running || entry.late !== undefined) {
      if (entry.late === undefined) {
        entry.late = [];
        setImmediate(() => this.#onLate(entry));
      }
      entry.late.push(bytes);
      return;
    }
    for (let at = 0; at < bytes.length; at += this.#slots.size) {
      const n = Math.min(bytes.length - at, this.#slots.size);
      this.#needInput(n);
      this.#copyIn(entry, bytes, at, n);
    }
  }

  /** Passes on `n` bytes of `from` as input, for which there is room. */
  #copyIn(entry: Entry, from: Buffer, at: number, n: number): void {
    const offset = this.#segments.inputAt;
    from.copy(this.#memory, offset, at, at + n);
    // Aligned, so that heads that begin there can be copied eight bytes at a time.
    this.#segments.inputAt = (offset + n + 7) & ~7;
    this.push(EVENT.DATA, entry.id, offset, n);
    this.schedule();
  }

  #onLate(entry: Entry): void {
    const late = entry.late ?? [];
    entry.late = undefined;
    for (const bytes of late) if (!entry.closed) this.#onDecrypted(entry, bytes);
  }

  #writeSecure(entry: Entry, writes: SecureWrites, from: number, end: number): number {
    const control = this.#control;
    const mayPin = this.#segments.mayPin;
    const pieces: Uint8Array[] = [];
    let i = from;
    for (; i < end && control[i] === COMMAND.WRITE && control[i + 1] === entry.id; i += 4) {
      const offset = control[i + 2]!;
      const length = control[i + 3]!;
      if (!this.#isPiece(offset, length)) {
        this.counts.refused++;
        continue;
      }
      const piece = new Uint8Array(this.#buffer, offset, length);
      const mayStay = mayPin || offset >= this.#slots.base || !writes.isBusy;
      pieces.push(mayStay ? piece : piece.slice());
    }
    if (pieces.length === 0) return i;
    writes.write(pieces, () => this.#hold(from, i, mayPin));
    if (!entry.blocked && writes.unsentSize >= entry.socket!.writableHighWaterMark) {
      entry.blocked = true;
      this.push(EVENT.BLOCKED, entry.id, 0, 0);
    }
    return i;
  }

  /** Writes before the connection, or TLS on it, is established: node:stream keeps the bytes in order. */
  #writeThrough(entry: Entry, socket: RawSocket, from: number, end: number): number {
    if (entry.raw === undefined && !socket.connecting && socket.writableLength === 0) {
      entry.plain = socket._handle!;
      return this.#write(entry, entry.plain, from, end);
    }
    const control = this.#control;
    const id = entry.id;
    let i = from;
    if (entry.secure !== undefined && socket.writableLength === 0)
      return this.#writeSecure(entry, entry.secure, from, end);
    const several = i + 4 < end && control[i + 4] === COMMAND.WRITE && control[i + 5] === id;
    if (several) socket.cork();
    for (; i < end && control[i] === COMMAND.WRITE && control[i + 1] === id; i += 4) {
      const offset = control[i + 2]!;
      const length = control[i + 3]!;
      if (!this.#isPiece(offset, length)) {
        this.counts.refused++;
        continue;
      }
      socket.write(Buffer.from(this.#memory.subarray(offset, offset + length)));
    }
    if (several) socket.uncork();
    if (!entry.blocked && socket.writableNeedDrain) {
      entry.blocked = true;
      this.push(EVENT.BLOCKED, id, 0, 0);
    }
    return i;
  }

  #text(offset: number, length: number): string {
    return this.#memory.toString("latin1", offset, offset + length);
  }

  /** Reserves input memory, at a multiple of 8, that stays valid until the events of this flush are handled. -1: no room. */
  place(size: number): number {
    const at = (this.#segments.inputAt + 7) & ~7;
    if (!this.#segments.hasInput(at - this.#segments.inputAt + size)) return -1;
    this.#segments.inputAt = at + size;
    return at;
  }

  /** Writes a short text into input memory; answers its offset. */
  #putText(text: string): number {
    this.#needInput(text.length);
    const at = this.#segments.inputAt;
    this.#memory.write(text, at, "latin1");
    this.#segments.inputAt = at + text.length;
    return at;
  }

  #connect(entry: Entry, offset: number, length: number): void {
    if (!entry.offered) {
      this.counts.refused++;
      return;
    }
    entry.offered = false;
    entry.connecting = true;
    const [ip = "", port = "0", path = "", keepAlive = "", bindIp = "", bindPort = "0", bytes] =
      this.#text(offset, length).split("|");
    const target = path !== "" ? { path: socketPath(path) } : { host: ip, port: Number(port) };
    const socket = net.connect({
      ...target,
      ...(bindIp !== "" && { localAddress: bindIp, localPort: Number(bindPort) }),
      ...watermark(Number(bytes ?? 0)),
      noDelay: true,
      allowHalfOpen: true,
      onread: this.#onread,
    }) as RawSocket;
    this.#adopt(entry, socket);
    socket.on("connect", () => {
      entry.connecting = false;
      if (keepAlive !== "") {
        const [idleS = 0, intervalS = 0, probes] = keepAlive.split(",").map(Number);
        socket.setKeepAlive(true, idleS * 1000, intervalS * 1000, probes);
      }
      const text = `${socket.localAddress ?? ""}|${socket.localPort ?? 0}`;
      this.push(EVENT.CONNECTED, entry.id, this.#putText(text), text.length);
      if (entry.paused) {
        // Node starts reading by itself once connected.
        setImmediate(() => {
          if (entry.paused) this.#setReading(entry, false);
        });
      }
      this.schedule();
    });
  }

  // ---- UDP

  #connectUdp(entry: Entry, offset: number, length: number): void {
    if (!entry.offered) {
      this.counts.refused++;
      return;
    }
    entry.offered = false;
    const [ip = "", port = "0", bind = ""] = this.#text(offset, length).split("|");
    this.#attachUdp(entry, connectUdp(ip, Number(port), bind));
    if (this.#open >= MAX_CONNECTIONS) this.#closeUdp(entry);
  }

  #attachUdp(entry: Entry, socket: dgram.Socket): void {
    entry.udp = socket;
    this.#open++;
    socket.on("message", (bytes, from) => {
      const head = `${from.address}|${from.port}\n`;
      const size = head.length + bytes.length;
      this.#needInput(size);
      const at = this.#segments.inputAt;
      this.#memory.write(head, at, "latin1");
      bytes.copy(this.#memory, at + head.length);
      this.#segments.inputAt = at + size;
      this.push(EVENT.DATAGRAM, entry.id, at, size);
      this.schedule();
    });
    socket.on("error", (error: NodeJS.ErrnoException) => this.#onUdpError(entry, error.code));
  }

  #onUdpError(entry: Entry, code: string | undefined): void {
    if (entry.closed) return;
    this.push(EVENT.DATAGRAM, entry.id, 0, -errorIndex(code));
    this.schedule();
  }

  #sendDatagram(entry: Entry, offset: number, length: number): void {
    if (entry.closed || !this.#isPiece(offset, length)) return;
    let at = offset;
    while (this.#memory[at] !== NEWLINE && at < offset + length) at++;
    const [ip = "", port = "0"] = this.#text(offset, at - offset).split("|");
    const bytes = Buffer.from(this.#memory.subarray(at + 1, offset + length));
    const to = ip === "" ? undefined : { ip, port: Number(port) };
    const onError = (code: string): void => this.#onUdpError(entry, code);
    if (!sendUdp(entry.udp!, bytes, to, onError)) onError("EAGAIN");
  }

  #closeUdp(entry: Entry): void {
    if (entry.closed) return;
    entry.closed = true;
    this.#open--;
    closeUdp(entry.udp!);
    this.push(EVENT.CLOSED, entry.id, CLOSED_FLAG.LOCAL, 0);
    this.schedule();
  }

  /** Binds a listener's socket. Rejects with the socket's error. */
  async listenUdp(
    name: string,
    address: AddressConfig,
    options: Pick<ListenOptions, "ipv6Only">,
  ): Promise<AddressConfig> {
    const socket = await bindUdp(address, options);
    this.#listeners.set(name, { server: socket, path: "" });
    this.#takeUdp(name, socket);
    const { port } = socket.address();
    return { ...address, port };
  }

  /** Tells the isolate of a bound UDP socket, with an id to send by. */
  #takeUdp(name: string, socket: dgram.Socket): void {
    const { address, port } = socket.address();
    const entry = this.#table.issue();
    this.#attachUdp(entry, socket);
    const text = `${name}|${address}|${port}`;
    this.push(EVENT.UDP_BOUND, entry.id, this.#putText(text), text.length);
    this.schedule();
    socket.once("close", () => this.#closeUdp(entry));
  }

  // ---- listening

  /** Binds (`listenTcp`) and accepts. Rejects with the socket's error. */
  async listen(
    name: string,
    address: AddressConfig,
    options: ListenOptions & Pick<Listening, "bufferBytes">,
  ): Promise<AddressConfig> {
    const { path = "" } = address;
    const { bufferBytes = 0 } = options;
    const { server, bound } = await listenTcp(address, options);
    const listening = { server, path, bufferBytes };
    this.#listeners.set(name, listening);
    this.#accept(name, listening);
    return bound;
  }

  /** Gives a listening socket that stays open new options, for the connections that it accepts from now on. */
  configure(
    name: string,
    options: Pick<ListenOptions, "keepAlive"> & { readonly bufferBytes: number },
  ): void {
    const listening = this.#listeners.get(name);
    if (listening === undefined || !(listening.server instanceof net.Server)) return;
    listening.bufferBytes = options.bufferBytes;
    if (listening.path === "") setKeepAlive(listening.server, options.keepAlive);
  }

  /** Stops accepting; open connections go on. Settles once the connections that waited in the backlog have been accepted. */
  async unlisten(name: string): Promise<void> {
    const listener = this.#listeners.get(name);
    this.#listeners.delete(name);
    if (listener === undefined) return;
    const { server, path } = listener;
    if (path === "" && server instanceof net.Server) await closeWhenQuiet(server);
    else server.close();
  }

  get listening(): readonly string[] {
    return [...this.#listeners.keys()];
  }

  /** Accepts at the libuv handle: so connections read into our memory, and node:net makes no second socket for each. */
  #accept(name: string, listening: Listening): void {
    const { server, path } = listening;
    onAccepted(server as net.Server, (handle) => {
      const serve = () => this.#onAccepted(name, handle, path, listening.bufferBytes ?? 0);
      if (path !== "" || !this.#gathering?.give(name, handle, serve)) serve();
    });
  }

  /** Serves a connection that another worker has accepted and passed on. `name`: that of its listener. */
  take(name: string, handle: StreamHandle): void {
    this.#onAccepted(name, handle, "", this.#listeners.get(name)?.bufferBytes ?? 0);
  }

  #onAccepted(name: string, handle: StreamHandle, path: string, bufferBytes: number): void {
    if (this.#dead || this.#open >= MAX_CONNECTIONS) {
      handle.close();
      return;
    }
    handle.setNoDelay?.(true);
    const entry = this.#table.issue();
    entry.accepted = true;
    this.#gathering?.onOpened();
    const socket = new net.Socket({
      handle,
      allowHalfOpen: true,
      ...watermark(bufferBytes),
      onread: this.#onread,
    } as unknown as net.SocketConstructorOpts) as RawSocket;
    this.#adopt(entry, socket);
    entry.plain = handle;
    const text = `${name}|${socket.remoteAddress ?? ""}|${socket.remotePort ?? 0}|${socket.localAddress ?? ""}|${socket.localPort ?? 0}|${path}`;
    this.push(EVENT.ACCEPTED, entry.id, this.#putText(text), text.length);
    this.schedule();
    socket.read(0);
  }

  /** Destroys every connection: the isolate is lost, or the worker stops. Listening sockets stay open. */
  destroy(): void {
    this.#dead = true;
    clearInterval(this.#sweep);
    if (this.#wakeTimer !== undefined) clearTimeout(this.#wakeTimer);
    const kept = new Set([...this.#listeners.values()].map(({ server }) => server));
    for (const { socket, udp } of this.#table.all()) {
      socket?.destroy();
      if (udp !== undefined && !kept.has(udp) && !this.#given.has(udp)) closeUdp(udp);
    }
  }

  /** Hands over the listening sockets to the successor of this object. */
  giveListeners(): ReadonlyMap<string, Listening> {
    const given = new Map(this.#listeners);
    for (const { server } of given.values()) this.#given.add(server);
    this.#listeners.clear();
    return given;
  }

  takeListeners(given: ReadonlyMap<string, Listening>): void {
    for (const [name, listening] of given) {
      const { server } = listening;
      this.#listeners.set(name, listening);
      if (!(server instanceof net.Server)) {
        for (const event of ["message", "error", "close"]) server.removeAllListeners(event);
        this.#takeUdp(name, server);
        continue;
      }
      this.#accept(name, listening);
    }
  }
}

/** Ids have 16 bits of index, and offered and closing connections need some of them. */
const MAX_CONNECTIONS = 60_000;

/** A connection with more bytes than this to send counts as blocked (`per_connection_buffer_limit_bytes` may ask for less). */
const MAX_WAITING = 64 * 1024;

function watermark(bytes: number): { readonly highWaterMark?: number } {
  return bytes > 0 && bytes < MAX_WAITING ? { highWaterMark: bytes } : {};
}

const NEWLINE = 10;

function errorIndex(code: string | undefined): number {
  const at = (SOCKET_ERRORS as readonly string[]).indexOf(code ?? "EIO");
  return at < 1 ? SOCKET_ERRORS.length - 1 : at;
}

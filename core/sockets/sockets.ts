// Hot path: sockets and the ring (test/bench).
import net from "node:net";
import type { TLSSocket } from "node:tls";
import { getSystemErrorName } from "node:util";
import { CLOSED_FLAG, COMMAND, EVENT, WORD } from "../inside/ring.ts";
import { type AcceptedHandle, AcceptedSocket } from "./accepted-socket.ts";
import type { Crossing } from "./crossing.ts";
import { Datagrams } from "./datagrams.ts";
import type { Gathering } from "./gathering.ts";
import { type Listening, ListeningSockets } from "./listening-sockets.ts";
import { pairedSockets } from "./paired-sockets.ts";
import { Relays } from "./relays.ts";
import { SecureWrites } from "./secure-writes.ts";
import type { Segments, Slots } from "./segments.ts";
import { acceptPeer, closeSocket, endSocket } from "./socket-close.ts";
import { errorIndex } from "./socket-errors.ts";
import { type Entry, MAX_CONNECTIONS, type RawSocket, SocketTable } from "./socket-table.ts";
import {
  onRead,
  type StreamHandle,
  type WriteRequest,
  writeBuffer,
  writev,
} from "./stream-handle.ts";
import { socketPath } from "./tcp-listen.ts";
import type { Contexts } from "./tls.ts";
import { startTls, type TlsRequest } from "./tls-socket.ts";
import { closeUdp } from "./udp.ts";

/** A read of this many bytes gives a socket a read slot of its own; a read below SMALL takes it away again. */
const BULK = 16 * 1024;
const SMALL = 4 * 1024;
/**
 * After so many full reads in a turn of the event loop, 2 MiB, each connection reads once, and again in the next turn: a request on a
 * new connection takes some five turns, which are long where much is read.
 */
const FULL_READS = 32;

/**
 * All sockets of a worker. They read into the ring's memory, tell the isolate of what happens as events, and obey its commands
 * (Crossing).
 */
export class Sockets {
  readonly listening: ListeningSockets;
  readonly #crossing: Crossing;
  readonly #control: Int32Array;
  readonly #commands: number;
  readonly #ids: number;
  readonly #idCount: number;
  readonly #landingAt: number;
  readonly #landing: Buffer;
  /** Sockets without a slot of their own read into the landing area; `#onRead` copies the bytes on. */
  readonly #onread: net.OnReadOpts;
  readonly #segments: Segments;
  readonly #slots: Slots;
  readonly #slotViews: Buffer[] = [];
  readonly #slotReaders: (Entry | undefined)[] = [];
  /** Reads in this turn of the event loop that filled their buffer. */
  #fullReads = 0;
  /** Connections that have more to read, in the next turn. */
  readonly #waiting: Entry[] = [];
  /** Connections that were paused or resumed in this flush. */
  readonly #turned: Entry[] = [];
  readonly #table = new SocketTable();
  readonly #datagrams: Datagrams;
  readonly #relays: Relays;
  readonly #sweep: NodeJS.Timeout;
  readonly #contexts: Contexts | undefined;
  readonly #gathering: Gathering | undefined;
  #dead = false;
  onPark: (box: number, token: number, offset: number, length: number) => void = () => {};
  onForget: (box: number, token: number) => void = () => {};
  readonly counts = { pinned: 0, copied: 0, refused: 0 };

  /** `onDead` is called when the isolate has thrown: it is lost, and all its sockets have been destroyed. */
  constructor(
    crossing: Crossing,
    onDead: (error: unknown) => void,
    contexts?: Contexts,
    gathering?: Gathering,
  ) {
    this.#crossing = crossing;
    this.#contexts = contexts;
    this.#gathering = gathering;
    this.#control = crossing.control;
    this.#segments = crossing.segments;
    this.#slots = crossing.slots;
    const word = (index: number): number => this.#control[index]!;
    this.#commands = word(WORD.COMMANDS) >> 2;
    this.#ids = word(WORD.IDS) >> 2;
    this.#idCount = word(WORD.ID_COUNT);
    this.#landingAt = word(WORD.LANDING);
    const { memory } = crossing;
    this.#landing = memory.subarray(this.#landingAt, this.#landingAt + word(WORD.SLOT_SIZE));
    this.#onread = { buffer: this.#landing, callback: () => true };
    for (let slot = 0; slot < this.#slots.count; slot++) {
      const at = this.#slots.base + slot * this.#slots.size;
      this.#slotViews[slot] = memory.subarray(at, at + this.#slots.size);
    }
    this.#datagrams = new Datagrams(crossing, this.#table);
    this.#relays = new Relays(crossing, {
      onFailed: (entry, error) => this.#onWriteFailed(entry, error),
      onUnwritten: (entry, handle, request, letGo) => {
        this.#onUnwritten(entry, handle, request, letGo);
        this.#crossing.schedule();
      },
      turn: (entry) => this.#setReading(entry, !entry.paused),
    });
    this.listening = new ListeningSockets({
      accepted: (name, handle, listening) => this.#onConnection(name, handle, listening),
      bound: (name, socket) => this.#datagrams.bound(name, socket),
    });
    for (let place = 0; place < this.#idCount; place++) this.#offer(place);
    crossing.onCommands = (count) => this.#execute(count);
    crossing.onFlushed = () => this.#turn();
    crossing.onLost = (error) => {
      this.destroy();
      onDead(error);
    };
    this.#sweep = setInterval(() => this.#reclaimSlots(), 1000);
  }

  get open(): number {
    return this.#table.open;
  }
  /** Free segments and slots; tests look here for leaks. */
  get free(): { readonly segments: number; readonly slots: number } {
    return { segments: this.#segments.freeCount, slots: this.#slots.freeCount };
  }

  // ---- reading

  /** `n` bytes were read into the entry's slot or the landing area. Answers the buffer for the next read; undefined: the same. */
  #onRead(entry: Entry, n: number): Buffer | undefined {
    entry.active = true;
    if (!this.#relays.pass(entry, n)) this.#deliver(entry, n);
    if (n === this.#slots.size) this.#onFull(entry);
    if (entry.paused || entry.waits) this.#setReading(entry, false);
    return entry.closed ? undefined : this.#nextBuffer(entry, n);
  }

  /** libuv would read again at once, up to 32 times for each connection. */
  #onFull(entry: Entry): void {
    if (this.#fullReads++ === 0) setImmediate(this.#onTurnOver);
    if (this.#fullReads <= FULL_READS) return;
    entry.waits = true;
    this.#waiting.push(entry);
  }

  readonly #onTurnOver = (): void => {
    this.#fullReads = 0;
    for (const entry of this.#waiting.splice(0)) {
      entry.waits = false;
      this.#setReading(entry, !entry.paused);
    }
  };

  #deliver(entry: Entry, n: number): void {
    let offset: number;
    if (entry.slot >= 0) {
      offset = this.#slots.base + entry.slot * this.#slots.size;
      this.#crossing.holdSlot(entry.slot);
    } else {
      this.#crossing.needInput(n);
      offset = this.#crossing.copy(this.#crossing.memory, this.#landingAt, n);
    }
    this.#crossing.push(EVENT.DATA, entry.id, offset, n);
    // The next read in this poll phase would overwrite a full slot, or be relayed ahead of this one.
    if (n === this.#slots.size || entry.relayTo?.plain !== undefined) this.#crossing.flush();
    else this.#crossing.schedule();
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

  /** A stream that waits for a sandbox may pause and resume its connection in one flush: only the final state matters. */
  #turn(): void {
    for (let k = 0; k < this.#turned.length; k++) {
      const entry = this.#turned[k]!;
      this.#setReading(entry, !entry.paused);
    }
    this.#turned.length = 0;
  }

  #setReading(entry: Entry, wanted: boolean): void {
    const socket = entry.socket;
    const handle = socket?._handle;
    const on = wanted && !entry.waits && entry.relayTo?.blocked !== true;
    if (!handle || socket!.destroyed || entry.connecting || handle.reading === on) return;
    if (entry.handshakes) return;
    handle.reading = on;
    if (on) handle.readStart();
    else handle.readStop();
  }

  #adopt(entry: Entry, socket: RawSocket): void {
    entry.socket = socket;
    this.#table.open++;
    if (socket._handle) onRead(socket._handle, (n) => this.#onRead(entry, n));
    this.#listenTo(entry, socket);
  }

  /** Events of a TCP socket below TLS are ignored: the entry's socket is the TLS one then. */
  #listenTo(entry: Entry, socket: RawSocket): void {
    socket.on("end", () => {
      if (entry.socket !== socket) return;
      this.#crossing.push(EVENT.EOF, entry.id, 0, 0);
      this.#crossing.schedule();
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

  /** Scheduled only when nothing waits any more: what comes before is told with the next event. */
  #tellUnsent(entry: Entry, bytes: number): void {
    if (entry.unsent === bytes) return;
    entry.unsent = bytes;
    this.#crossing.push(EVENT.UNSENT, entry.id, bytes, 0);
    if (bytes === 0) this.#crossing.schedule();
  }

  #onDrain(entry: Entry): void {
    entry.blocked = false;
    this.#crossing.push(EVENT.DRAINED, entry.id, 0, 0);
    this.#crossing.schedule();
    if (entry.relayTo !== undefined) this.#setReading(entry.relayTo, !entry.relayTo.paused);
  }

  #onClosed(entry: Entry, error: number): void {
    if (entry.closed) return;
    entry.closed = true;
    entry.plain = undefined;
    this.#relays.untie(entry);
    entry.secure?.end();
    this.#table.open--;
    if (entry.accepted) this.#gathering?.onClosed();
    if (entry.slot >= 0) {
      this.#slots.drop(entry.slot);
      this.#slotReaders[entry.slot] = undefined;
      entry.slot = -1;
    }
    this.#tellUnsent(entry, 0);
    const flags =
      (entry.local ? CLOSED_FLAG.LOCAL : 0) | (entry.connecting ? CLOSED_FLAG.CONNECTING : 0);
    this.#crossing.push(EVENT.CLOSED, entry.id, flags, error);
    this.#crossing.schedule();
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
        // Destroyed by an error of a read, and not told as closed yet: a failing write would hide that error.
        if (socket === undefined || socket.destroyed) i += 4;
        else if (entry.plain !== undefined) i = this.#write(entry, entry.plain, i, end);
        else if (socket.writableEnded) i += 4;
        else i = this.#writeThrough(entry, socket, i, end);
        continue;
      }
      if (op === COMMAND.CLOSE || op === COMMAND.END || op === COMMAND.TLS) entry.plain = undefined;
      if (op === COMMAND.CONNECT) {
        if (this.#mayConnect(entry)) this.#connect(entry, control[i + 2]!, control[i + 3]!);
      } else if (op === COMMAND.PAIR) {
        this.#pair(entry, this.#table.find(control[i + 2]!), control[i + 3]!);
      } else if (op === COMMAND.RELEASE) {
        if (!this.#table.release(entry)) this.counts.refused++;
      } else if (op === COMMAND.UDP_CONNECT) {
        if (this.#mayConnect(entry))
          this.#datagrams.connect(entry, control[i + 2]!, control[i + 3]!);
      } else if (entry.udp !== undefined) {
        if (op === COMMAND.DATAGRAM) this.#datagrams.send(entry, control[i + 2]!, control[i + 3]!);
        else if (op === COMMAND.CLOSE) this.#datagrams.close(entry);
      } else if (socket !== undefined && !socket.destroyed) {
        if (op === COMMAND.CLOSE) closeSocket(entry, socket, control[i + 2]!, control[i + 3]!);
        else if (op === COMMAND.END) endSocket(entry, socket);
        else if (op === COMMAND.PAUSE || op === COMMAND.RESUME) {
          entry.paused = op === COMMAND.PAUSE;
          this.#turned.push(entry);
        } else if (op === COMMAND.TLS) this.#startTls(entry, control[i + 2]!, control[i + 3]!);
        else if (op === COMMAND.UNREAD) this.#unread(entry, control[i + 2]!, control[i + 3]!);
        else if (op === COMMAND.ACCEPT_PEER) acceptPeer(socket);
        else if (op === COMMAND.RELAY) {
          const other = this.#table.find(control[i + 2]!);
          if (!this.#relays.tie(entry, other, control[i + 3] === 1)) this.counts.refused++;
        }
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
      if (!this.#crossing.isPiece(offset, length)) {
        this.counts.refused++;
        continue;
      }
      let piece: Uint8Array = new Uint8Array(this.#crossing.ring, offset, length);
      if (!mayPin && offset < this.#slots.base) {
        this.counts.copied++;
        piece = piece.slice();
      }
      if (first === undefined) first = piece;
      else (pieces ??= [first]).push(piece);
    }
    if (first === undefined) return i;
    const request = pieces === undefined ? writeBuffer(handle, first) : writev(handle, pieces);
    if (request === undefined) return i;
    if (typeof request === "string") this.#onWriteFailed(entry, request);
    // libuv still points into the memory of these commands.
    else this.#onUnwritten(entry, handle, request, this.#crossing.hold(from, i, mayPin));
    return i;
  }

  #onWriteFailed(entry: Entry, error: string): void {
    entry.error = errorIndex(error);
    entry.plain = undefined;
    entry.socket?.destroy();
  }

  /** The kernel did not take everything. `letGo` is called once nothing needs the bytes any more, never in this flush. */
  #onUnwritten(entry: Entry, handle: StreamHandle, request: WriteRequest, letGo: () => void): void {
    this.counts.pinned++;
    entry.writing++;
    request.oncomplete = (status) => {
      letGo();
      this.#onWritten(entry, status);
    };
    const unsent = handle.writeQueueSize;
    this.#tellUnsent(entry, unsent);
    if (!entry.blocked && unsent >= entry.socket!.writableHighWaterMark) {
      entry.blocked = true;
      this.#crossing.push(EVENT.BLOCKED, entry.id, 0, 0);
      if (entry.relayTo !== undefined) this.#setReading(entry.relayTo, false);
    }
  }

  #onWritten(entry: Entry, status: number): void {
    entry.writing--;
    const { socket } = entry;
    if (socket === undefined || entry.closed || socket.destroyed) return;
    if (status < 0) {
      entry.error = errorIndex(getSystemErrorName(status));
      socket.destroy();
      return;
    }
    this.#tellUnsent(entry, socket._handle?.writeQueueSize ?? 0);
    if (entry.writing === 0 && entry.blocked) this.#onDrain(entry);
  }

  // ---- TLS

  #startTls(entry: Entry, offset: number, length: number): void {
    const raw = entry.socket!;
    const request = JSON.parse(this.#crossing.text(offset, length)) as TlsRequest;
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
      this.#crossing.push(EVENT.SECURED, entry.id, this.#crossing.putText(told), told.length);
      this.#crossing.schedule();
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
      (unsent) => {
        this.#tellUnsent(entry, unsent);
        if (entry.blocked) this.#onDrain(entry);
      },
      (error) => {
        entry.error = errorIndex(error);
        socket.destroy();
      },
    );
    handle.useUserBuffer(this.#landing);
    onRead(handle, (n) => {
      if (!this.#crossing.running && entry.late === undefined && this.#segments.hasInput(n))
        this.#copyIn(entry, this.#crossing.memory, this.#landingAt, n);
      // A flush in between may read other bytes into the landing area.
      else this.#onDecrypted(entry, Buffer.from(this.#landing.subarray(0, n)));
      return undefined;
    });
    this.#setReading(entry, !entry.paused);
  }

  /** A listener filter has looked at these bytes before TLS was started: TLS gets them first. */
  #unread(entry: Entry, offset: number, length: number): void {
    const bytes = Buffer.from(this.#crossing.memory.subarray(offset, offset + length));
    const socket = entry.socket as unknown as TLSSocket & {
      _handle: { receive(bytes: Buffer): void } | null;
    };
    if (entry.raw !== undefined) process.nextTick(() => socket._handle?.receive(bytes));
  }

  #onDecrypted(entry: Entry, bytes: Buffer): void {
    if (this.#crossing.running || entry.late !== undefined) {
      if (entry.late === undefined) {
        entry.late = [];
        setImmediate(() => this.#onLate(entry));
      }
      entry.late.push(bytes);
      return;
    }
    for (let at = 0; at < bytes.length; at += this.#slots.size) {
      const n = Math.min(bytes.length - at, this.#slots.size);
      this.#crossing.needInput(n);
      this.#copyIn(entry, bytes, at, n);
    }
  }

  /** Passes on `n` bytes of `from` as input, for which there is room. */
  #copyIn(entry: Entry, from: Buffer, at: number, n: number): void {
    this.#crossing.push(EVENT.DATA, entry.id, this.#crossing.copy(from, at, n), n);
    this.#crossing.schedule();
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
      if (!this.#crossing.isPiece(offset, length)) {
        this.counts.refused++;
        continue;
      }
      const piece = new Uint8Array(this.#crossing.ring, offset, length);
      const mayStay = mayPin || offset >= this.#slots.base || !writes.isBusy;
      pieces.push(mayStay ? piece : piece.slice());
    }
    if (pieces.length === 0) return i;
    writes.write(pieces, () => this.#crossing.hold(from, i, mayPin));
    this.#tellUnsent(entry, writes.behind);
    if (!entry.blocked && writes.unsentSize >= entry.socket!.writableHighWaterMark) {
      entry.blocked = true;
      this.#crossing.push(EVENT.BLOCKED, entry.id, 0, 0);
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
      if (!this.#crossing.isPiece(offset, length)) {
        this.counts.refused++;
        continue;
      }
      socket.write(Buffer.from(this.#crossing.memory.subarray(offset, offset + length)));
    }
    if (several) socket.uncork();
    if (!entry.blocked && socket.writableNeedDrain) {
      entry.blocked = true;
      this.#crossing.push(EVENT.BLOCKED, id, 0, 0);
    }
    return i;
  }

  /** True once for each id that the isolate was offered for a connection of its own. */
  #mayConnect(entry: Entry): boolean {
    const may = entry.offered;
    entry.offered = false;
    if (!may) this.counts.refused++;
    return may;
  }

  #connect(entry: Entry, offset: number, length: number): void {
    entry.connecting = true;
    const [ip = "", port = "0", path = "", keepAlive = "", bindIp = "", bindPort = "0", bytes] =
      this.#crossing.text(offset, length).split("|");
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
      this.#crossing.push(EVENT.CONNECTED, entry.id, this.#crossing.putText(text), text.length);
      if (entry.paused) {
        // Node starts reading by itself once connected.
        setImmediate(() => {
          if (entry.paused) this.#setReading(entry, false);
        });
      }
      this.#crossing.schedule();
    });
  }

  /** Connects two connections of the isolate with each other: they have TLS at one end or both, and that is done here. */
  #pair(one: Entry, other: Entry | undefined, bufferBytes: number): void {
    if (other === undefined || !this.#mayConnect(one) || !this.#mayConnect(other)) return;
    const sockets = pairedSockets({ ...watermark(bufferBytes), onread: this.#onread });
    for (const [k, entry] of [one, other].entries()) {
      const socket = sockets[k] as RawSocket;
      this.#adopt(entry, socket);
      entry.plain = socket._handle!;
    }
  }

  /** Serves a connection that another worker has accepted and passed on. `name`: that of its listening socket. */
  take(name: string, handle: StreamHandle): void {
    this.#onAccepted(name, handle, "", this.listening.get(name)?.bufferBytes ?? 0);
  }

  /** A listening socket has accepted a connection, which another worker may have more room for. */
  #onConnection(name: string, handle: StreamHandle, { path, bufferBytes }: Listening): void {
    const serve = () => this.#onAccepted(name, handle, path, bufferBytes);
    if (path !== "" || !this.#gathering?.give(name, handle, serve)) serve();
  }

  #onAccepted(name: string, handle: StreamHandle, path: string, bufferBytes: number): void {
    if (this.#dead || this.#table.open >= MAX_CONNECTIONS) {
      handle.close();
      return;
    }
    handle.setNoDelay?.(true);
    const entry = this.#table.issue();
    entry.accepted = true;
    this.#gathering?.onOpened();
    const socket = new AcceptedSocket(
      handle as AcceptedHandle,
      watermark(bufferBytes).highWaterMark,
    );
    this.#table.open++;
    entry.socket = socket as unknown as RawSocket;
    this.#listenTo(entry, entry.socket);
    entry.plain = handle;
    const { remote, local } = socket;
    const text = `${name}|${remote.address ?? ""}|${remote.port ?? 0}|${local.address ?? ""}|${local.port ?? 0}|${path}`;
    this.#crossing.push(EVENT.ACCEPTED, entry.id, this.#crossing.putText(text), text.length);
    socket.read(this.#landing, (n) => this.#onRead(entry, n));
    this.#crossing.schedule();
  }

  /** Destroys every connection: the isolate is lost, or the worker stops. Listening sockets stay open. */
  destroy(): void {
    this.#dead = true;
    clearInterval(this.#sweep);
    this.#crossing.end();
    for (const { socket, udp } of this.#table.all()) {
      socket?.destroy();
      if (udp !== undefined && !this.listening.has(udp)) closeUdp(udp);
    }
  }
}

/** A connection with more bytes than this to send counts as blocked (`per_connection_buffer_limit_bytes` may ask for less). */
const MAX_WAITING = 64 * 1024;

function watermark(bytes: number): { readonly highWaterMark?: number } {
  return bytes > 0 && bytes < MAX_WAITING ? { highWaterMark: bytes } : {};
}

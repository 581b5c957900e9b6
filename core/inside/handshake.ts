import {
  Chunk,
  type CloseEvent,
  type ConnectionHandler,
  type Generation,
  type TlsInfo,
  type TlsStart,
  type Transport,
  type TransportFactory,
  type TransportSocket,
} from "@tsproxy/sdk";
import { ascii } from "./ascii.ts";
import type { SocketConnection } from "./connection.ts";
import type { TimerWheel, WheelTimer } from "./timers.ts";

const SHOWN_LIMIT = 64 * 1024; // bytes that a transport may look at before it is ready or starts TLS
const EMPTY = new Uint8Array(0);

/** Core's result of a TLS handshake. `local`: index of the certificate used, among those of the context. */
interface Told {
  readonly tls?: Omit<TlsInfo, "local"> & { readonly local: number };
  readonly code?: string;
  readonly message?: string;
}

/**
 * A connection until its transport is ready. The transport looks at the first bytes (`shown`); then it is ready, or starts TLS,
 * which core does.
 *
 *   (connecting) ──> shown bytes ──startTls──> securing ──secured──> ready: events go to `inner`
 *                        └────────────ready────────────────────────────^
 */
export class Handshake implements ConnectionHandler, TransportSocket {
  readonly connection: SocketConnection;
  /** The handler that gets the connection once it is ready. */
  inner: ConnectionHandler;
  readonly #generation: Generation<TransportFactory>;
  #transport: Transport | undefined = undefined;
  #shown: Uint8Array = EMPTY;
  #start: TlsStart | undefined = undefined;
  #over = false;
  /** The peer has ended or failed the handshake. Envoy then reports a remote close, whichever side closes the socket. */
  #peerFailed = false;
  #timer: WheelTimer | undefined = undefined;

  constructor(
    connection: SocketConnection,
    inner: ConnectionHandler,
    generation: Generation<TransportFactory>,
  ) {
    this.connection = connection;
    this.inner = inner;
    this.#generation = generation;
    generation.acquire();
  }

  /** Takes what the factory has made. False: there is no transport object, so bytes pass as they are. */
  take(transport: Transport | undefined): boolean {
    this.#transport = transport;
    if (transport !== undefined) return true;
    this.#end();
    return false;
  }

  /** An accepted connection that is not ready after `ms` is closed. */
  limit(wheel: TimerWheel, ms: number, onTimeout: () => void): void {
    this.#timer = wheel.timer(() => {
      onTimeout();
      this.connection.terminationDetails = "transport socket timeout was reached";
      this.connection.close("abort");
    });
    this.#timer.arm(ms);
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#timer?.cancel();
    this.#generation.release();
  }

  // ---- calls of the transport (TransportSocket)

  set version(version: string) {
    this.connection.tlsVersion = version;
  }

  write(bytes: Uint8Array): void {
    if (!this.#over && this.#start === undefined) this.connection.writeFirst(bytes);
  }

  startTls(start: TlsStart): void {
    if (this.#over || this.#start !== undefined) return;
    this.#start = start;
    const shown = this.#shown;
    this.#shown = EMPTY;
    const { context, version, ...rest } = start;
    if (version !== undefined) this.version = version;
    this.connection.startTls(ascii(JSON.stringify({ ...rest, context: context.id })), shown);
  }

  ready(consumed = 0): void {
    if (this.#over) return;
    this.#end();
    if (this.#start !== undefined && this.#start.clientCertificate !== "no")
      this.connection.acceptPeer();
    const left = this.#shown.subarray(consumed);
    this.connection.onTransportReady(this.inner);
    if (left.length > 0 && this.connection.open)
      this.connection.handler.onData(new Chunk(left, 0, left.length));
  }

  passMetadata(namespace: string, values: Readonly<Record<string, unknown>>): void {
    (this.connection.passedMetadata ??= new Map()).set(namespace, values);
  }

  fail(reason: string, alert?: number): void {
    if (this.#over) return;
    this.#peerFailed = true;
    this.connection.transportFailure = reason;
    if (alert === undefined) this.connection.close("abort");
    else this.connection.refuse(alert);
  }

  // ---- events of the connection

  onConnected(): void {
    this.#transport?.onConnected();
  }

  onData(chunk: Chunk): void {
    if (this.#over) return;
    if (this.#start !== undefined) {
      // These bytes were read before core's TLS took the socket over.
      this.connection.unread(chunk.copy());
      return;
    }
    this.#show(chunk);
  }

  /** Shows the transport all bytes so far. */
  #show(chunk: Chunk): void {
    if (this.#shown.length + chunk.length > SHOWN_LIMIT) {
      this.connection.close("abort");
      return;
    }
    const more = new Uint8Array(this.#shown.length + chunk.length);
    more.set(this.#shown);
    more.set(chunk.memory.subarray(chunk.at, chunk.end), this.#shown.length);
    this.#shown = more;
    this.#transport?.onBytes?.(new Chunk(more, 0, more.length));
  }

  /** The TLS handshake has ended. `text`: JSON of Told. */
  onTold(text: string): void {
    const start = this.#start;
    if (this.#over || start === undefined) return;
    const { tls, code = "", message = "" } = JSON.parse(text) as Told;
    if (tls === undefined) {
      this.connection.transportFailure = this.#transport?.onTlsError?.(code, message) ?? message;
      return;
    }
    const info: TlsInfo = { ...tls, local: start.context.certificates[tls.local] };
    this.connection.tls = info;
    if (this.#transport?.onSecured !== undefined) this.#transport.onSecured(info);
    else this.ready();
  }

  onEof(): void {
    this.#peerFailed = true;
    this.connection.close("abort");
  }

  onBlocked(): void {}
  onDrained(): void {}

  onAgain(): void {
    this.inner.onAgain?.();
  }

  onClosed(event: CloseEvent): void {
    if (!this.#over) {
      this.#end();
      this.#transport?.onClosed?.();
    }
    this.inner.onClosed(this.#peerFailed ? { ...event, by: "remote" } : event);
  }
}

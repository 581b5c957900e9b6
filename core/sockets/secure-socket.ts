// Hot path: one for each client that speaks TLS (test/bench/cpu.ts hs).
import type { X509Certificate } from "node:crypto";
import { EventEmitter } from "node:events";
import type net from "node:net";
import tls from "node:tls";
import { getSystemErrorName } from "node:util";
import {
  isEnd,
  onRead,
  type ShutdownRequest,
  type StreamHandle,
  shutdown,
  writeBuffer,
} from "./stream-handle.ts";
import { alertRecord, plainAlert } from "./tls-alert.ts";

/** Node's internal TLS handle, OpenSSL on top of a libuv stream; TLSSocket uses the same one. */
export interface TlsHandle extends StreamHandle {
  setVerifyMode(requestCert: boolean, rejectUnauthorized: boolean): void;
  setALPNProtocols(protocols: Uint8Array): void;
  setOCSPResponse(response: Uint8Array): void;
  enableKeylogCallback(): void;
  /** From now on `onclienthello` and `onnewsession` are called, and have to be answered (`endParser`, `newSessionDone`). */
  enableSessionCallbacks(): void;
  loadSession(session: Uint8Array | null): void;
  newSessionDone(): void;
  endParser(): void;
  receive(bytes: Uint8Array): void;
  shutdown(request: ShutdownRequest): number;
  destroySSL(): void;
  getProtocol(): string | null;
  getCipher(): { readonly name: string } | undefined;
  getSession(): Buffer | undefined;
  isSessionReused(): boolean;
  getServername(): string | false;
  getALPNNegotiatedProtocol(): string | false;
  onhandshakestart: () => void;
  onhandshakedone: () => void;
  onclienthello: (hello: Hello) => void;
  onnewsession: (id: Buffer, session: Buffer) => void;
  onkeylog: (line: Buffer) => void;
  onerror: (error: NodeJS.ErrnoException) => void;
}

interface Hello {
  readonly sessionId: Buffer;
  readonly tlsTicket: boolean;
}

interface TlsBinding {
  wrap(
    stream: StreamHandle,
    context: unknown,
    isServer: boolean,
    hasActiveWrite: boolean,
  ): TlsHandle;
}

const { wrap } = (process as unknown as { binding(name: string): TlsBinding }).binding("tls_wrap");

/** TLS sessions by id (hex). */
export interface SessionStore {
  find(id: string): Buffer | undefined;
  keep(id: string, session: Buffer): void;
}

export interface ServerOptions {
  readonly secure: tls.SecureContext;
  /** The one protocol to agree on, in the form of the wire (its length first). */
  readonly alpn?: Uint8Array | undefined;
  readonly requestCert: boolean;
  /** The handshake fails without a client certificate. Whether the certificate is good is judged later. */
  readonly requireCert: boolean;
  readonly ocspResponse?: Uint8Array | undefined;
  readonly sessions?: SessionStore | undefined;
  readonly onKeyLog?: ((line: Buffer) => void) | undefined;
}

/** Begins the key log line of our TLS 1.3 write keys. The client's random bytes and the secret follow, both in hex. */
const WRITE_SECRET = "SERVER_TRAFFIC_SECRET_0 ";
/** Begins the line of TLS 1.2 and below, which OpenSSL logs just before it writes our last message of a full handshake. */
const MASTER_SECRET = "CLIENT_RANDOM ";
/** Records that an OpenSSL server has written with its application keys when the handshake is over: two session tickets. */
const TICKETS = 2;
/** How long a refused client may take to close the connection. */
const REFUSED_MS = 5_000;

type RawSocket = net.Socket & { _handle: StreamHandle | null };

/**
 * The server's side of TLS on an accepted socket. Node's own TLSSocket would add a third node:stream for each client, and none of
 * it would be used: bytes are read and written at the handle (`SecureWrites`). This class does the rest of what a socket does.
 *
 *   handshake ──secure──> open ──end()──> half closed ──end of the peer──> closed
 *       └─────────────────────┴──destroy(), error──────────────────────────^
 *
 * Events, as a socket's: `secure`, `end`, `error`, `close`.
 */
export class SecureSocket extends EventEmitter {
  /** Named as in node:net. Null: closed. */
  _handle: TlsHandle | null;
  destroyed = false;
  /** Always 0: writes go to the handle. */
  readonly writableLength = 0;
  writableEnded = true;
  readonly writableHighWaterMark: number;
  readonly connecting = false;
  readonly #raw: RawSocket;
  /** The secret of our TLS 1.3 write keys, for the alert of `refuse`. Only where a client certificate is asked for. */
  #secret: Buffer | undefined = undefined;
  #isSecure = false;
  /** Our last message of the handshake (TLS 1.2 and below) is held back until `acceptPeer` or `refuse`. */
  #isHeld = false;
  #isShut = false;
  #hasEnded = false;

  constructor(raw: RawSocket, options: ServerOptions) {
    super();
    this.#raw = raw;
    this.writableHighWaterMark = raw.writableHighWaterMark;
    const { context } = options.secure as unknown as { context: unknown };
    const handle = wrap(raw._handle!, context, true, false);
    this._handle = handle;
    if (options.requestCert) handle.setVerifyMode(true, options.requireCert);
    if (options.alpn !== undefined) handle.setALPNProtocols(options.alpn);
    if (options.ocspResponse !== undefined) handle.setOCSPResponse(options.ocspResponse);
    handle.onhandshakestart = ignore;
    handle.onhandshakedone = () => this.#onDone();
    // Closed a turn later: Node sends OpenSSL's alert only after the write that is under way.
    handle.onerror = (error) => setImmediate(() => this.destroy(error));
    if (options.onKeyLog !== undefined || options.requestCert) {
      handle.onkeylog = (line) => this.#onKeyLog(line, options);
      handle.enableKeylogCallback();
    }
    if (options.sessions !== undefined) keepSessions(handle, options.sessions);
    onRead(handle, ignore, (status) => this.#onEnd(status));
    raw.on("close", () => this.#onClose());
    handle.reading = true;
    handle.readStart();
  }

  /** Called when the handshake is over, and again for tickets that follow it. */
  #onDone(): void {
    if (this.#isSecure || this._handle === null) return;
    this.#isSecure = true;
    this.writableEnded = false;
    this.emit("secure");
  }

  #onEnd(status: number): void {
    if (this.#hasEnded || this.destroyed) return;
    if (!isEnd(status)) {
      const code = getSystemErrorName(status);
      this.destroy(Object.assign(new Error(code), { code }));
      return;
    }
    this.#hasEnded = true;
    this.emit("end");
    if (this.#isShut) this.destroy();
  }

  /** Sends close_notify and ends our direction; closes once the peer has ended its own. */
  end(): void {
    this.#shut(() => {
      if (this.#hasEnded) this.destroy();
    });
  }

  /** Sends close_notify and closes, without waiting for the peer. */
  destroySoon(): void {
    this.#shut(() => this.destroy());
  }

  #shut(then: () => void): void {
    if (this._handle === null) return;
    if (this.#isShut) {
      then();
      return;
    }
    this.writableEnded = true;
    this.#isShut = true;
    shutdown(this._handle, then);
  }

  #onKeyLog(line: Buffer, { requestCert, onKeyLog, sessions }: ServerOptions): void {
    onKeyLog?.(line);
    if (!requestCert) return;
    const text = line.toString("latin1");
    if (text.startsWith(WRITE_SECRET))
      this.#secret = Buffer.from(text.trim().split(" ")[2] ?? "", "hex");
    else if (text.startsWith(MASTER_SECRET)) this.#hold(sessions !== undefined);
  }

  /**
   * Holds back our last message of the handshake while the client's certificate is judged. Node writes nothing while it waits for
   * JavaScript to look at a ClientHello, and each call of `enableSessionCallbacks` makes it wait again.
   */
  #hold(keepsSessions: boolean): void {
    const handle = this._handle;
    if (handle === null || this.#isSecure || handle.isSessionReused()) return;
    this.#isHeld = true;
    if (!keepsSessions) {
      // If the client sends on without waiting for our message, Node's wait ends: nothing is looked up or kept then.
      handle.onclienthello = () => handle.endParser();
      handle.onnewsession = () => handle.newSessionDone();
    }
    handle.enableSessionCallbacks();
  }

  /** Called when the client's certificate is accepted: sends the message that was held back, if any. */
  acceptPeer(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this._handle?.endParser();
  }

  /** Refuses the client's certificate with the TLS alert of this number. If the session was resumed, ends in order instead. */
  refuse(alert: number): void {
    // A turn later, so that the alert follows what OpenSSL has written and Node has not sent yet.
    setImmediate(() => this.#refuse(alert));
  }

  #refuse(alert: number): void {
    const handle = this._handle;
    const raw = this.#raw._handle;
    if (handle === null || raw === null || this.#isShut) return;
    this.#raw.setTimeout(REFUSED_MS, () => this.destroy());
    const record = this.#alertRecord(handle, alert);
    if (record === undefined) {
      this.end();
      return;
    }
    this.writableEnded = true;
    this.#isShut = true;
    writeBuffer(raw, record);
    // Nothing may follow a fatal alert, not even close_notify. Input is still read until the client ends, to avoid a RST.
    shutdown(raw, () => {
      if (this.#hasEnded) this.destroy();
    });
  }

  #alertRecord(handle: TlsHandle, alert: number): Buffer | undefined {
    if (this.#isHeld) return plainAlert(handle.getProtocol() ?? "", alert);
    if (this.#secret === undefined || handle.isSessionReused()) return undefined;
    const cipher = handle.getCipher()?.name ?? "";
    return alertRecord({ secret: this.#secret, cipher, records: TICKETS }, alert);
  }

  setTimeout(ms: number, onTimeout: () => void): void {
    this.#raw.setTimeout(ms, onTimeout);
  }

  destroy(error?: Error): void {
    if (this.destroyed) return;
    this.destroyed = true;
    this.writableEnded = true;
    if (error !== undefined) this.emit("error", error);
    if (this.#raw.destroyed) return;
    this.#raw.destroy();
  }

  #onClose(): void {
    const handle = this._handle;
    if (handle === null) return;
    this.destroyed = true;
    this.writableEnded = true;
    this._handle = null;
    // Not now: OpenSSL may be on the call stack.
    setImmediate(() => handle.destroySSL());
    this.emit("close");
  }

  // ---- what the handshake came to: TLSSocket's methods of the same names

  getProtocol(): string | null {
    return this._handle?.getProtocol() ?? null;
  }
  getCipher(): { readonly name: string } | undefined {
    return this._handle?.getCipher();
  }
  getSession(): Buffer | undefined {
    return this._handle?.getSession();
  }
  isSessionReused(): boolean {
    return this._handle?.isSessionReused() ?? false;
  }
  get alpnProtocol(): string | false {
    return this._handle?.getALPNNegotiatedProtocol() ?? false;
  }
  get servername(): string | false {
    return this._handle?.getServername() ?? false;
  }
  // TLSSocket's own methods use only `_handle`, and what they do with it cannot be done by public means.
  getPeerX509Certificate(): X509Certificate | undefined {
    return tls.TLSSocket.prototype.getPeerX509Certificate.call(this as never);
  }
  getX509Certificate(): X509Certificate | undefined {
    return tls.TLSSocket.prototype.getX509Certificate.call(this as never);
  }
}

function ignore(): undefined {}

/** Makes the handle keep and find sessions by id, for clients without tickets (TLS 1.2 and below). */
function keepSessions(handle: TlsHandle, sessions: SessionStore): void {
  handle.onclienthello = ({ sessionId, tlsTicket }) => {
    if (sessionId.length > 0 && !tlsTicket)
      handle.loadSession(sessions.find(sessionId.toString("hex")) ?? null);
    handle.endParser();
  };
  handle.onnewsession = (id, session) => {
    sessions.keep(id.toString("hex"), session);
    handle.newSessionDone();
  };
  handle.enableSessionCallbacks();
}

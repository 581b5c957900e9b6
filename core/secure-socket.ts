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
import { alertRecord } from "./tls-alert.ts";

/** OpenSSL upon a stream of libuv's: what a TLSSocket stands on. */
export interface TlsHandle extends StreamHandle {
  setVerifyMode(requestCert: boolean, rejectUnauthorized: boolean): void;
  setALPNProtocols(protocols: Uint8Array): void;
  setOCSPResponse(response: Uint8Array): void;
  enableKeylogCallback(): void;
  /** From here on `onclienthello` and `onnewsession` are called, and have to be answered. */
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

/** Sessions by their ids. */
export interface SessionStore {
  find(id: string): Buffer | undefined;
  keep(id: string, session: Buffer): void;
}

export interface ServerOptions {
  readonly secure: tls.SecureContext;
  /** The one protocol that is agreed on, as the wire has it. */
  readonly alpn?: Uint8Array | undefined;
  readonly requestCert: boolean;
  /** OpenSSL insists on a certificate. What it is worth, it leaves to others. */
  readonly requireCert: boolean;
  readonly ocspResponse?: Uint8Array | undefined;
  readonly sessions?: SessionStore | undefined;
  readonly onKeyLog?: ((line: Buffer) => void) | undefined;
}

/** As OpenSSL logs it: the word, the client's random bytes, and the secret. */
const WRITE_SECRET = "SERVER_TRAFFIC_SECRET_0 ";
/** Records that a server of OpenSSL's has written with these keys when the handshake is over: each a session ticket. */
const TICKETS = 2;
/** What a client that is turned away may take to leave. */
const REFUSED_MS = 5_000;

type RawSocket = net.Socket & { _handle: StreamHandle | null };

/**
 * The server's side of TLS upon an accepted socket. Node's own TLSSocket would be a third node:stream for every client, of which
 * nothing is used: here bytes go from and to the handle (`SecureWrites`), and this has what is left of a socket's life.
 *
 *   handshake ──secure──> open ──end()──> half closed ──end of the peer──> closed
 *       └─────────────────────┴──destroy(), error──────────────────────────^
 *
 * Events, as a socket's: `secure`, `end`, `error`, `close`.
 */
export class SecureSocket extends EventEmitter {
  /** Named as node:net names it. Null: closed. */
  _handle: TlsHandle | null;
  destroyed = false;
  /** Nothing is written by way of this. */
  readonly writableLength = 0;
  writableEnded = true;
  readonly writableHighWaterMark: number;
  readonly connecting = false;
  readonly #raw: RawSocket;
  /** What our direction's keys of TLS 1.3 are made of, where it may be needed. */
  #secret: Buffer | undefined = undefined;
  #isSecure = false;
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
    handle.onerror = (error) => this.destroy(error);
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

  /** Called again for what follows a handshake (tickets). */
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

  /** Says goodbye (close_notify) and ends our direction. */
  end(): void {
    this.#shut(() => {
      if (this.#hasEnded) this.destroy();
    });
  }

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

  #onKeyLog(line: Buffer, { requestCert, onKeyLog }: ServerOptions): void {
    onKeyLog?.(line);
    if (requestCert && line.toString("latin1", 0, WRITE_SECRET.length) === WRITE_SECRET)
      this.#secret = Buffer.from(line.toString("latin1").trim().split(" ")[2] ?? "", "hex");
  }

  /**
   * The handshake is over, and yet the client is turned away. With TLS 1.3 it is told why, by the number of an alert; with older versions, and
   * where a session is resumed, it sees an end in good order.
   */
  refuse(alert: number): void {
    const handle = this._handle;
    const raw = this.#raw._handle;
    if (handle === null || raw === null || this.#isShut) return;
    this.#raw.setTimeout(REFUSED_MS, () => this.destroy());
    const cipher = handle.getCipher()?.name ?? "";
    const record =
      this.#secret === undefined || handle.isSessionReused()
        ? undefined
        : alertRecord({ secret: this.#secret, cipher, records: TICKETS }, alert);
    if (record === undefined) {
      this.end();
      return;
    }
    this.writableEnded = true;
    this.#isShut = true;
    writeBuffer(raw, record);
    // Behind an alert nothing is sent, close_notify neither. What has come meanwhile must be read, or the end is a reset.
    shutdown(raw, () => {
      if (this.#hasEnded) this.destroy();
    });
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
    // Never on OpenSSL's own stack.
    setImmediate(() => handle.destroySSL());
    this.emit("close");
  }

  // ---- what the handshake came to, as TLSSocket tells it

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
  // These look at nothing but `_handle`, and what they make of it has no public form.
  getPeerX509Certificate(): X509Certificate | undefined {
    return tls.TLSSocket.prototype.getPeerX509Certificate.call(this as never);
  }
  getX509Certificate(): X509Certificate | undefined {
    return tls.TLSSocket.prototype.getX509Certificate.call(this as never);
  }
}

function ignore(): undefined {}

/** For clients without tickets (TLS 1.2 and below). */
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

import type net from "node:net";
import tls from "node:tls";
import { ascii } from "../inside/ascii.ts";
import { SecureSocket } from "./secure-socket.ts";
import { type Context, type Described, describeHandshake, type KeptSession } from "./tls.ts";

/** The SDK's `TlsStart`, as the isolate sends it. */
export interface TlsRequest {
  readonly context: number;
  readonly alpn: readonly string[];
  readonly serverName: string;
  readonly clientCertificate: "no" | "optional" | "required";
  readonly staple?: boolean;
  readonly logsKeys?: boolean;
}

const ENDED = "Client network socket disconnected";
/** Decrypted bytes that may wait in a paused socket; a TLS record holds up to 16 KiB. */
const PAUSED_BYTES = 64 * 1024;

/**
 * Starts TLS on a connected socket. `onTold` gets ASCII JSON, once: a description of the finished handshake, or why it failed
 * (then the socket closes).
 */
export function startTls(
  raw: net.Socket,
  context: Context,
  request: TlsRequest,
  onTold: (text: string) => void,
  onKeyLog: (path: string, line: string) => void = () => {},
): tls.TLSSocket | SecureSocket {
  let told = false;
  const tell = (value: unknown): void => {
    if (told) return;
    told = true;
    onTold(ascii(JSON.stringify(value)));
  };
  const { keyLog, side } = context.options;
  const onLine =
    request.logsKeys === true && keyLog !== undefined
      ? (line: Buffer) => onKeyLog(keyLog, line.toString("latin1"))
      : undefined;
  const sessions = side === "server" ? undefined : new ClientSessions(context, request);
  const kept = sessions?.take();
  const socket =
    side === "server"
      ? serverSocket(raw, context, request, onLine)
      : clientSocket(raw, context, request, kept, onLine);
  if (sessions !== undefined)
    socket.on("session", (latest: Buffer) =>
      sessions.onSession(latest, socket.getProtocol() === "TLSv1.3"),
    );
  socket.once("secure", () => {
    // The peer may have closed at the same moment.
    if (socket.destroyed) return;
    const described = describeHandshake(socket, context, kept);
    sessions?.onSecure(described);
    tell({ tls: described });
  });
  socket.on("error", (error: NodeJS.ErrnoException) => {
    // Node calls it ECONNRESET if a server ends the connection within the handshake; the socket has no error then.
    if (error.message.startsWith(ENDED)) error.code = "";
    tell({ code: error.code ?? "", message: error.message.trim() });
  });
  return socket;
}

function serverSocket(
  raw: net.Socket,
  context: Context,
  request: TlsRequest,
  onKeyLog: ((line: Buffer) => void) | undefined,
): SecureSocket {
  const { alpn, clientCertificate, staple } = request;
  return new SecureSocket(raw as never, {
    secure: context.secure,
    alpn: alpn[0] === undefined ? undefined : context.alpn(alpn[0]),
    requestCert: clientCertificate !== "no",
    requireCert: clientCertificate === "required",
    ocspResponse: staple === true ? context.ocspResponse : undefined,
    sessions: context.keptById,
    onKeyLog,
  });
}

function clientSocket(
  raw: net.Socket,
  context: Context,
  request: TlsRequest,
  kept: KeptSession | undefined,
  onKeyLog: ((line: Buffer) => void) | undefined,
): tls.TLSSocket {
  const { alpn, serverName } = request;
  const socket = tls.connect({
    socket: raw,
    secureContext: context.secure,
    // Node must not refuse the certificate: it is judged later, with the result in `describeHandshake`.
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
    ...(serverName !== "" && { servername: serverName }),
    ...(alpn.length > 0 && { ALPNProtocols: [...alpn] }),
    ...(kept !== undefined && { session: kept.session }),
    highWaterMark: PAUSED_BYTES,
  } as tls.ConnectionOptions);
  if (onKeyLog !== undefined) socket.on("keylog", onKeyLog);
  return socket;
}

/** TLS sessions of a connection to a server, stored with the peer's certificate, which TLS 1.2 shows later than the session. */
class ClientSessions {
  readonly #context: Context;
  readonly #key: string;
  #early: Pick<KeptSession, "session" | "once"> | undefined = undefined;
  #facts: KeptSession["facts"] | undefined = undefined;

  constructor(context: Context, { alpn, serverName }: TlsRequest) {
    this.#context = context;
    this.#key = `${serverName}|${alpn.join(",")}`;
  }

  take(): KeptSession | undefined {
    return this.#context.takeSession(this.#key);
  }

  onSession(session: Buffer, once: boolean): void {
    if (this.#facts === undefined) this.#early = { session, once };
    else this.#context.keepSession(this.#key, { session, once, facts: this.#facts });
  }

  onSecure({ peer, peerChain, peerChainMarks, verifyError }: Described): void {
    this.#facts = { peer, peerChain, peerChainMarks, verifyError };
    if (this.#early !== undefined) this.onSession(this.#early.session, this.#early.once);
  }
}

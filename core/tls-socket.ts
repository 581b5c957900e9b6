import type net from "node:net";
import tls from "node:tls";
import { type Context, describeHandshake } from "./tls.ts";

/** `TlsStart` as it crosses. */
export interface TlsRequest {
  readonly context: number;
  readonly alpn: readonly string[];
  readonly serverName: string;
  readonly clientCertificate: "no" | "optional" | "required";
}

/** Decrypted bytes that may wait in a paused socket; one record is up to 16 KiB. */
const PAUSED_BYTES = 64 * 1024;

/** Parts of TLSSocket without a public form: a server's own errors reach nobody before it is released. */
interface Released {
  _releaseControl(): void;
}

/**
 * Puts TLS upon a connected socket. `onTold` gets ASCII JSON, once: what the handshake came to, or why it failed (then the
 * socket closes).
 */
export function startTls(
  raw: net.Socket,
  context: Context,
  request: TlsRequest,
  onTold: (text: string) => void,
): tls.TLSSocket {
  let told = false;
  const tell = (value: unknown): void => {
    if (told) return;
    told = true;
    onTold(ascii(JSON.stringify(value)));
  };
  const socket =
    context.options.side === "server"
      ? serverSocket(raw, context, request)
      : clientSocket(raw, context, request);
  socket.once("secure", () => {
    // The peer may have gone in the same moment.
    if (!socket.destroyed) tell({ tls: describeHandshake(socket, context) });
  });
  socket.on("error", (error: NodeJS.ErrnoException) => {
    tell({ code: error.code ?? "", message: error.message.trim() });
  });
  return socket;
}

function serverSocket(raw: net.Socket, context: Context, request: TlsRequest): tls.TLSSocket {
  const { alpn, clientCertificate } = request;
  const socket = new tls.TLSSocket(raw, {
    isServer: true,
    secureContext: context.secure,
    requestCert: clientCertificate !== "no",
    // Only makes OpenSSL insist on a certificate: what it is worth is judged later.
    rejectUnauthorized: clientCertificate === "required",
    ...(alpn.length > 0 && { ALPNProtocols: [...alpn] }),
    highWaterMark: PAUSED_BYTES,
  } as tls.TLSSocketOptions);
  (socket as unknown as Released)._releaseControl();
  return socket;
}

function clientSocket(raw: net.Socket, context: Context, request: TlsRequest): tls.TLSSocket {
  const { alpn, serverName } = request;
  const key = `${serverName}|${alpn.join(",")}`;
  const session = context.takeSession(key);
  const socket = tls.connect({
    socket: raw,
    secureContext: context.secure,
    // Judged later, as above.
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
    ...(serverName !== "" && { servername: serverName }),
    ...(alpn.length > 0 && { ALPNProtocols: [...alpn] }),
    ...(session !== undefined && { session }),
    highWaterMark: PAUSED_BYTES,
  } as tls.ConnectionOptions);
  socket.on("session", (latest: Buffer) => context.keepSession(key, latest));
  return socket;
}

function ascii(json: string): string {
  return json.replace(
    /[\u0080-\uffff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

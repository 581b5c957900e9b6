import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";

/** RFC 6455 §1.3: the server proves with this that it has understood the handshake. */
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const OPCODE = { close: 8, ping: 9, pong: 10 } as const;
/** A longer message ends the connection: an example keeps no more of a stranger's bytes than this. */
const MAX_FRAME_BYTES = 1024 * 1024;

/** Takes a WebSocket over from node:http's "upgrade" event and sends every message back. */
export function echoWebSocket(request: IncomingMessage, socket: Duplex, head: Buffer): void {
  const key = request.headers["sec-websocket-key"];
  socket.on("error", () => socket.destroy());
  if (key === undefined || request.headers.upgrade?.toLowerCase() !== "websocket") {
    socket.end("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    return;
  }
  const accept = createHash("sha1")
    .update(key + GUID)
    .digest("base64");
  socket.write(
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n" +
      `sec-websocket-accept: ${accept}\r\n\r\n`,
  );
  let pending = head;
  const take = (data: Buffer) => {
    pending = pending.length === 0 ? data : Buffer.concat([pending, data]);
    for (let frame = readFrame(pending); frame !== undefined; frame = readFrame(pending)) {
      if (frame === "refused") return void socket.destroy();
      pending = pending.subarray(frame.size);
      answer(socket, frame);
    }
  };
  socket.on("data", take);
  socket.on("end", () => socket.end());
  take(Buffer.alloc(0));
}

interface Frame {
  /** FIN bit and opcode. */
  readonly first: number;
  readonly payload: Buffer;
  /** Of the whole frame on the wire. */
  readonly size: number;
}

function answer(socket: Duplex, { first, payload }: Frame): void {
  const opcode = first & 15;
  if (opcode === OPCODE.pong) return;
  const reply = opcode === OPCODE.ping ? (first & ~15) | OPCODE.pong : first;
  socket.write(Buffer.concat([frameHead(reply, payload.length), payload]));
  if (opcode === OPCODE.close) socket.end();
}

/** RFC 6455 §5.2. Undefined: the frame is not complete yet. */
function readFrame(bytes: Buffer): Frame | "refused" | undefined {
  if (bytes.length < 2) return undefined;
  const masked = (bytes[1]! & 0x80) !== 0;
  let length = bytes[1]! & 0x7f;
  let at = 2;
  if (length === 126) {
    if (bytes.length < 4) return undefined;
    length = bytes.readUInt16BE(2);
    at = 4;
  } else if (length === 127) {
    if (bytes.length < 10) return undefined;
    length = Number(bytes.readBigUInt64BE(2));
    at = 10;
  }
  // Whatever a client sends is masked (§5.1).
  if (!masked || length > MAX_FRAME_BYTES) return "refused";
  const size = at + 4 + length;
  if (bytes.length < size) return undefined;
  const mask = bytes.subarray(at, at + 4);
  const payload = Buffer.from(bytes.subarray(at + 4, size));
  for (let k = 0; k < length; k++) payload[k]! ^= mask[k & 3]!;
  return { first: bytes[0]!, payload, size };
}

function frameHead(first: number, length: number): Buffer {
  if (length < 126) return Buffer.from([first, length]);
  if (length < 65_536) return Buffer.from([first, 126, length >> 8, length & 255]);
  const head = Buffer.alloc(10);
  head[0] = first;
  head[1] = 127;
  head.writeBigUInt64BE(BigInt(length), 2);
  return head;
}

import {
  headerName,
  latin1Decode,
  type Reply,
  type ResponseHeaders,
  utf8Encode,
} from "@tsproxy/sdk";

const CONTENT_TYPE = headerName("content-type");
const CONTENT_LENGTH = headerName("content-length");
const GRPC_STATUS = headerName("grpc-status");
const GRPC_MESSAGE = headerName("grpc-message");
const EMPTY = new Uint8Array(0);

/** The statuses that have a gRPC code of their own; every other one is 2, unknown. */
const GRPC_CODES: Readonly<Record<number, number>> = {
  400: 13,
  401: 16,
  403: 7,
  404: 12,
  429: 14,
  502: 14,
  503: 14,
  504: 14,
};

/** The text encoded last: a proxy that answers by itself mostly says the same thing again. */
let lastText = "";
let lastBytes: Uint8Array = EMPTY;

/** Writes a local reply into `head` and answers its body. A gRPC client gets all of it in the head. */
export function writeLocalReply(head: ResponseHeaders, reply: Reply, grpc: boolean): Uint8Array {
  head.reset();
  if (grpc) {
    writeGrpcReply(head, reply);
    return EMPTY;
  }
  head.status = reply.status;
  const body = reply.body === "" ? EMPTY : encode(reply.body);
  if (body.length > 0) head.append(CONTENT_LENGTH, String(body.length));
  for (const [name, value] of reply.headers) head.append(name, value);
  if (body.length > 0 && !head.has(CONTENT_TYPE)) head.append(CONTENT_TYPE, "text/plain");
  return body;
}

function writeGrpcReply(head: ResponseHeaders, reply: Reply): void {
  head.status = 200;
  head.append(CONTENT_TYPE, "application/grpc");
  const status = reply.grpcStatus ?? GRPC_CODES[reply.status] ?? 2;
  head.append(GRPC_STATUS, String(status));
  if (reply.body !== "") head.append(GRPC_MESSAGE, percentEncode(reply.body));
  for (const [name, value] of reply.headers) {
    if (name.toLowerCase() !== "content-type") head.append(name, value);
  }
}

function encode(text: string): Uint8Array {
  if (text === lastText) return lastBytes;
  lastText = text;
  lastBytes = utf8Encode(text);
  return lastBytes;
}

/** `grpc-message` (gRPC over HTTP/2, "Responses"): bytes outside 0x20-0x7e and the percent sign are escaped. */
function percentEncode(text: string): string {
  const bytes = utf8Encode(text);
  let out = "";
  for (let k = 0; k < bytes.length; k++) {
    const byte = bytes[k]!;
    out +=
      byte < 0x20 || byte > 0x7e || byte === 0x25
        ? `%${byte.toString(16).toUpperCase().padStart(2, "0")}`
        : latin1Decode(bytes, k, k + 1);
  }
  return out;
}

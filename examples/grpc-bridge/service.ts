import http2 from "node:http2";
import { decodeTexts, encodeTexts, frame, unframe } from "./kv.ts";

const NOT_FOUND = "5";
const UNIMPLEMENTED = "12";

/** A gRPC server that keeps texts by key. */
export function startService(port: number): Promise<http2.Http2Server> {
  const store = new Map<string, string>();
  const server = http2.createServer();
  server.on("stream", (stream, headers) => {
    const pieces: Buffer[] = [];
    stream.on("error", () => stream.destroy());
    stream.on("data", (piece: Buffer) => pieces.push(piece));
    stream.on("end", () => {
      const [key = "", value = ""] = decodeTexts(unframe(Buffer.concat(pieces)));
      answer(stream, handle(store, headers[":path"], key, value));
    });
  });
  return new Promise((resolve, reject) => {
    server.on("error", reject);
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}

interface Answer {
  readonly message?: Buffer;
  readonly status: string;
  readonly text?: string;
}

function handle(
  store: Map<string, string>,
  path: string | undefined,
  key: string,
  value: string,
): Answer {
  if (path === "/kv.KV/Set") {
    store.set(key, value);
    return { message: Buffer.from([8, 1]), status: "0" };
  }
  if (path !== "/kv.KV/Get") return { status: UNIMPLEMENTED };
  const found = store.get(key);
  if (found === undefined) return { status: NOT_FOUND, text: `no ${key}` };
  return { message: encodeTexts(found), status: "0" };
}

function answer(stream: http2.ServerHttp2Stream, { message, status, text = "" }: Answer): void {
  stream.respond({ "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.on("wantTrailers", () =>
    stream.sendTrailers({ "grpc-status": status, "grpc-message": text }),
  );
  if (message !== undefined) stream.write(frame(message));
  stream.end();
}

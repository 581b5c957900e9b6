import http from "node:http";
import { decodeTexts, encodeTexts, frame, unframe } from "./kv.ts";

// A client without any gRPC: node examples/grpc-bridge/client.ts set KEY VALUE, or get KEY. PORT is the proxy's, 8903.
const [what = "", ...texts] = process.argv.slice(2);
const methods: Readonly<Record<string, string>> = { get: "Get", set: "Set" };
if (methods[what] === undefined) {
  console.error("set KEY VALUE, or get KEY");
  process.exit(2);
}

const request = http.request(
  {
    port: Number(process.env.PORT ?? 8903),
    method: "POST",
    path: `/kv.KV/${methods[what]}`,
    headers: { host: "grpc", "content-type": "application/grpc" },
    agent: false,
  },
  (response) => {
    const pieces: Buffer[] = [];
    response.on("data", (piece: Buffer) => pieces.push(piece));
    response.on("end", () => {
      const { "grpc-status": status, "grpc-message": text } = response.headers;
      console.log(`${response.statusCode}, grpc-status ${status} ${text ?? ""}`.trimEnd());
      if (status === "0" && what === "get")
        console.log(decodeTexts(unframe(Buffer.concat(pieces)))[0]);
    });
  },
);
request.end(frame(encodeTexts(...texts)));

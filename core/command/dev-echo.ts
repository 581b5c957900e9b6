import http from "node:http";
import net, { type AddressInfo } from "node:net";

export interface Echo {
  readonly port: number;
  close(): void;
}

/** An echo holds at most so much of a request's body. */
const MAX_BODY_BYTES = 1024 * 1024;

/**
 * Starts an upstream that answers with the request that reached it: request line, headers, body. The header x-echo has its
 * `name`.
 */
export function httpEcho(name: string): Promise<Echo> {
  const server = http.createServer((request, response) => {
    const chunks: Buffer[] = [];
    let size = 0;
    request.on("data", (chunk: Buffer) => {
      size += chunk.length;
      if (size <= MAX_BODY_BYTES) chunks.push(chunk);
    });
    request.on("end", () => {
      const { method, url, rawHeaders } = request;
      const lines = [`${method} ${url}`];
      for (let k = 0; k < rawHeaders.length; k += 2)
        lines.push(`${rawHeaders[k]!.toLowerCase()}: ${rawHeaders[k + 1]}`);
      const body = Buffer.concat(chunks).toString("utf8");
      response.setHeader("content-type", "text/plain; charset=utf-8");
      response.setHeader("x-echo", name);
      response.end(`${lines.join("\n")}\n${body === "" ? "" : `\n${body}\n`}`);
    });
    // A client that disconnects needs no answer.
    request.on("error", () => {});
  });
  return listening(server);
}

/** Starts an upstream that sends back what it receives. */
export function tcpEcho(): Promise<Echo> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => socket.destroy());
    socket.pipe(socket);
  });
  return listening(server);
}

function listening(server: net.Server): Promise<Echo> {
  return new Promise((resolve, reject) => {
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.unref();
      resolve({
        port,
        close: () => {
          server.close();
          if (server instanceof http.Server) server.closeAllConnections();
        },
      });
    });
  });
}

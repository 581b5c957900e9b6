import http from "node:http";
import type { AddressInfo } from "node:net";
import os from "node:os";
import { echoWebSocket } from "../websocket.ts";

/** One of the services behind the front proxy: says who it is, and echoes WebSocket messages at /service/N/echo. */
export function startService(number: number, port: number): Promise<http.Server> {
  const server = http.createServer((request, response) => {
    if (request.url?.startsWith(`/service/${number}`) !== true) {
      response.writeHead(404).end(`service ${number} has no ${request.url}\n`);
      return;
    }
    const { address } = request.socket.address() as AddressInfo;
    response.end(
      `Hello from behind tsproxy (service ${number})! ` +
        `hostname: ${os.hostname()} resolved address: ${address}\n`,
    );
  });
  server.on("upgrade", echoWebSocket);
  return new Promise((resolve, reject) => {
    server.on("error", reject);
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}

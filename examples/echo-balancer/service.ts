import http from "node:http";
import { echoWebSocket } from "../websocket.ts";

const MAX_BODY_BYTES = 1024 * 1024;

/**
 * One of the services behind the balancer. GET answers the request's headers as JSON, POST /echo the JSON it was sent, /ws
 * echoes WebSocket messages. `x-served-by` tells which service it was.
 */
export function startService(name: string, port: number): Promise<http.Server> {
  const server = http.createServer((request, response) => {
    response.setHeader("x-served-by", name);
    response.setHeader("content-type", "application/json");
    if (request.method === "POST" && request.url === "/echo") echoJson(request, response);
    else response.end(`${JSON.stringify(request.headers, undefined, 2)}\n`);
  });
  server.on("upgrade", (request, socket, head) => {
    if (request.url === "/ws") echoWebSocket(request, socket, head);
    else socket.end("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
  });
  return new Promise((resolve, reject) => {
    server.on("error", reject);
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}

async function echoJson(
  request: http.IncomingMessage,
  response: http.ServerResponse,
): Promise<void> {
  try {
    let text = "";
    for await (const piece of request.setEncoding("utf8")) {
      text += piece;
      if (text.length > MAX_BODY_BYTES) throw new Error(`more than ${MAX_BODY_BYTES} bytes`);
    }
    response.end(`${JSON.stringify(JSON.parse(text))}\n`);
  } catch (error) {
    response.writeHead(400).end(`${JSON.stringify({ error: (error as Error).message })}\n`);
  }
}

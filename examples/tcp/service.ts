import net from "node:net";

/** A TCP service: greets, then answers each line in capitals, until the client has said all it wants. */
export function startService(port: number): Promise<net.Server> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.setEncoding("utf8");
    socket.on("error", () => socket.destroy());
    socket.write("say something\n");
    socket.on("data", (text: string) => void socket.write(text.toUpperCase()));
    socket.on("end", () => socket.end("bye\n"));
  });
  return new Promise((resolve, reject) => {
    server.on("error", reject);
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}

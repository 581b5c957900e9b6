import dgram from "node:dgram";

/** Answers each datagram with its own name and what was in it. */
export function startService(port: number, name: string): Promise<dgram.Socket> {
  const socket = dgram.createSocket("udp4");
  socket.on("message", (bytes, from) => {
    socket.send(`${name}: ${bytes.toString("utf8")}`, from.port, from.address);
  });
  return new Promise((resolve, reject) => {
    socket.on("error", reject);
    socket.bind(port, "127.0.0.1", () => resolve(socket));
  });
}

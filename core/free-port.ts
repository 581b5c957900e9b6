import net from "node:net";

/** Below what systems give to clients and to servers that ask for port 0: no other program is given it before it is used. */
const ANY = { from: 10_000, count: 20_000 };

/** The first one from there on that nobody has; 0: any. */
export async function freePort(from = 0): Promise<number> {
  for (let port = from === 0 ? anyPort() : from; ; port = from === 0 ? anyPort() : port + 1) {
    const isFree = await new Promise<boolean>((resolve) => {
      const server = net.createServer();
      server.on("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
    });
    if (isFree) return port;
  }
}

function anyPort(): number {
  return ANY.from + Math.floor(Math.random() * ANY.count);
}

import net from "node:net";

/** A range below the ephemeral ports, so that the system gives a free port to no other program before it is used. */
const ANY = { from: 10_000, count: 20_000 };

/** The first free port from `from` on; 0: any free port. */
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

import net from "node:net";

/** The first one from there on that nobody has; 0: any. */
export async function freePort(from: number): Promise<number> {
  for (let port = from; ; port++) {
    const server = net.createServer();
    const got = await new Promise<number>((resolve) => {
      server.on("error", () => resolve(-1));
      server.listen(port, "127.0.0.1", () => {
        const { port: bound } = server.address() as net.AddressInfo;
        server.close(() => resolve(bound));
      });
    });
    if (got > 0) return got;
  }
}

import http from "node:http";
import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import type { Readable } from "node:stream";
import { Authority, type Pair } from "../integration/certificates.ts";
import {
  bootstrap,
  cluster,
  downstreamTls,
  listener,
  http as manager,
  route,
  unlimited,
} from "../integration/config.ts";
import { Proxy } from "../integration/proxy.ts";
import type { Outcome } from "./outside.ts";

const STREAMS = 600;
const AT_ONCE = 48;
const MAX_BYTES = 200_000;
const MAX_PIECE = 20_000;

/** The byte at `k` of the body of stream `id`, in both directions: two streams agree in one byte of 256. */
function byteOf(id: number, k: number): number {
  return Math.imul(id * 8 + (k & 7) + 1, 0x9e3779b1) >>> 24;
}

function piece(id: number, from: number, size: number): Buffer {
  const bytes = Buffer.allocUnsafe(size);
  for (let k = 0; k < size; k++) bytes[k] = byteOf(id, from + k);
  return bytes;
}

/** Counts the bytes of one body that are not its own. */
class Check {
  at = 0;
  foreign = 0;
  readonly #id: number;

  constructor(id: number) {
    this.#id = id;
  }

  take(bytes: Buffer): void {
    for (const byte of bytes) if (byte !== byteOf(this.#id, this.at++)) this.foreign++;
  }
}

const totals = { whole: 0, cut: 0, bytes: 0, foreign: 0, short: 0 };
const below = (limit: number): number => Math.floor(Math.random() * limit);

/** Sends back what it gets. A path `/<protocol>/<id>/<bytes>` cuts the stream off after so many; -1: never. */
function echo(path: string, request: Readable, response: NodeJS.WritableStream, cut: () => void) {
  const [, , id, cutAfter] = path.split("/").map(Number);
  const check = new Check(id!);
  response.on("error", () => {});
  request
    .on("error", () => {})
    .on("data", (bytes: Buffer) => {
      const { foreign } = check;
      check.take(bytes);
      totals.foreign += check.foreign - foreign;
      if (cutAfter! >= 0 && check.at > cutAfter!) return cut();
      if (!response.write(bytes)) {
        request.pause();
        response.once("drain", () => request.resume());
      }
    });
  request.on("end", () => response.end());
}

async function listening(server: http.Server | http2.Http2Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

interface Exchange {
  readonly stream: http2.ClientHttp2Stream;
  readonly cancel: () => void;
}
type Ask = (path: string) => Exchange;

function overHttp2(url: string, ca: string): { ask: Ask; close: () => void } {
  const session = http2.connect(url, { ca }).on("error", () => {});
  return {
    ask: (path) => {
      const stream = session.request({ ":method": "POST", ":path": path });
      return { stream, cancel: () => stream.close(http2.constants.NGHTTP2_CANCEL) };
    },
    close: () => session.destroy(),
  };
}

/** Writes a body, reads it back; half of the streams are cut off by one side at a random moment. */
async function exchange(ask: Ask, protocol: string, id: number): Promise<void> {
  const size = below(MAX_BYTES);
  const [clientCuts, originCuts] = [Math.random() < 0.25, Math.random() < 0.25];
  const cutAt = clientCuts ? below(size) : -1;
  const { stream, cancel } = ask(`/${protocol}/${id}/${originCuts ? below(size) : -1}`);
  const check = new Check(id);
  await new Promise<void>((resolve) => {
    stream.on("error", () => {}).on("close", resolve);
    // Node may hand out bytes before it tells of the head.
    let status: number | undefined;
    const early: Buffer[] = [];
    const take = (bytes: Buffer): void => {
      // The proxy's own words, when the origin went before it answered, are nobody's bytes.
      if (status !== 200) return;
      check.take(bytes);
      if (cutAt >= 0 && check.at >= cutAt) cancel();
    };
    stream.on("response", (head) => {
      status = head[":status"];
      for (const bytes of early) take(bytes);
    });
    stream.on("data", (bytes: Buffer) => {
      if (status === undefined) early.push(bytes);
      else take(bytes);
    });
    let at = 0;
    const write = (): void => {
      for (; at < size; ) {
        if (stream.destroyed) return;
        const next = piece(id, at, Math.min(1 + below(MAX_PIECE), size - at));
        at += next.length;
        if (!stream.write(next)) return void stream.once("drain", write);
      }
      stream.end();
    };
    write();
  });
  totals.bytes += check.at;
  totals.foreign += check.foreign;
  if (check.at === size) totals.whole++;
  else totals.cut++;
  if (check.at > size || (!clientCuts && !originCuts && check.at < size)) totals.short++;
}

function config(pair: Pair, ports: { readonly h1: number; readonly h2: number }) {
  const filter = manager([
    route("/h1/", "h1", { timeout: "0s" }),
    route("/h2/", "h2", { timeout: "0s" }),
  ]);
  const transport_socket = downstreamTls(pair);
  return bootstrap(
    [
      listener("plain", filter),
      { ...listener("secure", filter), filter_chains: [{ filters: [filter], transport_socket }] },
    ],
    [
      cluster("h1", [ports.h1], unlimited),
      cluster("h2", [ports.h2], { ...unlimited, http2_protocol_options: {} }),
    ],
  );
}

/**
 * Streams over HTTP/2, with TLS and without, to echoing origins of HTTP/1.1 and HTTP/2, cut off at random moments by
 * either side: no byte may come out of another stream than it went into, and nothing may be missing of the others.
 */
export async function foreignBytes(env: Readonly<Record<string, string>>): Promise<Outcome> {
  const authority = new Authority("bytes");
  const site = authority.issue("site", "localhost", "DNS:localhost");
  const origin1 = http.createServer((request, response) =>
    echo(request.url!, request, response, () => request.socket.destroy()),
  );
  const origin2 = http2.createServer();
  origin2.on("stream", (stream, headers) => {
    stream.respond({});
    echo(headers[":path"]!, stream, stream, () => stream.close(http2.constants.NGHTTP2_CANCEL));
  });
  origin2.on("sessionError", () => {});
  const ports = { h1: await listening(origin1), h2: await listening(origin2) };
  const proxy = await Proxy.start({ config: config(site, ports), env });
  const ca = authority.root.pem;
  const clients = [0, 1, 2, 3].map((k) =>
    overHttp2(
      k % 2 === 0
        ? `http://127.0.0.1:${proxy.port("plain")}`
        : `https://localhost:${proxy.port("secure")}`,
      ca,
    ),
  );
  for (const name of Object.keys(totals) as (keyof typeof totals)[]) totals[name] = 0;
  let id = 0;
  const worker = async (): Promise<void> => {
    while (id < STREAMS) {
      const mine = id++;
      await exchange(clients[mine % clients.length]!.ask, mine % 3 === 0 ? "h1" : "h2", mine);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  for (const { close } of clients) close();
  await proxy.stop();
  origin1.close();
  origin2.close();
  authority.dispose();
  const { whole, cut, bytes, foreign, short } = totals;
  console.log(
    `${whole} streams whole, ${cut} cut off, ${bytes} bytes: ${foreign} foreign, ${short} streams short or long`,
  );
  return foreign === 0 && short === 0 && whole > STREAMS / 3 ? "passed" : "failed";
}

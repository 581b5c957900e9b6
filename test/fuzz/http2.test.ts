import http2 from "node:http2";
import { Duplex } from "node:stream";
import {
  Chunk,
  type CodecFactory,
  latin1Decode,
  type RequestDecoder,
  RequestHeaders,
  type ResponseDecoder,
  type ResponseEncoder,
  ResponseHeaders,
  type ServerCodec,
} from "@tsproxy/sdk";
import { CODEC_OPTIONS, requestHeaders, TestConnection, TestContext } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import codec from "../../filters/codec/http2/filter.ts";
import { Random } from "./random.ts";

/** Node's own HTTP/2 (nghttp2) is the other end: what it writes we must read as it meant it, and the reverse. */

const ROUNDS = Number(process.env["FUZZ_ROUNDS"] ?? 40);

/** Our end of a pipe: what a codec writes goes to Node's side, in pieces of random size. */
class Pipe extends TestConnection {
  readonly far: Duplex;
  receive: (chunk: Chunk) => void = () => {};
  readonly #agains: (() => void)[] = [];

  constructor(cut: () => number) {
    super();
    this.far = new Duplex({
      read() {},
      write: (bytes: Buffer, _encoding, done) => {
        for (let at = 0; at < bytes.length; ) {
          const end = Math.min(bytes.length, at + cut());
          this.receive(new Chunk(new Uint8Array(bytes.subarray(at, end)), 0, end - at));
          at = end;
        }
        this.flush();
        done();
      },
    });
  }
  onAgain(call: () => void): void {
    this.#agains.push(call);
  }
  override again(): void {
    queueMicrotask(() => this.flush());
  }
  flush(): void {
    for (const call of this.#agains) call();
  }
  override write(memory: Uint8Array, at: number, end: number): void {
    if (this.open) this.far.push(Buffer.from(memory.slice(at, end)));
  }
  override close(how: "flush" | "abort" | "reset"): void {
    super.close(how);
    this.far.push(null);
  }
}

const factory = (): CodecFactory => new TestContext().setup(codec, {});

/** Header fields that HTTP/2 can carry: short and long, plain and with every byte that a value may have. */
function fields(random: Random): [string, string][] {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random.next() * list.length)]!;
  const names = ["x-a", "x-request-id", "x_y", "a-name-of-some-length", "b"];
  return Array.from({ length: Math.floor(random.next() * 12) }, () => {
    const size = pick([0, 1, 5, 20, 100, 126, 127, 128, 400]);
    const alphabet = pick(["abc123", "ABC {}|~;,", "0123456789", "\x80\xe9\xff!"]);
    const value = Array.from({ length: size }, () => pick([...alphabet])).join("");
    return [pick(names), value.trim()];
  });
}

/** As Node wants them: several values of a name are a list. */
function grouped(list: readonly [string, string][]): Record<string, string[]> {
  const groups: Record<string, string[]> = {};
  for (const [name, value] of list) {
    groups[name] ??= [];
    groups[name].push(value);
  }
  return groups;
}

const sorted = (list: readonly (readonly [string, string])[]): string[] =>
  list.map(([name, value]) => `${name}: ${value}`).sort();

/** Of some names one line is kept, with all values in it but empty ones (`HeaderMap`). */
function kept(sent: readonly (readonly [string, string])[]): (readonly [string, string])[] {
  const ids = sent.filter(([name]) => name === "x-request-id").map(([, value]) => value);
  const others = sent.filter(([name]) => name !== "x-request-id");
  return ids.length === 0
    ? others
    : [...others, ["x-request-id", ids.filter((id) => id !== "").join(",")]];
}

/** A server of ours that answers each request with its own fields. */
class Echo implements RequestDecoder {
  readonly headers = new RequestHeaders();
  readonly #encoder: ResponseEncoder;

  constructor(encoder: ResponseEncoder) {
    this.#encoder = encoder;
  }
  onRequestHeaders(_info: unknown, endStream: boolean): void {
    const answer = new ResponseHeaders();
    answer.status = 200;
    for (const [name, value] of this.headers) if (name !== "host") answer.append(name, value);
    this.#encoder.encodeHeaders(answer, endStream);
  }
  onRequestBody(chunk: Chunk, endStream: boolean): void {
    this.#encoder.encodeBody(chunk.memory, chunk.at, chunk.end, endStream);
  }
  onRequestTrailers(): void {}
  onDecodeError(): void {}
  onReset(): void {}
  onBlocked(): void {}
}

it("reads what nghttp2 writes, and writes what it reads", async () => {
  for (let seed = 1; seed <= ROUNDS; seed++) {
    const random = new Random(seed);
    const pipe = new Pipe(() => 1 + Math.floor(random.next() * random.next() * 3000));
    const server = factory().createServer(
      pipe,
      { onStream: (encoder) => new Echo(encoder), onIdleEnd: () => {} },
      CODEC_OPTIONS,
    );
    pipe.receive = (chunk) => server.onData(chunk);
    pipe.onAgain(() => server.onAgain());
    const settings = { headerTableSize: [0, 100, 4096, 65_536][seed % 4]! };
    const session = http2.connect("http://a", { createConnection: () => pipe.far, settings });
    session.on("error", (error) => {
      throw error;
    });
    for (let k = 0; k < 12; k++) {
      const sent = fields(random);
      const headers = { ":path": "/", ...grouped(sent) };
      const body = "b".repeat(Math.floor(random.next() * random.next() * 100_000));
      const stream = session.request(headers, { endStream: body === "" });
      if (body !== "") stream.end(body);
      let got: string[] = [];
      let size = 0;
      stream.on("response", (_h, _f, list) => {
        const pairs: [string, string][] = [];
        const flat = (list ?? []) as unknown as string[];
        for (let i = 0; i < flat.length; i += 2) pairs.push([flat[i]!, flat[i + 1]!]);
        got = sorted(pairs.filter(([name]) => name !== ":status"));
      });
      stream.on("data", (piece: Buffer) => {
        size += piece.length;
      });
      await new Promise((done) => stream.once("close", done));
      expect(got, `seed ${seed}, request ${k}`).toEqual(sorted(kept(sent)));
      expect(size).toBe(body.length);
    }
    session.destroy();
  }
});

it("asks nghttp2 as a client, and understands its answers", async () => {
  for (let seed = 1; seed <= ROUNDS; seed++) {
    const random = new Random(seed + 5000);
    const pipe = new Pipe(() => 1 + Math.floor(random.next() * random.next() * 3000));
    const tableSize = [0, 64, 4096, 65_536][seed % 4]!;
    const server = http2.createServer({ settings: { headerTableSize: tableSize } });
    server.on("stream", (stream, _headers, _flags, list) => {
      const flat = list as unknown as string[];
      const own: [string, string][] = [];
      for (let i = 0; i < flat.length; i += 2)
        if (!flat[i]!.startsWith(":")) own.push([flat[i]!, flat[i + 1]!]);
      stream.respond({ ":status": 200, ...grouped(own) });
      stream.pipe(stream);
    });
    const client = factory().createClient(
      pipe,
      { onIdle: () => {}, onRetire: () => {} },
      CODEC_OPTIONS,
    );
    pipe.receive = (chunk) => client.onData(chunk);
    pipe.onAgain(() => client.onAgain?.());
    server.emit("connection", pipe.far);
    for (let k = 0; k < 12; k++) {
      const sent = fields(random);
      const answer = await new Promise<{ lines: string[]; body: string }>((resolve, reject) => {
        let body = "";
        const decoder: ResponseDecoder = {
          responseHeaders: new ResponseHeaders(),
          onInformational: () => {},
          onResponseHeaders: () => {
            decoder.responseHeaders.detach();
          },
          onResponseBody: (chunk, endStream) => {
            body += latin1Decode(chunk.memory, chunk.at, chunk.end);
            const all = [...decoder.responseHeaders].filter(([name]) => name !== "date");
            if (endStream) resolve({ lines: sorted(all), body });
          },
          onResponseTrailers: () => {},
          onDecodeError: (error) => reject(new Error(error.details)),
          onUpstreamReset: (reason) => reject(new Error(reason)),
          onUpstreamBlocked: () => {},
        };
        const encoder = client.newStream(decoder);
        encoder.encodeHeaders(requestHeaders("POST", "/x", "host", "a", ...sent.flat()), false, "");
        const bytes = new Uint8Array(200 * k).fill(98);
        encoder.encodeBody(bytes, 0, bytes.length, true);
      });
      expect(answer.lines, `seed ${seed}, request ${k}`).toEqual(sorted(kept(sent)));
      expect(answer.body).toBe("b".repeat(200 * k));
    }
    pipe.far.destroy();
  }
});

/** Frames of a client that has read half of the RFC. */
function noise(random: Random): Uint8Array {
  const frames: number[] = [];
  for (let n = Math.floor(random.next() * 30); n >= 0; n--) {
    const size = Math.floor(random.next() * random.next() * 60);
    const type = Math.floor(random.next() * 11);
    const id = random.next() < 0.3 ? 0 : Math.floor(random.next() * 12);
    frames.push(0, 0, size, type, Math.floor(random.next() * 256), 0, 0, 0, id);
    const block = [0x82, 0x86, 0x84, 0x41, 0x01, 0x61, 0xbe, 0x40, 0x01, 0x78, 0x01, 0x79];
    const isBlock = random.next() < 0.6;
    for (let k = 0; k < size; k++)
      frames.push(isBlock ? block[k % block.length]! : Math.floor(random.next() * 256));
  }
  return Uint8Array.from(frames);
}

it("never throws and never writes half a frame, whatever comes", () => {
  const preface = new TextEncoder().encode("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  const settings = Uint8Array.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
  for (let seed = 1; seed <= ROUNDS * 50; seed++) {
    const random = new Random(seed);
    const connection = new TestConnection();
    const make = factory();
    const server: ServerCodec = make.createServer(
      connection,
      { onStream: (encoder) => new Echo(encoder), onIdleEnd: () => {} },
      CODEC_OPTIONS,
    );
    const bytes = Uint8Array.from([...preface, ...settings, ...noise(random), ...noise(random)]);
    for (let at = 0; at < bytes.length; ) {
      const end = Math.min(bytes.length, at + 1 + Math.floor(random.next() * 200));
      server.onData(new Chunk(bytes.slice(at, end), 0, end - at));
      server.onAgain();
      at = end;
    }
    const written = connection.written;
    let at = 0;
    while (at < written.length) {
      const size = (written.charCodeAt(at) << 16) | (written.charCodeAt(at + 1) << 8);
      at += 9 + (size | written.charCodeAt(at + 2));
    }
    expect(at, `seed ${seed}`).toBe(written.length);
    server.onClosed({ by: "remote", phase: "connected", timeout: false, error: undefined });
    expect(server.active).toBe(false);
  }
});

import type { Chunk } from "../bytes.ts";
import { latin1Decode } from "../bytes.ts";
import type {
  ClientCodec,
  ClientEvents,
  CodecFactory,
  RequestEncoder,
  ResponseDecoder,
} from "../codec.ts";
import { HeaderMap } from "../headers.ts";
import type { Connection } from "../network.ts";

/** What a client codec was given to encode. */
export interface EncodedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: readonly (readonly [string, string])[];
  body: string;
}

/** A client codec without a wire: a test reads `requests`, and answers with `respond`. */
export class TestClientCodec implements ClientCodec {
  readonly requests: EncodedRequest[] = [];
  readonly #connection: Connection;
  readonly #events: ClientEvents;
  #decoder: ResponseDecoder | undefined = undefined;

  constructor(connection: Connection, events: ClientEvents) {
    this.#connection = connection;
    this.#events = events;
  }

  /** A factory that adds each codec which it makes to `made`. */
  static factory(made: TestClientCodec[], protocol: "HTTP/1.1" | "HTTP/2"): CodecFactory {
    return {
      protocol,
      createServer: () => {
        throw new Error("this codec has no server side");
      },
      createClient: (connection, events) => {
        const codec = new TestClientCodec(connection, events);
        made.push(codec);
        return codec;
      },
    };
  }

  get active(): boolean {
    return this.#decoder !== undefined;
  }

  newStream(decoder: ResponseDecoder): RequestEncoder {
    this.#decoder = decoder;
    return {
      encodeHeaders: (headers) => {
        const { method, path } = headers;
        this.requests.push({ method, path, headers: [...headers], body: "" });
      },
      encodeBody: (memory, at, end) => {
        this.requests.at(-1)!.body += latin1Decode(memory, at, end);
      },
      encodeTrailers: () => {},
      reset: () => this.#connection.close("abort"),
      pauseReading: () => {},
    };
  }

  /** Answers the request in progress. `close`: the peer wants the connection closed. */
  respond(
    status: number,
    headers: Readonly<Record<string, string>> = {},
    options: {
      readonly body?: Chunk;
      readonly trailers?: Readonly<Record<string, string>>;
      readonly close?: boolean;
    } = {},
  ): void {
    const decoder = this.#decoder!;
    this.#decoder = undefined;
    decoder.responseHeaders.reset();
    decoder.responseHeaders.status = status;
    for (const [name, value] of Object.entries(headers))
      decoder.responseHeaders.append(name, value);
    if (options.close === true) this.#events.onRetire();
    const { body, trailers } = options;
    decoder.onResponseHeaders(body === undefined && trailers === undefined);
    if (body !== undefined) decoder.onResponseBody(body, trailers === undefined);
    if (trailers !== undefined) {
      const map = new HeaderMap();
      for (const [name, value] of Object.entries(trailers)) map.append(name, value);
      decoder.onResponseTrailers(map);
    }
    this.#events.onIdle();
  }

  onData(): void {}
  onEof(): void {
    this.#reset();
  }
  onBlocked(): void {}
  onClosed(): void {
    this.#reset();
  }
  #reset(): void {
    const decoder = this.#decoder;
    this.#decoder = undefined;
    decoder?.onUpstreamReset("connection_closed", undefined);
  }
}

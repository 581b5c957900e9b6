import type { Chunk } from "./bytes.ts";
import type {
  ClientCodec,
  ClientEvents,
  CodecFactory,
  CodecOptions,
  RequestEncoder,
  ResponseDecoder,
} from "./codec.ts";
import type { Generation, Slot } from "./extension.ts";
import type { FormatSource } from "./format.ts";
import { type HeaderMap, type RequestHeaders, ResponseHeaders } from "./headers.ts";
import type { HealthTarget } from "./health.ts";
import { newStreamInfo, type StreamInfo } from "./http.ts";
import type { Address, CloseEvent, Connection, ConnectionHandler } from "./network.ts";

const CODEC_OPTIONS: CodecOptions = {
  maxHeadBytes: 60 * 1024,
  maxHeaders: 100,
  enableTrailers: true,
  acceptHttp10: true,
  defaultHostForHttp10: "",
  allowAbsoluteUrl: true,
  allowChunkedLength: false,
  allowCustomMethods: true,
  headersWithUnderscores: "ALLOW",
};

/** A host's whole answer to a probe. */
export interface HttpProbeAnswer {
  readonly headers: ResponseHeaders;
  /** As much as was asked to be kept. */
  readonly body: Uint8Array;
  readonly trailers: HeaderMap | undefined;
}

/**
 * Health checks by HTTP: one exchange after the other with one host, over a connection of their own.
 *
 *   idle ──ask──> connecting ──> asked ──answer, failure──> idle
 */
export class HttpProbe implements ConnectionHandler, ClientEvents, ResponseDecoder {
  readonly responseHeaders = new ResponseHeaders();
  readonly #target: HealthTarget;
  readonly #codecs: Slot<CodecFactory>;
  readonly #bodyBytes: number;
  readonly #onAnswer: (answer: HttpProbeAnswer) => void;
  readonly #onFailed: () => void;
  #head: RequestHeaders | undefined = undefined;
  #payload: Uint8Array | undefined = undefined;
  #connection: Connection | undefined = undefined;
  #codec: ClientCodec | undefined = undefined;
  #generation: Generation<CodecFactory> | undefined = undefined;
  #encoder: RequestEncoder | undefined = undefined;
  #asked = false;
  /** The connection takes no further exchange. */
  #spent = false;
  /** A method of the codec is running: the connection may not be dropped before it returns. */
  #reading = false;
  #body: Uint8Array = new Uint8Array(0);

  /** `bodyBytes`: how much of a body is kept. Each `ask` ends with exactly one call of `onAnswer` or `onFailed`. */
  constructor(
    target: HealthTarget,
    codec: Slot<CodecFactory>,
    bodyBytes: number,
    onAnswer: (answer: HttpProbeAnswer) => void,
    onFailed: () => void,
  ) {
    this.#target = target;
    this.#codecs = codec;
    this.#bodyBytes = bodyBytes;
    this.#onAnswer = onAnswer;
    this.#onFailed = onFailed;
  }

  ask(head: RequestHeaders, payload: Uint8Array | undefined): void {
    this.#asked = true;
    this.#head = head;
    this.#payload = payload;
    this.#body = new Uint8Array(0);
    if (this.#connection?.open === true && this.#codec !== undefined) this.#send();
    else {
      this.#drop();
      this.#spent = false;
      this.#connection = this.#target.connect(this);
    }
  }

  /** Gives up the exchange and its connection; neither `onAnswer` nor `onFailed` is called. */
  cancel(): void {
    this.#asked = false;
    this.#drop();
  }

  #send(): void {
    const payload = this.#payload;
    const encoder = this.#codec!.newStream(this);
    this.#encoder = encoder;
    encoder.encodeHeaders(this.#head!, payload === undefined, "");
    if (payload !== undefined) encoder.encodeBody(payload, 0, payload.length, true);
  }

  #drop(): void {
    const connection = this.#connection;
    this.#connection = undefined;
    this.#codec = undefined;
    this.#encoder = undefined;
    this.#generation?.release();
    this.#generation = undefined;
    connection?.close("abort");
  }

  #fail(): void {
    this.#drop();
    if (!this.#asked) return;
    this.#asked = false;
    this.#onFailed();
  }

  #finish(trailers: HeaderMap | undefined): void {
    this.#encoder = undefined;
    if (!this.#asked) return;
    this.#asked = false;
    this.#onAnswer({ headers: this.responseHeaders, body: this.#body, trailers });
    if (!this.#target.reuseConnection) this.#spent = true;
    if (this.#spent && !this.#reading) this.#drop();
  }

  // ---- the socket

  onConnected(): void {
    if (this.#connection === undefined) return;
    this.#generation = this.#codecs.current;
    this.#generation.acquire();
    this.#codec = this.#generation.value.createClient(this.#connection, this, CODEC_OPTIONS);
    if (this.#asked) this.#send();
  }

  onData(chunk: Chunk): void {
    const codec = this.#codec;
    // Over HTTP/1 a server has nothing to say between exchanges; HTTP/2 has frames for the connection.
    if (codec === undefined || (!this.#asked && codec.capacity === undefined)) {
      this.#drop();
      return;
    }
    this.#reading = true;
    codec.onData(chunk);
    this.#reading = false;
    if (this.#spent && !this.#asked) this.#drop();
  }

  onEof(): void {
    const codec = this.#codec;
    this.#spent = true;
    this.#reading = true;
    if (this.#asked) codec?.onEof();
    this.#reading = false;
    if (!this.#asked) this.#drop();
  }

  onAgain(): void {
    this.#codec?.onAgain?.();
  }
  onBlocked(): void {
    this.#codec?.onBlocked(true);
  }
  onDrained(): void {
    this.#codec?.onBlocked(false);
  }

  onClosed(event: CloseEvent): void {
    if (this.#connection === undefined) return;
    if (this.#encoder !== undefined) this.#codec?.onClosed(event);
    this.#fail();
  }

  // ---- the codec

  onIdle(): void {}
  onRetire(): void {
    this.#spent = true;
  }
  onInformational(): void {}
  onUpstreamBlocked(): void {}

  onResponseHeaders(endStream: boolean): void {
    if (endStream) this.#finish(undefined);
    // It is read when the body has come, and the bytes it stands in are lent.
    else this.responseHeaders.detach();
  }

  onResponseBody(chunk: Chunk, endStream: boolean): void {
    const before = this.#body;
    const room = Math.min(chunk.end - chunk.at, this.#bodyBytes - before.length);
    if (room > 0) {
      this.#body = new Uint8Array(before.length + room);
      this.#body.set(before);
      this.#body.set(chunk.memory.subarray(chunk.at, chunk.at + room), before.length);
    }
    if (endStream) this.#finish(undefined);
  }

  onResponseTrailers(trailers: HeaderMap): void {
    this.#finish(trailers);
  }

  onDecodeError(): void {
    this.#encoder = undefined;
    this.#fail();
  }

  onUpstreamReset(): void {
    this.#encoder = undefined;
    this.#fail();
  }
}

const NOWHERE: Address = { ip: "127.0.0.1", port: 0 };

/** What the commands in a check's header rules can print: facts of the host; there is no client. */
export function probeSource(
  target: HealthTarget,
  request: RequestHeaders,
  protocol: StreamInfo["protocol"],
): FormatSource {
  const info = newStreamInfo({
    protocol,
    startTime: Date.now(),
    upstreamHost: target.address,
    downstreamRemoteAddress: NOWHERE,
    downstreamDirectAddress: NOWHERE,
    downstreamLocalAddress: NOWHERE,
  });
  return { info, request, response: undefined };
}

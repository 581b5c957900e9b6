import { ByteQueue, type Chunk, type HeaderMap, type RequestEncoder } from "@tsproxy/sdk";

const EMPTY = new Uint8Array(0);

/** A copy of a request's body and trailers: for a connection that is not there yet, and for retries, mirrors and redirects. */
export class KeptBody {
  trailers: HeaderMap | undefined = undefined;
  readonly #body = new ByteQueue();

  get size(): number {
    return this.#body.size;
  }

  get empty(): boolean {
    return this.size === 0 && this.trailers === undefined;
  }

  add(chunk: Chunk): void {
    this.#body.push(chunk.memory, chunk.at, chunk.end);
  }

  /** Sends body and trailers. `ended`: the request has nothing beyond them. */
  send(encoder: RequestEncoder, ended: boolean): void {
    const { trailers } = this;
    const { pieces } = this.#body;
    const ends = ended && trailers === undefined;
    for (let k = 0; k < pieces.length; k++) {
      const bytes = pieces[k]!;
      encoder.encodeBody(bytes, 0, bytes.length, ends && k === pieces.length - 1);
    }
    if (ends && pieces.length === 0) encoder.encodeBody(EMPTY, 0, 0, true);
    if (trailers !== undefined) encoder.encodeTrailers(trailers);
  }

  bytes(): Uint8Array {
    return this.#body.join();
  }
}

import type { Chunk, HeaderMap, RequestEncoder } from "@tsproxy/sdk";

const EMPTY = new Uint8Array(0);

/** A copy of a request's body and trailers: for a connection that is not there yet, and for retries, mirrors and redirects. */
export class KeptBody {
  size = 0;
  trailers: HeaderMap | undefined = undefined;
  #pieces: Uint8Array[] = [];

  get empty(): boolean {
    return this.size === 0 && this.trailers === undefined;
  }

  add(chunk: Chunk): void {
    if (chunk.length === 0) return;
    this.size += chunk.length;
    this.#pieces.push(chunk.copy());
  }

  /** Sends body and trailers. `ended`: the request has nothing beyond them. */
  send(encoder: RequestEncoder, ended: boolean): void {
    const { trailers } = this;
    const pieces = this.#pieces;
    const ends = ended && trailers === undefined;
    for (let k = 0; k < pieces.length; k++) {
      const bytes = pieces[k]!;
      encoder.encodeBody(bytes, 0, bytes.length, ends && k === pieces.length - 1);
    }
    if (ends && pieces.length === 0) encoder.encodeBody(EMPTY, 0, 0, true);
    if (trailers !== undefined) encoder.encodeTrailers(trailers);
  }

  bytes(): Uint8Array {
    const all = new Uint8Array(this.size);
    let at = 0;
    for (const piece of this.#pieces) {
      all.set(piece, at);
      at += piece.length;
    }
    return all;
  }
}

/** Number of closed streams that are remembered. */
const KEPT = 256;

/** Remembers the streams closed last, to tell frames sent before the peer knew of the end from protocol errors. */
export class ClosedStreams {
  readonly #ids = new Int32Array(KEPT);
  readonly #byUs = new Uint8Array(KEPT);
  #count = 0;

  add(id: number, byUs: boolean): void {
    const place = this.#count++ % KEPT;
    this.#ids[place] = id;
    this.#byUs[place] = byUs ? 1 : 0;
  }

  /** True if the stream is remembered, or may have been forgotten. */
  has(id: number): boolean {
    return this.#count > KEPT || this.#ids.includes(id);
  }

  /** True if we closed the stream, so that the peer may have sent a frame before it knew; also true if it is not remembered. */
  byUs(id: number): boolean {
    const place = this.#ids.indexOf(id);
    return place < 0 ? this.#count > KEPT : this.#byUs[place] === 1;
  }
}

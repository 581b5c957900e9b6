/** Streams that were closed last, so that what crossed their end on the wire is told from what never was right. */
const KEPT = 256;

export class ClosedStreams {
  readonly #ids = new Int32Array(KEPT);
  readonly #byUs = new Uint8Array(KEPT);
  #count = 0;

  add(id: number, byUs: boolean): void {
    const place = this.#count++ % KEPT;
    this.#ids[place] = id;
    this.#byUs[place] = byUs ? 1 : 0;
  }

  has(id: number): boolean {
    return this.#count > KEPT || this.#ids.includes(id);
  }

  /** Its peer may not have known yet when it sent this. Of streams long gone nobody knows; they get the benefit of the doubt. */
  byUs(id: number): boolean {
    const place = this.#ids.indexOf(id);
    return place < 0 ? this.#count > KEPT : this.#byUs[place] === 1;
  }
}

// Hot path if a cluster uses predictive preconnect: counts every exchange and connection of the worker.

/** Requests of all clusters on this worker and the room of their connections; used for predictive preconnect. */
export class Connectivity {
  pending = 0;
  active = 0;
  room = 0;

  /** True if current requests and one more, times `ratio`, exceed the capacity of the connections. */
  wants(ratio: number): boolean {
    return (this.pending + this.active + 1) * ratio > this.room + this.active;
  }
}

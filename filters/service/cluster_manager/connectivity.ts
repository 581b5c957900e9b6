// Hot path where a cluster looks ahead: every exchange and every connection of the worker is counted here.

/** Requests of all clusters of this worker, and how many more their connections have room for; counted if a cluster looks ahead. */
export class Connectivity {
  pending = 0;
  active = 0;
  room = 0;

  /** One more request is to come, and room for it and those there are, times `ratio`, is not there yet. */
  wants(ratio: number): boolean {
    return (this.pending + this.active + 1) * ratio > this.room + this.active;
  }
}

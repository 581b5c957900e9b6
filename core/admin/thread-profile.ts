import type { Session } from "node:inspector/promises";

/** A CPU profile of the thread that it is made on. Time inside isolates counts to the crossing into them. */
export class ThreadProfile {
  #session: Session | undefined;

  async start(): Promise<void> {
    const { Session } = await import("node:inspector/promises");
    this.#session = new Session();
    this.#session.connect();
    await this.#session.post("Profiler.enable");
    await this.#session.post("Profiler.start");
  }

  /** JSON, as DevTools opens it. */
  async stop(): Promise<string> {
    const session = this.#session;
    if (session === undefined) throw new Error("no profile is being taken");
    this.#session = undefined;
    const { profile } = await session.post("Profiler.stop");
    session.disconnect();
    return JSON.stringify(profile);
  }
}

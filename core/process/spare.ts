import type { ChildProcess } from "node:child_process";
import { closeSync } from "node:fs";
import { HeldSockets, type ListeningAt } from "./held-sockets.ts";
import { openMarks } from "./marks.ts";
import { type ProxyProgram, startProgram } from "./proxy-process.ts";

/**
 * A process of the proxy that is started before it is needed: when the one that serves dies, this one has loaded its modules and
 * started its threads, has the same sockets, bound, and waits for its options (`ownOptions`). Who takes it closes `sockets` and `marks`.
 */
export class Spare {
  readonly child: ChildProcess;
  readonly marks: number | undefined;
  readonly sockets: HeldSockets;
  readonly #listening: string;

  constructor(
    program: Omit<ProxyProgram, "args">,
    workers: number,
    listening: readonly ListeningAt[],
  ) {
    this.#listening = JSON.stringify(listening);
    this.marks = openMarks();
    this.sockets = new HeldSockets(listening);
    const { marks, sockets } = this;
    this.child = startProgram({
      ...program,
      args: ["", String(workers)],
      marks,
      held: sockets.fds,
    });
    // If this fails, another process is started when it is needed, and that is reported if it fails too.
    this.child.on("error", () => {});
  }

  /** True if its sockets are those of a process that listens at these. */
  isFor(listening: readonly ListeningAt[]): boolean {
    return this.#listening === JSON.stringify(listening);
  }

  drop(): void {
    this.child.kill("SIGKILL");
    this.sockets.close();
    if (this.marks !== undefined) closeSync(this.marks);
  }
}

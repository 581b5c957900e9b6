import type { FromWorker } from "../protocol.ts";
import type { DebugChannel, SandboxIsolate } from "../sandbox/isolate.ts";

/** How long the setup of a new isolate waits for main to set the breakpoints. */
const READY_MS = 2_000;

interface Session {
  readonly package: string;
  channel: DebugChannel | undefined;
  onReady: (() => void) | undefined;
}

/**
 * A worker's part of debugger sessions (inspector.ts has main's). A session is bound to the newest isolate of a package and moves
 * on with every generation.
 */
export class Debugging {
  readonly #post: (message: FromWorker) => void;
  readonly #current: (packageName: string) => SandboxIsolate | undefined;
  readonly #sessions = new Map<number, Session>();

  constructor(
    post: (message: FromWorker) => void,
    /** The package's isolate that serves; undefined: none does. */
    current: (packageName: string) => SandboxIsolate | undefined,
  ) {
    this.#post = post;
    this.#current = current;
  }

  open(session: number, packageName: string): void {
    const made: Session = { package: packageName, channel: undefined, onReady: undefined };
    this.#sessions.set(session, made);
    const isolate = this.#current(packageName);
    if (isolate !== undefined) this.#bind(session, made, isolate);
  }

  /** Passes a client's message of the Chrome DevTools protocol on to the isolate. */
  send(session: number, text: string): void {
    this.#sessions.get(session)?.channel?.send(text);
  }

  /** Called when main has set the breakpoints in the session's new isolate. */
  ready(session: number): void {
    this.#sessions.get(session)?.onReady?.();
  }

  close(session: number): void {
    const found = this.#sessions.get(session);
    this.#sessions.delete(session);
    found?.channel?.close();
  }

  /** Called when newer code of a package comes: ends the debugging of its isolate, so that one held at a line goes on. */
  leave(packageName: string): void {
    for (const session of this.#sessions.values()) {
      if (session.package !== packageName) continue;
      session.channel?.close();
      session.channel = undefined;
    }
  }

  /** Binds the package's sessions to a new isolate before its setup. Settles when the breakpoints are set. */
  async follow(packageName: string, isolate: SandboxIsolate): Promise<void> {
    const bound: Promise<void>[] = [];
    for (const [id, session] of this.#sessions)
      if (session.package === packageName) bound.push(this.#moved(id, session, isolate));
    await Promise.all(bound);
  }

  /** Called when a new isolate was dropped: binds its sessions to the one that serves. */
  restore(packageName: string): void {
    const isolate = this.#current(packageName);
    for (const [id, session] of this.#sessions)
      if (
        session.package === packageName &&
        isolate !== undefined &&
        session.channel?.isolate !== isolate
      )
        this.#bind(id, session, isolate);
  }

  #moved(id: number, session: Session, isolate: SandboxIsolate): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(late);
        session.onReady = undefined;
        resolve();
      };
      const late = setTimeout(done, READY_MS);
      session.onReady = done;
      this.#bind(id, session, isolate);
    });
  }

  #bind(id: number, session: Session, isolate: SandboxIsolate): void {
    session.channel?.close();
    const channel = isolate.debug((text) => {
      // Late messages of an isolate that the session has left are dropped.
      if (session.channel === channel) this.#post({ type: "inspected", session: id, text });
    });
    session.channel = channel;
    this.#post({ type: "inspect_bound", session: id, filename: isolate.filename });
  }

  dispose(): void {
    for (const session of [...this.#sessions.keys()]) this.close(session);
  }
}

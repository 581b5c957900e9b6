import type { FromWorker } from "./protocol.ts";
import type { DebugChannel, SandboxIsolate } from "./sandbox/isolate.ts";

/** Main has this long to set a new isolate's breakpoints before its code is set up. */
const READY_MS = 2_000;

interface Session {
  readonly package: string;
  channel: DebugChannel | undefined;
  onReady: (() => void) | undefined;
}

/**
 * A worker's half of debugger sessions (inspector.ts has the other): each is bound to the newest isolate of a package, and goes
 * with it from one generation to the next.
 */
export class Debugging {
  readonly #post: (message: FromWorker) => void;
  readonly #current: (packageName: string) => SandboxIsolate | undefined;
  readonly #sessions = new Map<number, Session>();

  constructor(
    post: (message: FromWorker) => void,
    /** The isolate that serves. */
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

  /** A message of the Chrome DevTools protocol. */
  send(session: number, text: string): void {
    this.#sessions.get(session)?.channel?.send(text);
  }

  ready(session: number): void {
    this.#sessions.get(session)?.onReady?.();
  }

  close(session: number): void {
    const found = this.#sessions.get(session);
    this.#sessions.delete(session);
    found?.channel?.close();
  }

  /** Newer code is on its way: what is stopped at a line goes on. */
  leave(packageName: string): void {
    for (const session of this.#sessions.values()) {
      if (session.package !== packageName) continue;
      session.channel?.close();
      session.channel = undefined;
    }
  }

  /** A new isolate of the package is about to be set up. Settles when its breakpoints stand. */
  async follow(packageName: string, isolate: SandboxIsolate): Promise<void> {
    const bound: Promise<void>[] = [];
    for (const [id, session] of this.#sessions)
      if (session.package === packageName) bound.push(this.#moved(id, session, isolate));
    await Promise.all(bound);
  }

  /** A new isolate came to nothing: sessions go back to the one that serves. */
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
      // What an isolate that has been left still says is of no use.
      if (session.channel === channel) this.#post({ type: "inspected", session: id, text });
    });
    session.channel = channel;
    this.#post({ type: "inspect_bound", session: id, filename: isolate.filename });
  }

  dispose(): void {
    for (const session of [...this.#sessions.keys()]) this.close(session);
  }
}

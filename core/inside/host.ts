/** The function by which the isolate calls core: a name and a text, mostly JSON. Not for the data path (0.6 µs a call). */
export type HostCall = (name: string, text: string) => string | void;

const OPERATIONS_AT_ONCE = 4096;

/** Calls from the builtin isolate to core: messages, questions answered at once, and asynchronous operations. */
export class Host {
  readonly #call: HostCall;
  readonly #waiting = new Map<
    number,
    { resolve: (value: unknown) => void; reject: (error: Error) => void }
  >();
  #next = 1;

  constructor(call: HostCall) {
    this.#call = call;
  }

  /** Sends a message as JSON. */
  tell(name: string, value: unknown): void {
    this.#call(name, JSON.stringify(value));
  }

  /** Sends a message whose text is not encoded as JSON, since it may be large (file lines). */
  tellText(name: string, text: string): void {
    this.#call(name, text);
  }

  /** Asks a question that core answers at once. Throws core's error. */
  ask(name: string, value: unknown): unknown {
    const text = this.#call(name, JSON.stringify(value)) as string;
    const { value: answer, error } = JSON.parse(text) as { value?: unknown; error?: string };
    if (error !== undefined) throw new Error(error);
    return answer;
  }

  /**
   * Lets core load the module of a package, or REGEX_MODULE (regexes.ts). `isPrepared`: as it is after the change that is pending.
   * Answers what went wrong, or "".
   */
  demand(name: string, isPrepared = false): string {
    return this.#call("module", JSON.stringify({ name, isPrepared })) ?? "";
  }

  /** JSON of the last value that any isolate has published under that topic; "": none. */
  topic(name: string): string {
    return this.#call("topic", JSON.stringify(name)) ?? "";
  }

  /** The same of all topics that begin with `prefix`, by topic. */
  topics(prefix: string): Readonly<Record<string, string>> {
    return JSON.parse(this.#call("topics", JSON.stringify(prefix)) || "{}");
  }

  log(level: string, message: string, fields: Readonly<Record<string, unknown>>): void {
    this.tell("log", { level, message, fields });
  }

  fault(packageName: string, error: unknown): void {
    const e = error instanceof Error ? error : new Error(String(error));
    this.tell("fault", { package: packageName, reason: e.message, stack: e.stack ?? "" });
  }

  /** Starts an operation that core answers later (`onReply`). */
  operation(name: string, args: unknown): Promise<unknown> {
    if (this.#waiting.size >= OPERATIONS_AT_ONCE)
      return Promise.reject(new Error("too many operations at once"));
    return new Promise((resolve, reject) => {
      const call = this.#next++;
      this.#waiting.set(call, { resolve, reject });
      this.tell("operation", { call, name, args: args ?? null });
    });
  }

  onReply(reply: {
    readonly call: number;
    readonly value: unknown;
    readonly error?: string;
  }): void {
    const waiter = this.#waiting.get(reply.call);
    if (waiter === undefined) return;
    this.#waiting.delete(reply.call);
    if (reply.error !== undefined) waiter.reject(new Error(reply.error));
    else waiter.resolve(reply.value);
  }
}

import type { SandboxUse } from "../inside/sandbox/context.ts";
import type { Account } from "./accounts.ts";
import type { SandboxFault } from "./options.ts";

/** Unhandled promise rejections are reported this often at most. */
const UNCAUGHT_MS = 1_000;

/** Tells what goes wrong in one sandbox, and where in the config the code is used that has done it. */
export class FaultReports {
  readonly #package: string;
  readonly #onFault: (fault: SandboxFault) => void;
  readonly #useOf: (id: number) => SandboxUse | undefined;
  /** Where in the config of its chain each per-route config stands, by use and part. */
  readonly #paths = new Map<number, Map<number, string>>();
  #uncaughtAt = Number.NEGATIVE_INFINITY;

  constructor(
    packageName: string,
    onFault: (fault: SandboxFault) => void,
    useOf: (id: number) => SandboxUse | undefined,
  ) {
    this.#package = packageName;
    this.#onFault = onFault;
    this.#useOf = useOf;
  }

  /** A use has met a per-route config; `path`: where it stands in the config of its chain. */
  name({ use, part }: Account, path: string): void {
    let paths = this.#paths.get(use);
    if (paths === undefined) this.#paths.set(use, (paths = new Map()));
    paths.set(part, path);
  }

  /** A use has ended. */
  forget(use: number): void {
    this.#paths.delete(use);
  }

  /** A fault that is charged to this account. `openMs`: for so long it is in its failure policy; 0: it is not, and `then` is added. */
  charged(what: string, error: unknown, account: Account, openMs: number, then = ""): void {
    const { message, stack } = errorText(error);
    const left = openMs > 0 ? `; not entered for ${openMs} ms` : then;
    this.#onFault({
      package: this.#package,
      reason: `${what}: ${message}${left}`,
      stack,
      ...this.#placeOf(account),
      ...(openMs > 0 && { openMs }),
    });
  }

  /** Some answer has not come in time; `late`: how many have not so far. */
  late(pauseMs: number, late: number): void {
    const reason = `no answer within ${pauseMs} ms (${late} so far)`;
    this.#onFault({ package: this.#package, reason, stack: "" });
  }

  /** An unhandled promise rejection, which fails no stream. Told once a second at most: a filter may cause one per request. */
  uncaught(error: unknown, now: number): void {
    if (now - this.#uncaughtAt < UNCAUGHT_MS) return;
    this.#uncaughtAt = now;
    const { message, stack } = errorText(error);
    const reason = `a promise was rejected, and nobody caught it: ${message}`;
    this.#onFault({ package: this.#package, reason, stack });
  }

  #placeOf({ use, part }: Account): Pick<SandboxFault, "place" | "path"> {
    const found = this.#useOf(use);
    if (found === undefined) return {};
    if (part === 0) return { place: found.place, path: "" };
    // Beside the use, in the chain that both are in.
    const place = found.place.slice(0, found.place.lastIndexOf("/"));
    return { place, path: this.#paths.get(use)?.get(part) ?? "" };
  }
}

export function errorText(error: unknown): { message: string; stack: string } {
  if (error instanceof Error) return { message: error.message, stack: error.stack ?? "" };
  return { message: String(error), stack: "" };
}

import type { PoolHandle } from "@tsproxy/sdk";

/** A request that waits until the host it names has an address. */
export class AwaitedHost implements PoolHandle {
  #handle: PoolHandle | undefined = undefined;
  #cancelled = false;

  /** `begin` takes the host. */
  constructor(named: Promise<unknown>, begin: () => PoolHandle | undefined) {
    void named.then(() => {
      if (!this.#cancelled) this.#handle = begin();
    });
  }

  cancel(): void {
    this.#cancelled = true;
    this.#handle?.cancel();
  }
}

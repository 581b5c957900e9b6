// Hot path: one object a request, reused with its HcmStream.
import type { Generation, HttpFilter } from "@tsproxy/sdk";
import type { FilterSlot } from "./runtime.ts";
import type { HcmStream } from "./stream.ts";
import { StreamView } from "./stream-view.ts";

/** The filters of one pass of a request (an internal redirect begins another): makes, ends, and calls them outside of walks. */
export class StreamFilters {
  /** The filters in order, as the walks take them: a walk sets those that are done with the stream to undefined. */
  readonly live: (HttpFilter | undefined)[] = [];
  /** Code and loggers that the stream holds until it ends, so that a reload does not dispose of them. */
  readonly held: Generation<unknown>[] = [];
  readonly #stream: HcmStream;
  readonly #filters: HttpFilter[] = [];
  readonly #views: StreamView[] = [];

  constructor(stream: HcmStream) {
    this.#stream = stream;
  }

  get count(): number {
    return this.#filters.length;
  }

  /** Makes and adds a filter. Throws what the filter's code throws; `nameOf(count)` then names the filter that failed. */
  add(slot: FilterSlot): void {
    const generation = slot.slot.current;
    generation.acquire();
    this.held.push(generation);
    const make = generation.value;
    const view = new StreamView(this.#stream, slot, make.routes);
    this.#views.push(view);
    const made = make(view);
    this.#filters.at(-1)?.meets?.(made);
    this.#filters.push(made);
    this.live.push(made);
  }

  nameOf(index: number): string {
    return this.#views[index]?.filterName ?? "";
  }

  /** Calls a hook of one filter outside of a walk. An error that it throws is logged. */
  call(index: number, hook: (filter: HttpFilter) => void): void {
    const filter = this.#filters[index];
    if (filter === undefined) return;
    try {
      hook(filter);
    } catch (error) {
      this.#stream.logFilterError(error, index);
    }
  }

  callTerminal(hook: (filter: HttpFilter) => void): void {
    this.call(this.#filters.length - 1, hook);
  }

  /** Tells the filters that the stream has ended, and forgets them. */
  end(): void {
    for (let k = 0; k < this.#filters.length; k++) this.call(k, callEnd);
    for (let k = 0; k < this.#views.length; k++) this.#views[k]!.end();
    for (let k = 0; k < this.held.length; k++) this.held[k]!.release();
    empty(this.#filters);
    empty(this.live);
    empty(this.#views);
    empty(this.held);
  }
}

// Made once: a closure for each call would cost more than the call.
const callEnd = (filter: HttpFilter): void => filter.onEnd?.();

/** Empties a list, but keeps its capacity, which `length = 0` would free. */
function empty(list: unknown[]): void {
  while (list.length > 0) list.pop();
}

import type { Definition, Kind } from "@tsproxy/sdk";
import type { Context } from "./context.ts";
import type { Host } from "./host.ts";
import type { Io } from "./io.ts";
import { ParkTable } from "./parked.ts";
import { parkedHttpFactory } from "./parked-http.ts";
import { parkedNetworkFactory } from "./parked-network.ts";
import { COMMAND } from "./ring.ts";

/** What the sandbox says of its package; `hooks` is a mask of layout.ts. */
export interface ParkedDescription {
  readonly kind: "http" | "network";
  readonly name: string;
  readonly hooks: number;
  readonly config: unknown;
}

/**
 * Stand-ins for packages that live in sandboxes. To the registry they are packages like any other: their setup tells core of
 * the use, which sets it up in the sandbox before the preparation is called good.
 */
export class Sandboxes {
  readonly table: ParkTable;
  readonly #host: Host;
  #nextUse = 1;

  constructor(io: Io, host: Host) {
    this.#host = host;
    this.table = new ParkTable({
      memory: io.memory,
      words: io.control,
      reserve: (size) => io.reserveBlock(size),
      park: (box, token, at, size) => io.command(COMMAND.PARK | (box << 8), token, at, size),
      forget: (box, token) => io.command(COMMAND.FORGET | (box << 8), token, 0, 0),
      again: () => io.touch(),
      malformed: (box, reason) => host.tell("malformed", { box, reason }),
    });
  }

  /** A definition whose filters live in that box. */
  define(packageName: string, box: number, description: ParkedDescription): Definition {
    const { kind, name, hooks } = description;
    return {
      kind: kind as Kind,
      name,
      config: {} as never,
      setup: (config, cx) => {
        const use = this.#nextUse++;
        const { place, previousUse } = (cx as Context).claimUse(use);
        const { statPrefix } = cx as Context;
        const told = { package: packageName, box, use, place, statPrefix, config, previousUse };
        this.#host.tell("use", told);
        cx.onDispose(() => this.#host.tell("unuse", { box, use }));
        const make = kind === "http" ? parkedHttpFactory : parkedNetworkFactory;
        return make(box, use, hooks, this.table);
      },
    };
  }
}

import {
  type AccessLogger,
  HeaderMap,
  type LogEntry,
  type LoggedConnection,
  RequestHeaders,
  ResponseHeaders,
} from "@tsproxy/sdk";
import { PLAIN } from "../parked-log.ts";
import type { Asked } from "./asks.ts";
import type { Surroundings } from "./surroundings.ts";

type Lines = readonly (readonly [name: string, value: string])[];
type Entries = readonly (readonly [string, Record<string, unknown>])[];

/** A LogEntry as JSON: what parked-log.ts sends. */
type ToldEntry = Pick<LogEntry, "info" | (typeof PLAIN)[number]> & {
  readonly request?: {
    readonly method: string;
    readonly path: string;
    readonly scheme: string;
    readonly lines: Lines;
  };
  readonly response?: { readonly status: number; readonly lines: Lines };
  readonly trailers?: Lines;
  readonly metadata?: Entries;
  readonly filterState?: readonly (readonly [string, unknown])[];
  readonly downstream?: Omit<LoggedConnection, "metadata"> & { readonly metadata: Entries };
};

/** An access logger in a sandbox, called with a batch of entries at a time. */
export class Logged implements Asked {
  readonly hook = "log";
  readonly filter: AccessLogger;
  readonly #around: Surroundings;

  constructor(logger: AccessLogger, around: Surroundings) {
    this.filter = logger;
    this.#around = around;
  }

  /** `batch`: ToldEntry[]. If the logger throws, only that entry is lost. */
  ask(batch: unknown): undefined {
    for (const told of batch as readonly ToldEntry[]) {
      try {
        this.filter.log(entryOf(told));
      } catch (error) {
        this.#around.thrown(0, this.hook, error);
      }
    }
  }

  end(): void {}
}

function entryOf(told: ToldEntry): LogEntry {
  const { info, request, response, trailers, metadata, filterState, downstream } = told;
  const entry: { -readonly [K in keyof LogEntry]: LogEntry[K] } = {
    info,
    request: undefined,
    response: undefined,
    trailers: trailers && filled(new HeaderMap(), trailers),
    metadata: new Map(metadata),
    filterState: new Map(filterState),
  };
  if (request !== undefined) {
    const head = filled(new RequestHeaders(), request.lines);
    head.method = request.method;
    head.path = request.path;
    head.scheme = request.scheme;
    entry.request = head;
  }
  if (response !== undefined) {
    const head = filled(new ResponseHeaders(), response.lines);
    head.status = response.status;
    entry.response = head;
  }
  if (downstream !== undefined)
    entry.downstream = { ...downstream, metadata: new Map(downstream.metadata) };
  for (const name of PLAIN)
    if (told[name] !== undefined) Object.assign(entry, { [name]: told[name] });
  return entry;
}

function filled<M extends HeaderMap>(map: M, lines: Lines): M {
  for (const [name, value] of lines) map.append(name, value);
  return map;
}

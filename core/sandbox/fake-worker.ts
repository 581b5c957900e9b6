import {
  Chunk,
  type EndResult,
  HeaderMap,
  type HttpFilter,
  type HttpFilterFactory,
  type HttpStream,
  headerName,
  type LastChunk,
  latin1Decode,
  newStreamInfo,
  type PromptAnswer,
  type Reply,
  RequestHeaders,
  ResponseHeaders,
  type Verdict,
} from "@tsproxy/sdk";
import { Gate, type GateParts } from "../inside/gate.ts";
import { type ParkedUse, type ParkPorts, ParkTable } from "../inside/parked.ts";
import { parkedHttpFactory } from "../inside/parked-http.ts";
import { GATE } from "../inside/sandbox/layout.ts";
import { Watchdog } from "../isolate.ts";
import { IsolateNumbers } from "../isolate-numbers.ts";
import { textOf as codeOf } from "../packages/module-code.ts";
import { bundlePreludes } from "../packages/preludes.ts";
import { SandboxImage } from "./image.ts";
import type { SandboxIsolate } from "./isolate.ts";
import type { SandboxFault, SandboxOptions } from "./options.ts";
import { Sandbox } from "./sandbox.ts";
import { Supply } from "./supply.ts";

// A worker without sockets and without a builtin isolate: the ring is a pair of arrays, the chain runs right here.

const MEMORY = 16 * 1024 * 1024;
const ARENA = 64 * 1024;
const ANSWERS = MEMORY / 2;
const EVENTS = MEMORY - 4 * 1024 * 1024;
const ROUNDS = 64;

let sandboxImage: Promise<string> | undefined;

/** The script that sandboxes begin with. */
export function imageCode(): Promise<string> {
  sandboxImage ??= bundlePreludes().then(({ sandbox }) => codeOf({ code: sandbox }));
  return sandboxImage;
}

/** `image`: another one in the place of ours. */
type FakeOptions = Partial<SandboxOptions> & { readonly image?: string };

const watchdog = new Watchdog();
const numbers = new IsolateNumbers(1);

export class FakeWorker implements ParkPorts {
  /** Streams enter sandboxes by their gates, as they do within a crossing; otherwise through core. */
  static gated = false;
  readonly #buffer = Buffer.from(new SharedArrayBuffer(MEMORY));
  readonly memory = new Uint8Array(this.#buffer.buffer);
  readonly words = new Int32Array(this.#buffer.buffer);
  readonly table = new ParkTable(this);
  readonly boxes: Sandbox[] = [];
  readonly faults: SandboxFault[] = [];
  readonly logged: { level: string; message: string; fields: unknown }[] = [];
  readonly malformations: string[] = [];
  readonly stats = new Map<string, number>();
  readonly cells = new Float64Array(64 * 1024);
  readonly #beats = new SharedArrayBuffer(8);
  readonly #isolates: SandboxIsolate[] = [];
  readonly #supplies: Supply[] = [];
  #nextCell = 0;
  #arena = ARENA;
  #answers = ANSWERS;
  #lent = EVENTS;
  #events: [token: number, at: number, size: number][] = [];
  #commands: (() => void)[] = [];
  #scheduled = false;
  #turnAsked = false;
  inCrossing = false;
  /** Rooms that `reserve` still gives; less than none: as many as fit. */
  rooms = -1;
  crossings = 0;
  records = 0;

  // ---- the chain's side

  reserve(size: number): number {
    if (this.rooms === 0 || this.#arena + size > ANSWERS) return -1;
    if (this.rooms > 0) this.rooms--;
    const at = this.#arena;
    this.#arena += (size + 7) & ~7;
    return at;
  }

  park(box: number, token: number, at: number, size: number): void {
    this.records++;
    this.#commands.push(() => this.boxes[box]?.park(token, at, size));
    this.#schedule();
  }

  forget(box: number, token: number): void {
    this.#commands.push(() => this.boxes[box]?.forget(token));
    this.#schedule();
  }

  again(): void {
    this.#turnAsked = true;
    this.#schedule();
  }

  malformed(_box: number, reason: string): void {
    this.malformations.push(reason);
  }

  uncaught(box: number, error: unknown): void {
    const { message, stack = "" } = error as Error;
    this.boxes[box]?.onUncaught(message, stack);
  }

  thrown(error: unknown): void {
    throw error;
  }

  returned(): void {}

  get hasRoom(): boolean {
    return this.rooms !== 0;
  }

  get now(): number {
    return performance.now();
  }

  /** Bytes of an event: they last until the flush has ended. */
  lend(text: string): { at: number; end: number } {
    const at = this.#lent + 3;
    const end = at + this.#buffer.write(text, at, "latin1");
    this.#lent = (end + 8) & ~7;
    return { at, end };
  }

  // ---- core's side

  async sandbox(
    code: string,
    configs: readonly unknown[] = [{}],
    options: FakeOptions = {},
  ): Promise<Sandbox> {
    const sandbox = await this.unprepared(code, options);
    const uses = configs.map((config, k) => ({ id: k + 1, config, place: `/uses/${k}` }));
    const refusals = await sandbox.prepare(uses);
    if (refusals.length > 0) throw new Error(JSON.stringify(refusals));
    return sandbox;
  }

  async unprepared(code: string, { image, ...options }: FakeOptions = {}): Promise<Sandbox> {
    const script = image ?? (await imageCode());
    const supply = new Supply(new SandboxImage(script), numbers);
    this.#supplies.push(supply);
    const sandbox = new Sandbox({
      package: "http/test",
      worker: 0,
      node: { id: "node", cluster: "cluster" },
      supply,
      watchdog,
      module: { code, filename: "test.js" },
      memory: this.#buffer,
      place: (size) => {
        if (this.#answers + size > EVENTS) return -1;
        const at = this.#answers;
        this.#answers += (size + 7) & ~7;
        return at;
      },
      onVerdict: (token, at, size) => {
        this.#events.push([token, at, size]);
        this.#schedule();
      },
      onWork: () => this.#schedule(),
      onGate: (isolate) => this.#openGate(this.boxes.indexOf(sandbox), isolate),
      onFault: (fault) => this.faults.push(fault),
      onLog: (level, message, fields) => this.logged.push({ level, message, fields }),
      stats: {
        cells: this.cells,
        define: (kind, name) => {
          const known = this.stats.get(name);
          if (known !== undefined) return known;
          const cell = this.#nextCell;
          this.#nextCell += kind === "histogram" ? 1024 : 1;
          this.stats.set(name, cell);
          return cell;
        },
      },
      ...options,
      // What a busy machine makes of honest entries must not change the road that streams take.
      limits: { cpuMs: 1000, ...options.limits },
    });
    this.boxes.push(sandbox);
    return sandbox;
  }

  /** As core does while it has something of its own for a sandbox. */
  closeGates(): void {
    for (const { gate } of this.#isolates) gate[GATE.OPEN] = 0;
  }

  #openGate(box: number, isolate: SandboxIsolate): void {
    this.#isolates.push(isolate);
    const parts = {
      box: isolate.memory.box,
      state: isolate.gate.buffer as SharedArrayBuffer,
      beats: this.#beats,
      insideAt: 0,
      turnsAt: 1,
      mark: box,
      run: isolate.entry as GateParts["run"],
    };
    this.table.setGate(box, new Gate(parts, this.table));
  }

  /** What the chain does with several events in one crossing. */
  together(events: () => void): void {
    this.crossing(events);
    this.flush();
  }

  /** What the chain does with one event. */
  crossing(event: () => void): void {
    if (!FakeWorker.gated || this.inCrossing) {
      event();
      return;
    }
    this.inCrossing = true;
    event();
    this.table.enterGates();
    this.table.leaveGates();
    this.inCrossing = false;
    for (const command of this.#commands.splice(0)) command();
    for (const box of this.boxes) if (box.wantsEntry()) this.#schedule();
  }

  stat(name: string): number {
    const cell = this.stats.get(name);
    return cell === undefined ? 0 : this.cells[cell]!;
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.flush();
    });
  }

  /** Nothing is on its way between the chain and its sandboxes. */
  get isIdle(): boolean {
    const moves = this.#events.length > 0 || this.#commands.length > 0 || this.#turnAsked;
    return !moves && !this.boxes.some((box) => box.wantsEntry());
  }

  /** A flush: rounds of the chain and of the sandboxes until nothing is left. */
  flush(): void {
    for (let round = 0; round < ROUNDS; round++) {
      do {
        this.#turnAsked = false;
        for (const [token, at, size] of this.#events.splice(0))
          this.table.onVerdict(token, at, size);
        if (this.rooms !== 0) this.table.turn();
        for (const command of this.#commands.splice(0)) command();
      } while (this.#events.length > 0);
      let entered = false;
      for (const box of this.boxes) {
        if (!box.wantsEntry()) continue;
        entered = true;
        this.crossings++;
        box.enter();
      }
      if (!entered && this.#events.length === 0) break;
    }
    // All bytes of this flush are gone: whoever still reads them finds rubbish.
    this.memory.fill(0xee, ARENA, this.#arena);
    this.memory.fill(0xee, ANSWERS, this.#answers);
    this.memory.fill(0xee, EVENTS, this.#lent);
    this.#arena = ARENA;
    this.#answers = ANSWERS;
    this.#lent = EVENTS;
  }

  /** Turns of the event loop until `condition` holds. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise(setImmediate);
      if (this.#turnAsked) this.#schedule();
    }
  }

  dispose(): void {
    for (const box of this.boxes) box.dispose();
    for (const supply of this.#supplies) supply.dispose();
  }

  // ---- heads and streams

  #fill(map: HeaderMap, text: string, linesAt: number, lent: { at: number; end: number }): void {
    map.memory = this.memory;
    map.base = lent.at;
    map.blockEnd = lent.end - lent.at;
    let at = linesAt;
    for (const line of text.slice(linesAt).split("\r\n")) {
      const colon = line.indexOf(":");
      if (colon > 0) {
        const name = headerName(line.slice(0, colon));
        map.addSpan(at, at + colon, at + colon + 2, at + line.length, name.hash, name.known);
      }
      at += line.length + 2;
    }
  }

  requestHeaders(text: string): RequestHeaders {
    const map = new RequestHeaders();
    const lent = this.lend(text);
    const method = text.indexOf(" ");
    const path = text.indexOf(" ", method + 1);
    map.methodEnd = method;
    map.pathAt = method + 1;
    map.pathEnd = path;
    this.#fill(map, text, text.indexOf("\r\n") + 2, lent);
    return map;
  }

  responseHeaders(status: number, text: string): ResponseHeaders {
    const map = new ResponseHeaders();
    map.status = status;
    this.#fill(map, text, 0, this.lend(text));
    return map;
  }

  trailers(text: string): HeaderMap {
    const map = new HeaderMap();
    this.#fill(map, text, 0, this.lend(text));
    return map;
  }
}

/** One stream through a few filters: what a connection manager does with their answers, and no more. */
export class Exchange {
  readonly worker: FakeWorker;
  readonly filters: HttpFilter[];
  readonly stream: HttpStream & { routeConfig: unknown; response: ResponseHeaders | undefined };
  /** What passed the filters, or what stopped it. */
  request: RequestHeaders;
  reply: Reply | undefined = undefined;
  readonly verdicts: (Verdict | LastChunk)[] = [];
  pending = 0;
  cleared = 0;
  ended = false;

  constructor(
    worker: FakeWorker,
    factories: readonly HttpFilterFactory[],
    head: string,
    routeConfig?: unknown,
  ) {
    this.worker = worker;
    this.request = worker.requestHeaders(head);
    const exchange = this;
    this.stream = {
      id: 1,
      info: { ...INFO },
      get request() {
        return exchange.request;
      },
      response: undefined,
      route: undefined,
      clearRoute: () => void this.cleared++,
      routeConfig,
      routeConfigs: routeConfig === undefined ? [] : [routeConfig],
      metadata: new Map(),
      filterState: new Map(),
      connectionState: new Map(),
      responder: undefined as never,
      sleep: () => Promise.resolve(),
    };
    this.filters = factories.map((factory) => factory(this.stream));
    for (let k = 1; k < this.filters.length; k++) this.filters[k - 1]!.meets?.(this.filters[k]!);
  }

  requestHeaders(endStream = true): this {
    this.#walk(
      this.filters,
      (filter) => filter.onRequestHeaders?.(this.request, endStream),
      this.request,
    );
    return this;
  }

  requestBody(text: string, endStream = true): Chunk {
    const { at, end } = this.worker.lend(text);
    const chunk = new Chunk(this.worker.memory, at, end);
    this.#walk(this.filters, (filter) => filter.onRequestBody?.(chunk, endStream), chunk);
    return chunk;
  }

  requestTrailers(text: string): HeaderMap {
    const map = this.worker.trailers(text);
    this.#walk(this.filters, (filter) => filter.onRequestTrailers?.(map), map);
    return map;
  }

  responseHeaders(status: number, text: string, endStream = true): ResponseHeaders {
    const map = this.worker.responseHeaders(status, text);
    this.stream.response = map;
    this.#walk(
      [...this.filters].reverse(),
      (filter) => filter.onResponseHeaders?.(map, endStream),
      map,
    );
    return map;
  }

  responseBody(text: string, endStream = true): Chunk {
    const { at, end } = this.worker.lend(text);
    const chunk = new Chunk(this.worker.memory, at, end);
    this.#walk(
      [...this.filters].reverse(),
      (filter) => filter.onResponseBody?.(chunk, endStream),
      chunk,
    );
    return chunk;
  }

  #walk(
    filters: readonly HttpFilter[],
    call: (filter: HttpFilter) => EndResult,
    lent: Chunk | HeaderMap,
  ): void {
    /** What is lent ends with the flush; whoever waits keeps a copy. */
    const keep = (): void => {
      if (lent instanceof HeaderMap) lent.detach();
      else if (lent.memory === this.worker.memory) lent.replace(lent.copy());
    };
    const go = (k: number): void => {
      if (this.ended || this.reply !== undefined) return;
      for (let i = k; i < filters.length; i++) {
        const result = call(filters[i]!);
        if (result !== undefined && "then" in result) {
          if ("onLate" in result) (result as PromptAnswer).onLate(keep);
          else keep();
          this.pending++;
          result.then((verdict) => {
            this.pending--;
            if (this.#take(verdict)) go(i + 1);
          });
          return;
        }
        if (!this.#take(result)) return;
      }
      keep();
    };
    this.worker.crossing(() => go(0));
    // An event's bytes end with its crossing.
    keep();
  }

  #take(verdict: Verdict | LastChunk): boolean {
    this.verdicts.push(verdict);
    if (verdict?.type === "reply") this.reply = verdict;
    return verdict?.type !== "reply";
  }

  /** Until no hook of it is pending. */
  async settled(): Promise<this> {
    await this.worker.until(() => this.pending === 0);
    return this;
  }

  end(): void {
    this.ended = true;
    this.worker.crossing(() => {
      for (const filter of this.filters) filter.onEnd?.();
    });
  }
}

/** The stubs of one use, as the registry would make them. */
export function stubs(
  worker: FakeWorker,
  sandbox: Sandbox,
  use = 1,
  more: Partial<ParkedUse> = {},
): HttpFilterFactory {
  const box = worker.boxes.indexOf(sandbox);
  return parkedHttpFactory({ box, use, hooks: sandbox.hooks, ...more }, worker.table);
}

/** All lines of a map as they would go out. */
export function linesOf(map: HeaderMap): string[] {
  return [...map].map(([name, value]) => `${name}: ${value}`);
}

export function textOf(chunk: Chunk): string {
  return latin1Decode(chunk.memory, chunk.at, chunk.end);
}

const ADDRESS = { ip: "192.0.2.7", port: 4711 };
const INFO = newStreamInfo({
  connectionId: 9,
  downstreamRemoteAddress: ADDRESS,
  downstreamDirectAddress: ADDRESS,
  downstreamLocalAddress: ADDRESS,
});

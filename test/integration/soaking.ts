import { readdirSync, readFileSync } from "node:fs";
import http from "node:http";
import type { Duplex } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { echoWebSocket } from "../../examples/websocket.ts";
import { eventually } from "./client.ts";
import { bootstrap, cluster, http as httpFilter, type Json, listener, route } from "./config.ts";
import { PATIENCE_MS } from "./patience.ts";
import { type LogLine, Proxy } from "./proxy.ts";
import { FILTER, filterSource } from "./reloading.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

export interface SoakOptions {
  readonly seconds: number;
  readonly reloadEveryMs: number;
  /** Told now and then. */
  readonly onSample?: (sample: Sample) => void;
  readonly onFailure?: (what: string) => void;
  /** What the proxy warns of, by then. */
  readonly onWarning?: (line: LogLine) => void;
  readonly sampleEveryMs?: number;
}

export interface Sample {
  readonly seconds: number;
  /** Of all processes, and of the one that serves: those that build and try changes come and go. */
  readonly rss: number;
  readonly serving: number;
  readonly answered: number;
  readonly failures: number;
}

export interface Soaked {
  readonly answered: number;
  readonly reloads: number;
  readonly kills: number;
  /** What went wrong where nothing should have. */
  readonly failures: readonly string[];
  /** Answers of an upstream that had just been killed, and whatever was in progress while the machine stood still. */
  readonly explained: number;
  readonly samples: readonly Sample[];
  /** Files and sockets of the proxy's processes, before the load and after it. */
  readonly handles: readonly [before: number, after: number];
  /** What counts connections and requests in progress, after it. */
  readonly active: Readonly<Record<string, number>>;
}

const PAUSE_MS = 40;
const UPLOAD_BYTES = 256 * 1024;
/** An upstream is away for so long, and its connections are noticed to be broken within the second after. */
const AWAY_MS = 500;
const KILL_EVERY_MS = 3_000;
const CLOCK_MS = 500;
const EXPLAINS_MS = 2_000;
/** A clock that jumps by so much: the machine slept, or its processes were stopped, and all deadlines have passed at once. */
const STANDSTILL_MS = 5_000;

/**
 * What a proxy meets in weeks, in minutes: kept and new connections, uploads, WebSockets, upstreams that die and come back, and a
 * reload every few seconds, now of the config, now of a filter.
 */
export async function soak(options: SoakOptions): Promise<Soaked> {
  const run = await Run.open(options);
  try {
    return await run.soak();
  } finally {
    await run.close();
  }
}

class Run {
  readonly #options: SoakOptions;
  readonly #steady: Upstream<http.Server>;
  readonly #mortal: Mortal[];
  readonly #proxy: Proxy;
  readonly #failures: string[] = [];
  readonly #samples: Sample[] = [];
  #answered = 0;
  #explained = 0;
  #reloads = 0;
  #kills = 0;
  #killedAt = -Infinity;
  #stoodStillAt = -Infinity;
  #lookedAt = performance.now();
  #lines = 0;
  #running = true;

  private constructor(
    options: SoakOptions,
    steady: Upstream<http.Server>,
    mortal: Mortal[],
    proxy: Proxy,
  ) {
    this.#options = options;
    this.#steady = steady;
    this.#mortal = mortal;
    this.#proxy = proxy;
  }

  static async open(options: SoakOptions): Promise<Run> {
    const steady = await httpUpstream(echo);
    steady.server.on("upgrade", echoWebSocket);
    const mortal = [await Mortal.open(), await Mortal.open()];
    const ports = mortal.map(({ port }) => port);
    const proxy = await Proxy.start({
      config: configOf(0, steady.port, ports),
      files: { [FILTER]: filterSource(0) },
    });
    return new Run(options, steady, mortal, proxy);
  }

  async soak(): Promise<Soaked> {
    const { seconds } = this.#options;
    const before = handles(this.#proxy.pid);
    const kept = new http.Agent({ keepAlive: true });
    const clients = [
      ...Array.from({ length: 6 }, () => this.#client(() => this.#ask("/", kept))),
      ...Array.from({ length: 2 }, () => this.#client(() => this.#ask("/", false))),
      ...Array.from({ length: 2 }, () => this.#client(() => this.#ask("/mortal", kept))),
      ...Array.from({ length: 2 }, () => this.#client(() => this.#upload(kept))),
      ...Array.from({ length: 2 }, () => this.#client(() => this.#webSocket())),
      this.#every(KILL_EVERY_MS, () => this.#kill()),
      this.#every(CLOCK_MS, async () => this.#lookAtClock()),
      this.#every(this.#options.reloadEveryMs, () => this.#reload()),
      this.#every(this.#options.sampleEveryMs ?? 10_000, async () => this.#sample()),
    ];
    await delay(seconds * 1000);
    this.#running = false;
    await Promise.all(clients);
    kept.destroy();
    await Promise.all([this.#steady.close(), ...this.#mortal.map((one) => one.close())]);
    const active = await this.#untilIdle();
    return {
      answered: this.#answered,
      reloads: this.#reloads,
      kills: this.#kills,
      failures: this.#failures,
      explained: this.#explained,
      samples: this.#samples,
      handles: [before, handles(this.#proxy.pid)],
      active,
    };
  }

  async close(): Promise<void> {
    this.#running = false;
    await this.#proxy.stop();
    await Promise.all([this.#steady.close(), ...this.#mortal.map((one) => one.close())]);
  }

  async #client(once: () => Promise<void>): Promise<void> {
    while (this.#running) {
      await once();
      await delay(PAUSE_MS);
    }
  }

  async #every(ms: number, run: () => Promise<void>): Promise<void> {
    const started = performance.now();
    for (let n = 1; this.#running; n++) {
      while (this.#running && performance.now() < started + n * ms) await delay(100);
      if (this.#running) await run();
    }
  }

  async #ask(path: string, agent: http.Agent | false): Promise<void> {
    const asked = performance.now();
    const answer = await request(this.#proxy.port("main"), { path, agent });
    if (answer === "200 complete") this.#answered++;
    else this.#failed(`GET ${path}: ${answer}`, asked, path === "/mortal");
  }

  async #upload(agent: http.Agent): Promise<void> {
    const body = Buffer.alloc(UPLOAD_BYTES, "u");
    const port = this.#proxy.port("main");
    const asked = performance.now();
    const answer = await request(port, { path: "/upload", method: "POST", agent }, body);
    if (answer === `200 ${UPLOAD_BYTES}`) this.#answered++;
    else this.#failed(`POST /upload: ${answer}`, asked);
  }

  async #webSocket(): Promise<void> {
    const asked = performance.now();
    const problem = await tunnel(this.#proxy.port("main"));
    if (problem === "") this.#answered++;
    else this.#failed(`WebSocket: ${problem}`, asked);
  }

  /** `mortal`: it may have met a dead upstream. */
  #failed(what: string, asked: number, mortal = false): void {
    this.#lookAtClock();
    const isRefused = mortal && asked < this.#killedAt + EXPLAINS_MS && what.includes(": 503");
    if (isRefused || asked < this.#stoodStillAt) {
      this.#explained++;
      return;
    }
    this.#failures.push(what);
    this.#tellWarnings();
    this.#options.onFailure?.(what);
  }

  #tellWarnings(): void {
    const lines = this.#proxy.lines.slice(this.#lines);
    this.#lines += lines.length;
    for (const line of lines) if (line.level !== "info") this.#options.onWarning?.(line);
  }

  #lookAtClock(): void {
    const now = performance.now();
    if (now - this.#lookedAt > STANDSTILL_MS) this.#stoodStillAt = now;
    this.#lookedAt = now;
  }

  async #kill(): Promise<void> {
    const victim = this.#mortal[this.#kills++ % this.#mortal.length]!;
    this.#killedAt = performance.now();
    await victim.dieFor(AWAY_MS);
    this.#killedAt = performance.now();
  }

  async #reload(): Promise<void> {
    const version = ++this.#reloads;
    const from = this.#proxy.lines.length;
    if (version % 2 === 0) this.#proxy.write(FILTER, filterSource(version));
    else {
      const ports = this.#mortal.map(({ port }) => port);
      this.#proxy.reconfigure(configOf(version, this.#steady.port, ports));
    }
    const asked = performance.now();
    await this.#proxy.line(/^reloaded /, from).catch((error: Error) => {
      this.#failed(`reload ${version}: ${error.message}`, asked);
    });
  }

  #sample(): void {
    const sample = {
      seconds: process.uptime(),
      rss: this.#proxy.rss(),
      serving: this.#proxy.rss(this.#proxy.processes().slice(0, 1)),
      answered: this.#answered,
      failures: this.#failures.length,
    };
    this.#samples.push(sample);
    this.#tellWarnings();
    this.#options.onSample?.(sample);
  }

  /** Nobody asks any more, and the upstreams are gone: nothing may be left open. */
  #untilIdle(): Promise<Record<string, number>> {
    const look = async () => {
      const stat = await this.#proxy.stats();
      const names = [
        "http.test.downstream_cx_active",
        "http.test.downstream_rq_active",
        ...["steady", "mortal"].flatMap((name) =>
          ["upstream_cx_active", "upstream_rq_active", "upstream_rq_pending_active"].map(
            (what) => `cluster.${name}.${what}`,
          ),
        ),
      ];
      return Object.fromEntries(names.map((name) => [name, stat(name)]));
    };
    const isIdle = (active: Record<string, number>) => Object.values(active).every((n) => n === 0);
    return eventually(look, isIdle, "nothing in progress").catch(look);
  }
}

/** An upstream that is killed now and then, connections and all, and comes back at its port. */
class Mortal {
  readonly port: number;
  #upstream: Upstream<http.Server>;

  private constructor(upstream: Upstream<http.Server>) {
    this.port = upstream.port;
    this.#upstream = upstream;
  }

  static async open(): Promise<Mortal> {
    return new Mortal(await httpUpstream(echo));
  }

  async dieFor(ms: number): Promise<void> {
    const { server, sockets } = this.#upstream;
    const closed = new Promise<void>((resolve) => void server.close(() => resolve()));
    for (const socket of sockets) socket.resetAndDestroy();
    await closed;
    await delay(ms);
    await new Promise<void>((resolve) => void server.listen(this.port, "127.0.0.1", resolve));
  }

  close(): Promise<void> {
    return this.#upstream.close();
  }
}

function echo(request: http.IncomingMessage, response: http.ServerResponse): void {
  if (request.method !== "POST") {
    response.end("complete");
    return;
  }
  let bytes = 0;
  request.on("data", (piece: Buffer) => (bytes += piece.length));
  request.on("end", () => response.end(String(bytes)));
}

function configOf(version: number, steady: number, mortal: readonly number[]): Json {
  const marked = {
    response_headers_to_add: [{ header: { key: "x-config", value: `${version}` } }],
  };
  const retry = { retry_policy: { retry_on: "connect-failure,reset", num_retries: 3 } };
  const upgrades = { upgrade_configs: [{ upgrade_type: "websocket" }], timeout: "0s" };
  return bootstrap(
    [
      listener(
        "main",
        httpFilter(
          [
            { ...route("/mortal", "mortal", retry), ...marked },
            { ...route("/", "steady", upgrades), ...marked },
          ],
          {},
          [{ name: "mark", config: { header: "x-filter" } }],
        ),
      ),
    ],
    [cluster("steady", [steady]), cluster("mortal", mortal)],
  );
}

/** Status and body; or the error. */
function request(port: number, options: http.RequestOptions, body?: Buffer): Promise<string> {
  return new Promise((resolve) => {
    const asked = http.request({ port, host: "127.0.0.1", ...options }, (answer) => {
      let text = "";
      answer.setEncoding("utf8");
      answer.on("data", (piece: string) => (text += piece));
      answer.on("error", (error) => resolve(`${answer.statusCode}, then ${error.message}`));
      answer.on("end", () => resolve(`${answer.statusCode} ${text}`));
    });
    asked.setTimeout(PATIENCE_MS, () => asked.destroy(new Error("no answer at all")));
    asked.on("error", (error) => resolve(error.message));
    asked.end(body);
  });
}

/** Opens a tunnel, sends some frames that have to come back, and closes it. "": all went well. */
function tunnel(port: number): Promise<string> {
  const headers = {
    connection: "Upgrade",
    upgrade: "websocket",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": "13",
  };
  return new Promise((resolve) => {
    const asked = http.request({ port, host: "127.0.0.1", path: "/ws", headers, agent: false });
    asked.on("error", (error) => resolve(error.message));
    asked.on("response", (answer) => {
      answer.resume();
      resolve(`answered ${answer.statusCode}`);
    });
    asked.on("upgrade", (_, socket) => exchange(socket, resolve));
    asked.end();
  });
}

const FRAMES = 20;

function exchange(socket: Duplex, resolve: (problem: string) => void): void {
  // A masked text frame "ping" whose mask is zero; the echo comes unmasked.
  const frame = Buffer.from([0x81, 0x84, 0, 0, 0, 0, 0x70, 0x69, 0x6e, 0x67]);
  let left = FRAMES;
  let received = 0;
  let done = false;
  const end = (problem: string): void => {
    done = true;
    socket.destroy();
    resolve(problem);
  };
  socket.on("error", (error) => end(error.message));
  socket.on("close", () => !done && end(`closed with ${left} frames to come`));
  socket.on("data", (piece: Buffer) => {
    received += piece.length;
    if (received < 6) return;
    received -= 6;
    if (--left === 0) end("");
    else setTimeout(() => socket.destroyed || socket.write(frame), PAUSE_MS);
  });
  socket.write(frame);
}

/** Open files of the processes below this one. */
function handles(pid: number): number {
  const pids = [pid, ...childrenOf(pid)];
  return pids.reduce((sum, one) => sum + readdirSync(`/proc/${one}/fd`).length, 0);
}

function childrenOf(pid: number): number[] {
  const tasks = readdirSync(`/proc/${pid}/task`);
  const children = tasks.flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, "utf8")
      .trim()
      .split(" ")
      .filter(Boolean)
      .map(Number),
  );
  return children.flatMap((child) => [child, ...childrenOf(child)]);
}

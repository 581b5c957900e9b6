import type { Exchange } from "../dev-events.ts";
import { formatProblem, type Problem } from "../problem.ts";
import type { ReloadOutcome } from "../reload/reports.ts";
import type { LineChange, Replayed } from "./dev-replay.ts";

export type Committed = Extract<ReloadOutcome, { type: "committed" }>;
export type Refused = Extract<ReloadOutcome, { type: "refused" }>;

/** What `filter dev` reports once the proxy has started. */
export interface DevStart {
  readonly config: string;
  readonly isOwnConfig: boolean;
  readonly listeners: readonly {
    readonly name: string;
    readonly address: string;
    readonly try: string;
  }[];
  readonly filters: readonly {
    readonly package: string;
    readonly folder: string;
    readonly placement: string;
    readonly problems: readonly Problem[];
  }[];
  readonly workers: number;
  readonly echo: readonly string[];
  readonly inspector?: string | undefined;
}

/** The output of `filter dev`: text for a terminal, or a JSON object a line. */
export interface DevReport {
  started(start: DevStart): void;
  exchange(exchange: Exchange): void;
  committed(outcome: Committed, workers: number, replayed: readonly Replayed[]): void;
  refused(outcome: Refused): void;
  /** A refused edit was undone: the file is again what serves. */
  mended(what: string): void;
  /** A line of the proxy's log. */
  log(level: string, message: string, fields: Readonly<Record<string, unknown>>): void;
  /** A line of the proxy's output that is no line of its log. */
  text(line: string): void;
}

type Write = (text: string) => void;

export function devReport(json: boolean, write: Write, colours: boolean): DevReport {
  return json ? new JsonReport(write) : new TerminalReport(write, colours);
}

class JsonReport implements DevReport {
  readonly #write: Write;

  constructor(write: Write) {
    this.#write = write;
  }

  #say(event: string, fields: object): void {
    this.#write(`${JSON.stringify({ event, ...fields })}\n`);
  }

  started(start: DevStart): void {
    const filters = start.filters.map(({ problems, ...rest }) => ({
      ...rest,
      errors: problems.map(shown),
    }));
    this.#say("started", { ...start, filters });
  }
  exchange({ method, path, status, ms, flags, details }: Exchange): void {
    this.#say("request", { method, path, status, ms: round(ms), flags, details });
  }
  committed(outcome: Committed, workers: number, replayed: readonly Replayed[]): void {
    const { type: _, ...rest } = outcome;
    const times = { buildMs: round(rest.buildMs), ms: round(rest.ms) };
    this.#say("reloaded", { ...rest, ...times, workers, replayed });
  }
  refused({ what, problems, rest }: Refused): void {
    this.#say("refused", { what, errors: problems.map(shown), rest });
  }
  mended(what: string): void {
    this.#say("mended", { what });
  }
  log(level: string, message: string, fields: Readonly<Record<string, unknown>>): void {
    this.#say("log", { level, message, ...fields });
  }
  text(line: string): void {
    this.#say("output", { text: line });
  }
}

function shown({ file, line, column, path, message, help, frame }: Problem): unknown {
  return { file, line, column, path, message, ...(help !== undefined && { help }), frame };
}

const CODES = { red: 31, green: 32, yellow: 33, blue: 36, dim: 2, bold: 1 } as const;
/** At most so many lines of a body's differences are shown. */
const MOST_LINES = 8;

class TerminalReport implements DevReport {
  readonly #write: Write;
  readonly #colours: boolean;

  constructor(write: Write, colours: boolean) {
    this.#write = write;
    this.#colours = colours;
  }

  started(start: DevStart): void {
    const { listeners, filters, workers, echo, config, isOwnConfig, inspector } = start;
    for (const { package: name, folder, placement } of filters)
      this.#line(`${this.#paint("bold", name)}  ${placement}, ${folder}`);
    const many = workers === 1 ? "1 worker" : `${workers} workers`;
    const behind = echo.length === 0 ? "" : `, in front of an echo upstream`;
    this.#line(
      `${many}${behind}; config: ${config}${isOwnConfig ? " (made here: copy what you need of it)" : ""}`,
    );
    for (const { try: command } of listeners) this.#line(`  ${this.#paint("blue", command)}`);
    if (inspector !== undefined) {
      const at = this.#paint("blue", `http://${inspector}/json/list`);
      this.#line(`  debugger: chrome://inspect, or F5 in VS Code, at ${inspector} (${at})`);
    }
    for (const { package: name, problems } of filters)
      if (problems.length > 0) this.#problems(name, problems, "");
    this.#line("save a file and see; Ctrl-C ends");
  }

  exchange({ method, path, status, ms, flags, details }: Exchange): void {
    const by = flags.length > 0 ? `  ${flags.join(",")} ${details}` : "";
    const what = `${method} ${path}  ${this.#status(status)}  ${round(ms)} ms${by}`;
    this.#line(`${this.#time()}   ${this.#paint("dim", what)}`);
  }

  committed(outcome: Committed, workers: number, replayed: readonly Replayed[]): void {
    const { generation, changed, removed, config, buildMs, ms } = outcome;
    const names = [
      ...changed,
      ...(config ? ["the config"] : []),
      ...removed.map((n) => `${n} (gone)`),
    ];
    const built = changed.length === 0 ? "" : `built in ${round(buildMs)} ms, `;
    const where = workers === 1 ? "live" : `on all ${workers} workers`;
    const head = `${this.#paint("green", "✓")} ${this.#paint("bold", names.join(", "))}`;
    this.#line(
      `${this.#time()} ${head}  generation ${generation}  ${built}${where} after ${round(ms)} ms`,
    );
    if (replayed.length === 0) return;
    const count = (verdict: string) => replayed.filter((one) => one.verdict === verdict).length;
    const parts = (["same", "differs", "failed"] as const)
      .map((verdict) => [count(verdict), verdict] as const)
      .filter(([n]) => n > 0)
      .map(([n, verdict]) => `${n} ${VERDICTS[verdict](n)}`);
    const sent =
      replayed.length === 1 ? "the last request" : `the last ${replayed.length} requests`;
    this.#line(`  ${sent} again: ${parts.join(", ")}`);
    for (const one of replayed) if (one.verdict !== "same") this.#replayed(one);
  }

  #replayed({ method, path, verdict, before, after, headers, body, error }: Replayed): void {
    const status = before === after ? this.#status(after) : `${before} → ${this.#status(after)}`;
    this.#line(
      `    ${method} ${path}  ${verdict === "failed" ? this.#paint("red", error) : status}`,
    );
    for (const change of headers) this.#change(change);
    if (body.length > 0) this.#line(`      ${this.#paint("dim", "body")}`);
    for (const change of body.slice(0, MOST_LINES)) this.#change(change);
    if (body.length > MOST_LINES)
      this.#line(`      ${this.#paint("dim", `… and ${body.length - MOST_LINES} lines more`)}`);
  }

  #change({ sign, text }: LineChange): void {
    const line = text.length > 160 ? `${text.slice(0, 160)}…` : text;
    this.#line(`      ${this.#paint(sign === "-" ? "red" : "green", `${sign} ${line}`)}`);
  }

  refused({ what, problems, rest }: Refused): void {
    this.#problems(what, problems, rest);
  }

  mended(what: string): void {
    const head = `${this.#time()} ${this.#paint("green", "✓")} ${this.#paint("bold", what)}`;
    this.#line(`${head}  is again what serves`);
  }

  #problems(what: string, problems: readonly Problem[], rest: string): void {
    const [first, ...others] = problems.map(formatProblem);
    this.#line(`${this.#time()} ${this.#paint("red", "✗")} ${first ?? what}`);
    for (const text of others) this.#line(text);
    if (rest !== "") this.#line(`  ${this.#paint("dim", rest)}`);
  }

  log(level: string, message: string, fields: Readonly<Record<string, unknown>>): void {
    const colour = level === "error" ? "red" : level === "warn" ? "yellow" : "blue";
    const { filter, ...rest } = fields;
    const who = filter === undefined ? "" : `${filter} `;
    const more = Object.keys(rest).length === 0 ? "" : `  ${JSON.stringify(rest)}`;
    this.#line(
      `${this.#time()} ${this.#paint(colour, level)} ${who}${message}${this.#paint("dim", more)}`,
    );
  }

  text(line: string): void {
    this.#line(line);
  }

  #status(status: number): string {
    const colour = status < 400 ? "green" : status < 500 ? "yellow" : "red";
    return this.#paint(colour, String(status));
  }
  #time(): string {
    return this.#paint("dim", new Date().toTimeString().slice(0, 8));
  }
  #paint(colour: keyof typeof CODES, text: string): string {
    return this.#colours && text !== "" ? `\x1b[${CODES[colour]}m${text}\x1b[0m` : text;
  }
  #line(text: string): void {
    this.#write(`${text}\n`);
  }
}

const VERDICTS = {
  same: () => "the same",
  differs: (n: number) => (n === 1 ? "differs" : "differ"),
  failed: () => "without an answer",
} as const;

function round(ms: number): number {
  return ms < 10 ? Math.round(ms * 10) / 10 : Math.round(ms);
}

import path from "node:path";
import { pathToFileURL } from "node:url";
import {
  generatedPositionFor,
  LEAST_UPPER_BOUND,
  originalPositionFor,
  TraceMap,
} from "@jridgewell/trace-mapping";

/** A message of the Chrome DevTools protocol. */
interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Record<string, unknown>;
  readonly result?: Record<string, unknown>;
  readonly error?: unknown;
}

/** A module that is debugged: its name in stack traces, and its source map. */
export interface DebuggedModule {
  readonly filename: string;
  readonly map: string;
}

/** Ids of our own messages start here; a client counts from 1. */
const OWN_IDS = 1_000_000_000;
/** Requests that a client sends once, and that are repeated to each later isolate. */
const LASTING =
  /^(?:(?:Runtime|Debugger|Profiler|HeapProfiler|Console)\.enable|Debugger\.set(?:PauseOnExceptions|AsyncCallStackDepth|BlackboxPatterns|BreakpointsActive|SkipAllPauses))$/;
const BREAKPOINT = "Debugger.setBreakpointByUrl";
const GOING_ON = /^Debugger\.(?:resume|step\w+)$/;

/**
 * One client's session with the isolates of one package, one after the other. The module keeps one URL through all reloads.
 * Breakpoints are set there or at a line of a source: `file:///…/filter.ts`, or the YAML file of a script.
 */
export class DebugSession {
  readonly #toClient: (text: string) => void;
  readonly #toIsolate: (text: string) => void;
  readonly #onBound: () => void;
  readonly #url: string;
  #module: DebuggedModule | undefined;
  #map: TraceMap | undefined;
  /** Files of scripts: the isolate's name for each -> the URL that the client knows. */
  readonly #files = new Map<string, string>();
  /** Lua scripts, by the URL that the isolate gives them. */
  readonly #scriptsInLua = new Map<string, LuaScript>();
  /** By the id of a client's breakpoint, those that we have set for it in Lua scripts that were loaded later. */
  readonly #extra = new Map<string, string[]>();
  /** The module's execution context; expressions that name no context are evaluated in it. */
  #contextId: unknown = undefined;
  /** The isolate's URLs of scripts, by script id. */
  readonly #scripts = new Map<string, string>();
  readonly #lasting = new Map<string, Message>();
  readonly #breakpoints = new Map<string, Message>();
  /** The client's unanswered requests for breakpoints, by id. */
  readonly #asked = new Map<number, Message>();
  /** The methods of the client's unanswered requests, by id. */
  readonly #open = new Map<number, string>();
  /** Called with the answers to our own messages, by id. */
  readonly #own = new Map<number, (message: Message) => void>();
  #nextId = OWN_IDS;
  #isPaused = false;

  constructor(options: {
    /** The module's URL, as clients see it. */
    readonly url: string;
    readonly toClient: (text: string) => void;
    readonly toIsolate: (text: string) => void;
    /** Called when a new isolate has all settings and breakpoints of the client. */
    readonly onBound: () => void;
  }) {
    this.#url = options.url;
    this.#toClient = options.toClient;
    this.#toIsolate = options.toIsolate;
    this.#onBound = options.onBound;
  }

  // ---- from the client

  onClient(text: string): void {
    let message: Message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    const { id, method = "" } = message;
    if (typeof id !== "number") return;
    if (LASTING.test(method)) this.#lasting.set(method, message);
    if (method.endsWith(".disable")) this.#lasting.delete(method.replace("disable", "enable"));
    if (method === "Debugger.removeBreakpoint") this.#forget(String(message.params?.breakpointId));
    if (method === BREAKPOINT) this.#asked.set(id, message);
    this.#open.set(id, method);
    this.#send(message);
  }

  #forget(breakpointId: string): void {
    this.#breakpoints.delete(breakpointId);
    for (const extra of this.#extra.get(breakpointId) ?? [])
      void this.#ask({ method: "Debugger.removeBreakpoint", params: { breakpointId: extra } });
    this.#extra.delete(breakpointId);
  }

  #send(message: Message): void {
    const { method = "", params = {} } = message;
    let asked = message;
    if (method === BREAKPOINT) asked = { ...message, params: this.#located(params) };
    // The isolate has several contexts, and no default one.
    else if (method in CONTEXTS && this.#contextId !== undefined && !namesContext(params))
      asked = { ...message, params: { ...params, [CONTEXTS[method]!]: this.#contextId } };
    let text = JSON.stringify(asked);
    if (this.#module !== undefined) text = replaced(text, this.#url, this.#module.filename);
    for (const [inside, outside] of this.#files) text = replaced(text, outside, inside);
    this.#toIsolate(text);
  }

  /**
   * Translates the place of a breakpoint: a line of a source into a line of the module, a line of a config into a line of its
   * script.
   */
  #located(params: Record<string, unknown>): Record<string, unknown> {
    const { url, urlRegex, lineNumber, columnNumber = 0, ...rest } = params;
    const wanted = (candidate: string) =>
      url === candidate ||
      (typeof urlRegex === "string" && url === undefined && matches(urlRegex, candidate));
    if (wanted(this.#url)) return { ...rest, url: this.#url, lineNumber, columnNumber };
    const map = this.#map;
    for (const source of map?.sources ?? []) {
      if (source === null || map === undefined) continue;
      if (!wanted(source) && !wanted(decodeURIComponent(source.replace("file://", "")))) continue;
      // The first position with code on that line, or on one of the 19 lines after it.
      for (let line = Number(lineNumber) + 1, last = line + 20; line < last; line++) {
        const at = generatedPositionFor(map, {
          source,
          line,
          column: line === Number(lineNumber) + 1 ? Number(columnNumber) : 0,
          bias: LEAST_UPPER_BOUND,
        });
        if (at.line === null) continue;
        return { ...rest, url: this.#url, lineNumber: at.line - 1, columnNumber: at.column };
      }
    }
    // The newest script first: after a reload it may stand on other lines than before.
    for (const [inside, script] of [...this.#scriptsInLua].reverse())
      if (script.lines > Number(lineNumber) - script.line && Number(lineNumber) >= script.line)
        if (wanted(script.href) || wanted(decodeURIComponent(script.href.replace("file://", ""))))
          return { ...rest, url: inside, lineNumber: Number(lineNumber) - script.line };
    for (const outside of this.#files.values())
      if (wanted(outside)) return { ...rest, url: outside, lineNumber, columnNumber };
    return params;
  }

  // ---- from the isolate

  onIsolate(text: string): void {
    const message = JSON.parse(text) as Message;
    const { id, method, params } = message;
    if (id !== undefined && id >= OWN_IDS) {
      this.#own.get(id)?.(message);
      this.#own.delete(id);
      return;
    }
    // `#endRequests` has answered this request already.
    if (id !== undefined && !this.#open.delete(id)) return;
    if (method === "Debugger.paused") this.#isPaused = true;
    if (method === "Debugger.resumed") this.#isPaused = false;
    const asked = id === undefined ? undefined : this.#asked.get(id);
    if (asked !== undefined) {
      this.#asked.delete(id!);
      const breakpoint = message.result?.breakpointId;
      if (typeof breakpoint === "string") this.#breakpoints.set(this.#outside(breakpoint), asked);
    }
    if (method === "Debugger.scriptParsed" && params !== undefined) this.#onScript(params);
    if (method === "Debugger.paused" && params !== undefined) this.#withSources(params);
    this.#toClient(this.#outside(JSON.stringify(message)));
  }

  #onScript(params: Record<string, unknown>): void {
    const url = String(params.url);
    this.#scripts.set(String(params.scriptId), url);
    const lua = LUA_URL.exec(url);
    if (lua !== null) {
      const script = {
        href: pathToFileURL(path.resolve(decodeURI(lua[2]!))).href,
        line: Number(lua[1]) - 1,
        lines: Number(params.endLine) + 1,
      };
      this.#scriptsInLua.set(url, script);
      params.sourceMapURL = `data:application/json;base64,${Buffer.from(mapOf(script)).toString("base64")}`;
      this.#stopIn(script);
    } else if (url === this.#module?.filename) {
      this.#contextId = params.executionContextId;
      const map = Buffer.from(mapWithUrls(this.#module.map)).toString("base64");
      params.sourceMapURL = `data:application/json;base64,${map}`;
    } else if (/\.(?:ya?ml|json|[cm]?[jt]s)$/.test(url) && !url.includes("://"))
      // A script of a config: its lines are those of the config file.
      this.#files.set(url, pathToFileURL(path.resolve(url)).href);
  }

  /** Sets the client's breakpoints in a Lua script that was loaded after they were set, or that has moved to other lines. */
  #stopIn(script: LuaScript): void {
    for (const [breakpointId, message] of this.#breakpoints) {
      const located = this.#located(message.params ?? {});
      if (this.#scriptsInLua.get(String(located.url)) !== script) continue;
      void this.#ask(message).then(({ result }) => {
        // No result means that there is a breakpoint already.
        if (result === undefined) return;
        const ids = this.#extra.get(breakpointId) ?? [];
        this.#extra.set(breakpointId, [...ids, String(result.breakpointId)]);
        for (const location of (result.locations ?? []) as unknown[])
          this.#tell("Debugger.breakpointResolved", { breakpointId, location });
      });
    }
  }

  /**
   * Adds to each frame its place in the source, for clients that read no source maps, and names hit breakpoints by the client's
   * ids.
   */
  #withSources(params: Record<string, unknown>): void {
    const hit = (params.hitBreakpoints ?? []) as readonly string[];
    params.hitBreakpoints = hit.map(
      (id) => [...this.#extra].find(([, extra]) => extra.includes(id))?.[0] ?? id,
    );
    for (const frame of (params.callFrames ?? []) as Record<string, unknown>[]) {
      const { scriptId, lineNumber, columnNumber } = frame.location as Record<string, number>;
      if (frame.url === "") frame.url = this.#scripts.get(String(scriptId)) ?? "";
      const lua = this.#scriptsInLua.get(String(frame.url));
      if (lua !== undefined)
        frame.source = { url: lua.href, lineNumber: lineNumber! + lua.line, columnNumber };
      if (frame.url !== this.#module?.filename || this.#map === undefined) continue;
      const position = { line: lineNumber! + 1, column: columnNumber ?? 0 };
      const { source, line, column } = originalPositionFor(this.#map, position);
      if (source !== null && line !== null)
        frame.source = { url: source, lineNumber: line - 1, columnNumber: column };
    }
  }

  /** Replaces the isolate's names of files in a message by those that the client knows. */
  #outside(text: string): string {
    let told = text;
    if (this.#module !== undefined) told = replaced(told, this.#module.filename, this.#url);
    for (const [inside, outside] of this.#files) told = replacedWhole(told, inside, outside);
    return told;
  }

  // ---- another isolate

  /**
   * Called when the session is bound to an isolate: repeats the client's settings and breakpoints there, and tells the client of
   * its scripts.
   */
  async onBoundTo(module: DebuggedModule): Promise<void> {
    const isFirst = this.#module === undefined;
    this.#scripts.clear();
    this.#scriptsInLua.clear();
    this.#extra.clear();
    this.#contextId = undefined;
    this.#module = module;
    this.#map = new TraceMap(mapWithUrls(module.map));
    if (!isFirst) {
      this.#endRequests();
      if (this.#isPaused) this.#tell("Debugger.resumed", {});
      this.#isPaused = false;
      this.#tell("Runtime.executionContextsCleared", {});
    }
    const answers = [...this.#lasting.values()].map((message) => this.#ask(message));
    const set = [...this.#breakpoints].map(async ([breakpointId, message]) => {
      const { result } = await this.#ask(message);
      this.#breakpoints.delete(breakpointId);
      const now = this.#outside(String(result?.breakpointId ?? breakpointId));
      this.#breakpoints.set(now, message);
      for (const location of (result?.locations ?? []) as unknown[])
        this.#tell("Debugger.breakpointResolved", { breakpointId, location });
    });
    await Promise.all([...answers, ...set]);
    this.#onBound();
  }

  /** Answers the requests that the previous isolate may never answer: `resume` and steps with success, others with an error. */
  #endRequests(): void {
    for (const [id, method] of this.#open) {
      const answer = GOING_ON.test(method)
        ? { id, result: {} }
        : { id, error: { code: -32000, message: "the filter has been replaced" } };
      this.#toClient(JSON.stringify(answer));
      this.#asked.delete(id);
    }
    this.#open.clear();
  }

  #ask(message: Message): Promise<Message> {
    const id = this.#nextId++;
    return new Promise((resolve) => {
      this.#own.set(id, resolve);
      this.#send({ ...message, id });
    });
  }

  #tell(method: string, params: unknown): void {
    this.#toClient(JSON.stringify({ method, params }));
  }
}

/** The lines of a file that a Lua script takes up, counted from 0. */
interface LuaScript {
  readonly href: string;
  readonly line: number;
  readonly lines: number;
}

/** The URL of a Lua script in an isolate: `tsproxy-lua/<chunk>/<line>/<file>`. */
const LUA_URL = /^tsproxy-lua\/\d+\/(\d+)\/(.+)$/;

/** Methods that may name an execution context, and the parameter by which they do. */
const CONTEXTS: Readonly<Record<string, string>> = {
  "Runtime.evaluate": "contextId",
  "Runtime.compileScript": "executionContextId",
  "Runtime.globalLexicalScopeNames": "executionContextId",
};
const namesContext = (params: Record<string, unknown>): boolean =>
  ["contextId", "uniqueContextId", "executionContextId"].some((name) => params[name] !== undefined);

/** The source map of a Lua script, whose lines are consecutive lines of its file. */
function mapOf({ href, line, lines }: LuaScript): string {
  const mappings = `AA${base64Vlq(line)}A${";AACA".repeat(Math.max(0, lines - 1))}`;
  return JSON.stringify({ version: 3, sources: [href], names: [], mappings });
}

/** Encodes a number, not negative, as Base64 VLQ of source maps. */
function base64Vlq(value: number): string {
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  let text = "";
  for (let rest = value << 1; ; rest >>= 5) {
    if (rest < 32) return text + digits[rest];
    text += digits[(rest & 31) | 32];
  }
}

/** Turns the sources of a map into URLs, which DevTools and editors can open. */
function mapWithUrls(text: string): string {
  const map = JSON.parse(text) as { sources: string[]; sourceRoot?: string };
  map.sources = map.sources.map((source) =>
    source.includes("://") ? source : pathToFileURL(path.resolve("/", source)).href,
  );
  return JSON.stringify(map);
}

function matches(pattern: string, text: string): boolean {
  try {
    return new RegExp(pattern).test(text);
  } catch {
    return false;
  }
}

/**
 * Replaces a name in a message, in which it stands as part of a JSON string. `replacedWhole` replaces only whole strings, and
 * ends of breakpoint ids after a colon.
 */
function replaced(text: string, from: string, to: string): string {
  return text.replaceAll(inString(from), inString(to));
}
function replacedWhole(text: string, from: string, to: string): string {
  return text
    .replaceAll(`"${inString(from)}"`, `"${inString(to)}"`)
    .replaceAll(`:${inString(from)}"`, `:${inString(to)}"`);
}
function inString(text: string): string {
  return JSON.stringify(text).slice(1, -1);
}

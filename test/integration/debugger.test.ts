import path from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, expect, test } from "vitest";
import { WebSocket } from "ws";
import { eventually, get } from "./client.ts";
import { type DevLine, DevSession, portOf } from "./dev-session.ts";

/** More than the longest time that anything in the proxy gives an entry into a sandbox. */
const LONGEST_BOX_MS = 1_500;

let session: DevSession;
const clients: Cdp[] = [];
afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  await session.end();
});

interface CdpMessage {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Record<string, never>;
  readonly result?: Record<string, never>;
  readonly error?: { readonly message: string };
}

/** A client of the DevTools protocol. */
class Cdp {
  readonly #socket: WebSocket;
  readonly #answers = new Map<number, (message: CdpMessage) => void>();
  readonly events: CdpMessage[] = [];
  #next = 1;
  #read = 0;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on("message", (data) => {
      const message = JSON.parse(String(data)) as CdpMessage;
      if (message.id === undefined) this.events.push(message);
      else this.#answers.get(message.id)?.(message);
    });
  }

  static async attach(inspector: string, title: string): Promise<Cdp> {
    const list = JSON.parse((await get(Number(inspector.split(":")[1]), "/json/list")).text) as {
      readonly title: string;
      readonly webSocketDebuggerUrl: string;
    }[];
    const target = list.find((one) => one.title === title)!;
    return Cdp.over(new WebSocket(target.webSocketDebuggerUrl));
  }

  static async over(socket: WebSocket): Promise<Cdp> {
    await new Promise((resolve, reject) => socket.on("open", resolve).on("error", reject));
    const client = new Cdp(socket);
    clients.push(client);
    return client;
  }

  async send(method: string, params: object = {}): Promise<Record<string, never>> {
    const id = this.#next++;
    const answer = new Promise<CdpMessage>((resolve) => this.#answers.set(id, resolve));
    this.#socket.send(JSON.stringify({ id, method, params }));
    const { result, error } = await answer;
    if (error !== undefined) throw new Error(`${method}: ${error.message}`);
    return result!;
  }

  /** The next event of that name. */
  async next(method: string): Promise<Record<string, never>> {
    const found = () => this.events.findIndex((e, k) => k >= this.#read && e.method === method);
    await eventually(
      async () => found(),
      (at) => at >= 0,
      method,
    );
    this.#read = found() + 1;
    return this.events[this.#read - 1]!.params!;
  }

  close(): void {
    this.#socket.terminate();
  }
}

interface Paused {
  readonly callFrames: readonly {
    readonly functionName: string;
    readonly callFrameId: string;
    readonly url: string;
    readonly source?: { readonly url: string; readonly lineNumber: number };
  }[];
}

const FILTER = "filters/hello/filter.ts";
const CONFIG = `static_resources:
  listeners:
    - name: main
      address: { socket_address: { address: 127.0.0.1, port_value: 0 } }
      filter_chains:
        - filters:
            - name: network/http_connection_manager
              config:
                stat_prefix: main
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: { prefix: /free }
                          direct_response: { status: 200, body: { inline_string: "free" } }
                          typed_per_filter_config:
                            hello: { "@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true }
                            http/script: { "@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true }
                        - match: { prefix: / }
                          direct_response: { status: 200, body: { inline_string: "hello" } }
                http_filters:
                  - name: http/script
                    config:
                      onResponse: |
                        const status: number = res.status;
                        res.headers.set("x-script", String(status));
                  - name: hello
                    config: { value: one }
                  - name: http/router
                    config: {}
`;

async function start(): Promise<{ started: DevLine; port: number; inspector: string }> {
  session = new DevSession();
  session.run("filter", "new", "hello");
  session.write("front.yaml", CONFIG);
  const started = await session.start("-c", "front.yaml", "--inspect", "0");
  return { started, port: portOf(started, "main"), inspector: String(started.inspector) };
}

/** Line from 0, as the protocol counts. */
function lineOf(text: string, what: string): number {
  return text.split("\n").findIndex((line) => line.includes(what));
}

test("stops at a line of TypeScript while other routes are served, and again after a save", async () => {
  const { port, inspector } = await start();
  const client = await Cdp.attach(inspector, "http/hello");
  await client.send("Runtime.enable");
  await client.send("Debugger.enable");
  const source = session.read(FILTER);
  const url = pathToFileURL(path.join(session.dir, FILTER)).href;
  const lineNumber = lineOf(source, "headers.set(");
  const set = await client.send("Debugger.setBreakpointByUrl", { url, lineNumber });
  expect(set.locations).toHaveLength(1);

  const held = get(port, "/held");
  const paused = (await client.next("Debugger.paused")) as unknown as Paused;
  expect(paused.callFrames[0]).toMatchObject({
    functionName: "onResponseHeaders",
    url: "tsproxy:///http/hello.js",
    source: { url, lineNumber },
  });
  const { callFrameId } = paused.callFrames[0]!;
  const value = await client.send("Debugger.evaluateOnCallFrame", {
    callFrameId,
    expression: "this.constructor.name",
  });
  expect(value.result).toMatchObject({ value: "Hello" });
  // Others are served for longer than any time box, and who is stopped is still there.
  for (const since = performance.now(); performance.now() - since < LONGEST_BOX_MS; )
    expect((await get(port, "/free")).text).toBe("free");
  await client.send("Debugger.resume");
  expect((await held).headers).toMatchObject({ "x-hello": "one" });

  session.write(FILTER, source.replace("this.#config.value", '"saved"'));
  await session.next("reloaded");
  const again = (await client.next("Debugger.paused")) as unknown as Paused;
  expect(again.callFrames[0]!.source).toMatchObject({ url, lineNumber });
  // That was the request that `filter dev` has sent again.
  await client.send("Debugger.resume");
  const second = get(port, "/second");
  await client.next("Debugger.paused");
  await client.send("Debugger.removeBreakpoint", { breakpointId: set.breakpointId });
  await client.send("Debugger.resume");
  expect((await second).headers).toMatchObject({ "x-hello": "saved" });
  expect((await get(port, "/third")).headers).toMatchObject({ "x-hello": "saved" });
});

test("a client that leaves lets go what it held", async () => {
  const { port, inspector } = await start();
  const client = await Cdp.attach(inspector, "http/hello");
  await client.send("Debugger.enable");
  const url = pathToFileURL(path.join(session.dir, FILTER)).href;
  const lineNumber = lineOf(session.read(FILTER), "headers.set(");
  await client.send("Debugger.setBreakpointByUrl", { url, lineNumber });
  const held = get(port, "/held");
  await client.next("Debugger.paused");
  client.close();
  expect((await held).headers).toMatchObject({ "x-hello": "one" });
});

test("a filter is replaced while somebody is stopped in it", async () => {
  const { port, inspector } = await start();
  const client = await Cdp.attach(inspector, "http/hello");
  await client.send("Debugger.enable");
  const source = session.read(FILTER);
  const url = pathToFileURL(path.join(session.dir, FILTER)).href;
  const lineNumber = lineOf(source, "headers.set(");
  await client.send("Debugger.setBreakpointByUrl", { url, lineNumber });
  const held = get(port, "/held");
  await client.next("Debugger.paused");
  session.write(FILTER, source.replace("this.#config.value", '"saved"'));
  await client.next("Debugger.resumed");
  expect((await held).headers).toMatchObject({ "x-hello": "one" });
  // `filter dev` sends that request again, to the new code, which stops there as well.
  await client.next("Debugger.paused");
  client.close();
  expect(await session.next("reloaded")).toMatchObject({
    replayed: [{ headers: [{ text: "x-hello: one" }, { text: "x-hello: saved" }] }],
  });
});

test("a config is saved while somebody is stopped in a script of it", async () => {
  const { port, inspector } = await start();
  const client = await Cdp.attach(inspector, "http/script");
  await client.send("Debugger.enable");
  const url = pathToFileURL(path.join(session.dir, "front.yaml")).href;
  const lineNumber = lineOf(CONFIG, 'res.headers.set("x-script"');
  await client.send("Debugger.setBreakpointByUrl", { url, lineNumber });
  const held = get(port, "/held");
  await client.next("Debugger.paused");
  session.write("front.yaml", CONFIG.replace("String(status)", '"saved"'));
  await client.next("Debugger.resumed");
  expect((await held).headers).toMatchObject({ "x-script": "200" });
  // Sent again by `filter dev`, it stops at the same line of the script that was saved.
  await client.next("Debugger.paused");
  client.close();
  await session.next("reloaded");
  expect((await get(port, "/after")).headers).toMatchObject({ "x-script": "saved" });
});

test("stops at a line of a script in the YAML file", async () => {
  const { port, inspector } = await start();
  const client = await Cdp.attach(inspector, "http/script");
  await client.send("Debugger.enable");
  const url = pathToFileURL(path.join(session.dir, "front.yaml")).href;
  const lineNumber = lineOf(CONFIG, 'res.headers.set("x-script"');
  const set = await client.send("Debugger.setBreakpointByUrl", { url, lineNumber });
  expect(set.locations).toMatchObject([{ lineNumber }]);
  const held = get(port, "/held");
  const paused = (await client.next("Debugger.paused")) as unknown as Paused;
  expect(paused.callFrames[0]).toMatchObject({ functionName: "onResponse", url });
  const value = await client.send("Debugger.evaluateOnCallFrame", {
    callFrameId: paused.callFrames[0]!.callFrameId,
    expression: "status",
  });
  expect(value.result).toMatchObject({ value: 200 });
  await client.send("Debugger.resume");
  expect((await held).headers).toMatchObject({ "x-script": "200" });
});

test("stops at a line of Lua in the YAML file, for a client that attached by the package's name", async () => {
  session = new DevSession();
  const script = `
                  - name: envoy.filters.http.lua
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
                      default_source_code:
                        inline_string: |
                          local seen = 0
                          function envoy_on_response(h)
                            seen = seen + 1
                            local text = "n" .. seen
                            h:headers():add("x-lua", text)
                          end
`;
  const config = CONFIG.replace(
    / +- name: http\/script\n[\s\S]*\n(?= +- name: http\/router)/,
    script.slice(1),
  ).replace(/ +typed_per_filter_config:\n.*\n.*\n/, "");
  session.write("front.yaml", config);
  const started = await session.start("-c", "front.yaml", "--inspect", "0");
  const port = portOf(started, "main");
  const socket = new WebSocket(`ws://${started.inspector}/http/lua`);
  const client = await Cdp.over(socket);
  await client.send("Debugger.enable");
  const url = pathToFileURL(path.join(session.dir, "front.yaml")).href;
  const lineNumber = lineOf(config, 'h:headers():add("x-lua"');
  const set = await client.send("Debugger.setBreakpointByUrl", { url, lineNumber });
  expect(set.locations).toHaveLength(1);
  const evaluated = await client.send("Runtime.evaluate", { expression: "1 + 1" });
  expect(evaluated.result).toMatchObject({ value: 2 });

  const held = get(port, "/held");
  const paused = (await client.next("Debugger.paused")) as unknown as Paused;
  expect(paused.callFrames[0]!.source).toMatchObject({ url, lineNumber });
  await client.send("Debugger.resume");
  expect((await held).headers).toMatchObject({ "x-lua": "n1" });
});

/** What VS Code's debugger asks of whatever it attaches to, before anybody has set a breakpoint; no isolate knows all of it. */
const GREETING: readonly (readonly [method: string, params?: object])[] = [
  ["Runtime.enable"],
  ["Runtime.evaluate", { contextId: 1, returnByValue: true, expression: "typeof process" }],
  ["Network.enable"],
  ["NodeWorker.enable", { waitForDebuggerOnStart: false }],
  ["Debugger.enable"],
  ["Debugger.setAsyncCallStackDepth", { maxDepth: 32 }],
  ["Debugger.setPauseOnExceptions", { state: "none" }],
  ["Debugger.setBlackboxPatterns", { patterns: [] }],
  [
    "Debugger.setInstrumentationBreakpoint",
    { instrumentation: "beforeScriptWithSourceMapExecution" },
  ],
  ["Runtime.addBinding", { name: "__jsDebugBinding" }],
  ["Runtime.runIfWaitingForDebugger"],
];
/** The pattern that it makes of a file's path. */
const patternOf = (file: string): string =>
  [pathToFileURL(file).href, file]
    .map((name) => `${name.replaceAll(/[/.\\^$*+?()|[\]{}-]/g, "\\$&")}($|\\?)`)
    .join("|");

interface Script {
  readonly scriptId: string;
  readonly url: string;
  readonly sourceMapURL: string;
  readonly endLine: number;
}
interface Location {
  readonly scriptId: string;
  readonly lineNumber: number;
  readonly columnNumber: number;
}

test("is attached to, stopped, looked into and stepped through as VS Code does it", async () => {
  const { port, inspector } = await start();
  const inspectorPort = Number(inspector.split(":")[1]);
  // Without a socket here it takes the first of the list.
  expect(JSON.parse((await get(inspectorPort, "/json/version")).text)).toEqual({
    Browser: expect.stringMatching(/^tsproxy/),
    "Protocol-Version": "1.3",
  });
  const client = await Cdp.attach(inspector, "http/hello");
  const refused: string[] = [];
  for (const [method, params] of GREETING)
    await client.send(method, params).catch(() => refused.push(method));
  expect(refused.filter((method) => /^(?:Debugger|Runtime\.(?:enable|run))/.test(method))).toEqual(
    [],
  );

  // The source map comes with the script, and its sources open as files.
  const file = path.join(session.dir, FILTER);
  const parsed = client.events.filter(({ method }) => method === "Debugger.scriptParsed");
  const script = parsed
    .map(({ params }) => params as unknown as Script)
    .find(({ url }) => url === "tsproxy:///http/hello.js")!;
  const [, encoded = ""] = script.sourceMapURL.split("data:application/json;base64,");
  const map = JSON.parse(Buffer.from(encoded, "base64").toString()) as { sources: string[] };
  expect(map.sources).toContain(pathToFileURL(file).href);
  const { scriptSource } = await client.send("Debugger.getScriptSource", {
    scriptId: script.scriptId,
  });
  expect(scriptSource).toContain("onResponseHeaders");

  const source = session.read(FILTER);
  const lineNumber = lineOf(source, "headers.set(");
  const set = await client.send("Debugger.setBreakpointByUrl", {
    urlRegex: patternOf(file),
    lineNumber,
    columnNumber: 0,
    condition: "",
  });
  const [location] = set.locations as unknown as Location[];
  expect(location?.scriptId).toBe(script.scriptId);
  // Where the map leads it sets one of its own.
  const own = await client.send("Debugger.setBreakpoint", { location });
  const begin = { scriptId: script.scriptId, lineNumber: location!.lineNumber, columnNumber: 0 };
  const possible = await client.send("Debugger.getPossibleBreakpoints", {
    start: begin,
  });
  expect(possible.locations).toContainEqual(expect.objectContaining(location));

  const held = get(port, "/held");
  const paused = (await client.next("Debugger.paused")) as unknown as Paused & {
    readonly hitBreakpoints: readonly string[];
    readonly callFrames: readonly {
      readonly scopeChain: readonly {
        readonly type: string;
        readonly object: { objectId: string };
      }[];
    }[];
  };
  // Of two at one place V8 names one.
  expect([set.breakpointId, own.breakpointId]).toContain(paused.hitBreakpoints[0]);
  const [frame] = paused.callFrames;
  expect(frame?.source).toMatchObject({ url: pathToFileURL(file).href, lineNumber });
  const local = frame!.scopeChain.find(({ type }) => type === "local")!;
  const { result } = await client.send("Runtime.getProperties", {
    objectId: local.object.objectId,
    ownProperties: true,
    generatePreview: true,
  });
  expect((result as unknown as { name: string }[]).map(({ name }) => name)).toContain("headers");
  await client.send("Debugger.stepOver", {});
  const stepped = (await client.next("Debugger.paused")) as unknown as Paused;
  expect(stepped.callFrames[0]?.source?.lineNumber ?? lineNumber).toBeGreaterThanOrEqual(
    lineNumber,
  );
  await client.send("Debugger.resume");
  expect((await held).headers).toMatchObject({ "x-hello": "one" });

  for (const { breakpointId } of [set, own])
    await client.send("Debugger.removeBreakpoint", { breakpointId });
  expect((await get(port, "/again")).headers).toMatchObject({ "x-hello": "one" });
});

test("names of other machines attach to nothing", async () => {
  const { inspector } = await start();
  const port = Number(inspector.split(":")[1]);
  expect((await get(port, "/json/list", { headers: { host: "evil.example" } })).status).toBe(403);
  expect((await get(port, "/nothing")).status).toBe(404);
  const list = await get(port, "/json/list");
  expect(JSON.parse(list.text)).toEqual(
    expect.arrayContaining([
      expect.objectContaining({ title: "http/script", type: "node" }),
      expect.objectContaining({ title: "http/hello", type: "node" }),
    ]),
  );
});

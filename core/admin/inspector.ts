import { randomUUID } from "node:crypto";
import http from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { type WebSocket, WebSocketServer } from "ws";
import type { FromWorker, ToWorker } from "../protocol.ts";
import { VERSION } from "../version.ts";
import { type DebuggedModule, DebugSession } from "./debug-session.ts";

export interface InspectorParts {
  /** Packages that run in a sandbox. */
  readonly targets: () => readonly InspectorTarget[];
  /** The module of that name in stack traces. Undefined: there is none. */
  readonly module: (filename: string) => DebuggedModule | undefined;
  /** Sends to the worker that is debugged. */
  readonly post: (message: Extract<ToWorker, { type: "inspect" }>) => void;
}

export interface InspectorTarget {
  readonly package: string;
  /** The package's entry file. */
  readonly entry: string;
}

type Told = Extract<FromWorker, { type: "inspected" | "inspect_bound" }>;

const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

/**
 * The endpoint that Chrome's DevTools and editors attach to, as Node's own: `/json/list` names a target for each sandboxed
 * package, and a WebSocket speaks the DevTools protocol with its isolate.
 */
export class Inspector {
  readonly #parts: InspectorParts;
  readonly #server: http.Server;
  readonly #sockets = new WebSocketServer({ noServer: true, maxPayload: MAX_MESSAGE_BYTES });
  /** Ids of targets, by package. They are random, so that a web page open in a browser cannot attach: it does not know them. */
  readonly #ids = new Map<string, string>();
  readonly #sessions = new Map<number, DebugSession>();
  #next = 1;

  constructor(parts: InspectorParts) {
    this.#parts = parts;
    this.#server = http.createServer((request, response) => this.#onRequest(request, response));
    this.#server.on("upgrade", (request: http.IncomingMessage, socket: Duplex, head: Buffer) =>
      this.#onUpgrade(request, socket, head),
    );
  }

  /** Listens on 127.0.0.1, so that only this machine can attach. Answers the address, `127.0.0.1:9230`. */
  listen(port: number): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#server.on("error", reject);
      this.#server.listen(port, "127.0.0.1", () => {
        this.#server.unref();
        const { address, port: bound } = this.#server.address() as AddressInfo;
        resolve(`${address}:${bound}`);
      });
    });
  }

  close(): void {
    this.#server.close();
    for (const client of this.#sockets.clients) client.terminate();
  }

  /** Called with the messages of the worker that is debugged. */
  onWorker(message: Told): void {
    const session = this.#sessions.get(message.session);
    if (session === undefined) return;
    if (message.type === "inspected") session.onIsolate(message.text);
    else {
      const module = this.#parts.module(message.filename);
      if (module !== undefined) void session.onBoundTo(module);
    }
  }

  #onRequest({ url, headers }: http.IncomingMessage, response: http.ServerResponse): void {
    const answer = (status: number, value: unknown) => {
      response.writeHead(status, { "content-type": "application/json; charset=UTF-8" });
      response.end(`${JSON.stringify(value, undefined, 2)}\n`);
    };
    const [path] = (url ?? "").split("?", 1);
    if (!isLocalName(headers.host)) answer(403, { error: "attach by an address" });
    else if (path === "/json" || path === "/json/list") answer(200, this.#list(headers.host!));
    else if (path === "/json/version")
      answer(200, { Browser: `tsproxy/${VERSION}`, "Protocol-Version": "1.3" });
    else answer(404, { error: "there are /json/list and /json/version" });
  }

  #list(host: string): unknown[] {
    return this.#parts.targets().map(({ package: name, entry }) => {
      const id = this.#idOf(name);
      const socket = `${host}/${id}`;
      return {
        description: "tsproxy filter",
        devtoolsFrontendUrl: `devtools://devtools/bundled/js_app.html?experiments=true&v8only=true&ws=${socket}`,
        id,
        title: name,
        type: "node",
        url: `file://${entry}`,
        webSocketDebuggerUrl: `ws://${socket}`,
      };
    });
  }

  #idOf(name: string): string {
    const id = this.#ids.get(name) ?? randomUUID();
    this.#ids.set(name, id);
    return id;
  }

  #onUpgrade(request: http.IncomingMessage, socket: Duplex, head: Buffer): void {
    const path = (request.url ?? "").slice(1);
    const byId = [...this.#ids].find(([, id]) => id === path)?.[0];
    const name = byId ?? (isPage(request.headers.origin) ? undefined : path);
    const isThere = this.#parts.targets().some((target) => target.package === name);
    if (name === undefined || !isThere || !isLocalName(request.headers.host)) {
      socket.end("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
      return;
    }
    this.#sockets.handleUpgrade(request, socket, head, (client) => this.#open(client, name));
  }

  #open(client: WebSocket, name: string): void {
    const number = this.#next++;
    const post = (action: "open" | "send" | "ready" | "close", text = "") =>
      this.#parts.post({ type: "inspect", session: number, action, text });
    const session = new DebugSession({
      url: `tsproxy:///${name}.js`,
      toClient: (text) => client.send(text),
      toIsolate: (text) => post("send", text),
      onBound: () => post("ready"),
    });
    this.#sessions.set(number, session);
    post("open", name);
    client.on("message", (data) => session.onClient(String(data)));
    client.on("error", () => client.terminate());
    client.on("close", () => {
      this.#sessions.delete(number);
      post("close");
    });
  }
}

/**
 * True if a web page opened the WebSocket: editors send no Origin, DevTools one of their own. Those may also attach by a
 * package's name, which stays the same from run to run.
 */
function isPage(origin: string | undefined): boolean {
  return origin !== undefined && !origin.startsWith("devtools://");
}

/** True for a loopback host. Any other is refused, so that a site whose name resolves to 127.0.0.1 gets no access. */
function isLocalName(host: string | undefined): boolean {
  return /^(?:localhost|127(?:\.\d+){3}|\[::1\])(?::\d+)?$/i.test(host ?? "");
}

import { type ChildProcess, execFile, spawn } from "node:child_process";
import dgram from "node:dgram";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import https from "node:https";
import path from "node:path";
import { promisify } from "node:util";
import { afterEach, expect, test } from "vitest";
import { makeCertificates } from "../../examples/tls-edge/certificates.ts";
import { hasOpenssl } from "../programs.ts";
import { deferred, eventually, get, RawClient } from "./client.ts";
import { PATIENCE_MS } from "./patience.ts";
import { ROOT } from "./proxy.ts";

/** An example as a person runs it, but on free ports. */
class Example {
  readonly #child: ChildProcess;
  readonly exited: Promise<number | null>;
  stdout = "";
  stderr = "";

  constructor(command: readonly string[]) {
    this.#child = spawn(command[0]!, command.slice(1), {
      cwd: ROOT,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child.stdout!.setEncoding("utf8").on("data", (text: string) => (this.stdout += text));
    this.#child.stderr!.setEncoding("utf8").on("data", (text: string) => (this.stderr += text));
    this.exited = new Promise((resolve) => this.#child.on("close", resolve));
  }

  /** Settles when it has said what to try, which is the last thing it says by itself. */
  static start(name: string, ...args: string[]): Promise<Example> {
    return new Example([process.execPath, ...runOf(name), ...args]).#told();
  }

  /** As its README says. */
  static startByNpx(name: string): Promise<Example> {
    return new Example(["npx", "node", ...runOf(name)]).#told();
  }

  #told(): Promise<Example> {
    return new Promise((resolve, reject) => {
      const fail = () => {
        clearTimeout(deadline);
        this.#child.kill("SIGTERM");
        reject(new Error(`did not start:\n${this.stdout}${this.stderr}`));
      };
      const deadline = setTimeout(fail, PATIENCE_MS * 3);
      this.#child.on("close", fail);
      this.#child.stdout!.on("data", () => {
        if (!/^ {2}admin /m.test(this.stdout)) return;
        clearTimeout(deadline);
        resolve(this);
      });
    });
  }

  /** The port that stands in the line that has this text. */
  port(text: string): number {
    const line = this.stdout.split("\n").find((l) => l.includes(text)) ?? "";
    const [, port] = /localhost[: ](\d+)/.exec(line) ?? [];
    if (port === undefined) throw new Error(`no port beside "${text}" in:\n${this.stdout}`);
    return Number(port);
  }

  /** As Ctrl-C does. */
  async stop(): Promise<number | null> {
    this.#child.kill("SIGINT");
    return this.exited;
  }

  terminate(): void {
    this.#child.kill("SIGTERM");
  }
}

const runOf = (name: string): string[] => [path.join("examples", name, "run.ts"), "--free-ports"];

let example: Example | undefined;
afterEach(async () => {
  await example?.stop();
  example = undefined;
});

test("an example that npx has started ends with npx", async () => {
  example = await Example.startByNpx("tcp");
  const admin = example.port("admin");
  example.terminate();
  await example.exited;
  // Every process that it has started holds its output open, so all of them have ended.
  await expect(get(admin, "/ready")).rejects.toThrow();
});

const hello = async (front: number, service: number) =>
  (await get(front, `/service/${service}`)).text;
const helloOf = (service: number) =>
  new RegExp(`^Hello from behind tsproxy \\(service ${service}\\)! `);

/** What comes back for a WebSocket message. */
async function webSocketEcho(url: string, message: string): Promise<string> {
  const socket = new WebSocket(url);
  const answered = deferred<string>();
  socket.onopen = () => socket.send(message);
  socket.onmessage = ({ data }) => answered.resolve(data);
  socket.onerror = () => answered.reject(new Error(`no WebSocket at ${url}`));
  const answer = await answered.promise;
  socket.close();
  return answer;
}

test.each([
  ["as 2018 wrote it", []],
  ["in v3", ["--v3"]],
])(
  "front-proxy %s: two services behind one address, WebSocket, access log, admin",
  async (_, args) => {
    example = await Example.start("front-proxy", ...args);
    const front = example.port("/service/1");
    for (const n of [1, 2]) expect(await hello(front, n)).toMatch(helloOf(n));
    expect((await get(front, "/service/3")).status).toBe(404);
    expect(await webSocketEcho(`ws://127.0.0.1:${front}/service/1/echo`, "hi")).toBe("hi");
    const clusters = await get(example.port("admin"), "/clusters");
    expect(clusters.text).toMatch(/^service1::127\.0\.0\.1:\d+::cx_total::[1-9]/m);
    expect(await example.stop()).toBe(0);
    expect(example.stdout).toMatch(/"GET \/service\/1 HTTP\/1\.1" 200 - 0 \d+ /);
    expect(example.stdout).toMatch(/"GET \/service\/3 HTTP\/1\.1" 404 NR 0 0 /);
  },
);

test("echo-balancer: both services serve, JSON and WebSocket messages come back", async () => {
  example = await Example.start("echo-balancer");
  const port = example.port("curl -i");
  const served: unknown[] = [];
  for (let n = 0; n < 12; n++) {
    const { headers, text } = await get(port, "/", { headers: { "x-mine": `${n}` } });
    expect(JSON.parse(text)).toMatchObject({ "x-mine": `${n}`, "x-forwarded-proto": "http" });
    served.push(headers["x-served-by"]);
  }
  // Each worker takes turns of its own.
  expect(new Set(served)).toEqual(new Set(["a", "b"]));
  const echoed = await get(port, "/echo", { method: "POST", body: '{"hello": "world"}' });
  expect(JSON.parse(echoed.text)).toEqual({ hello: "world" });
  expect((await get(port, "/echo", { method: "POST", body: "{" })).status).toBe(400);
  expect(await webSocketEcho(`ws://127.0.0.1:${port}/ws`, "ping")).toBe("ping");
});

test("tcp: a forwarded service, an echo, a sign", async () => {
  example = await Example.start("tcp");
  const forward = await RawClient.connect(example.port("tcp_proxy"));
  await forward.untilText("say something\n");
  forward.send("hello\n");
  await forward.untilText("HELLO\n");
  forward.end();
  await forward.untilClosed();
  expect(forward.text).toBe("say something\nHELLO\nbye\n");
  const echo = await RawClient.connect(example.port("echo"));
  echo.send("same");
  await echo.untilText("same");
  echo.destroy();
  const sign = await RawClient.connect(example.port("direct_response"));
  await sign.untilEnded();
  expect(sign.text).toBe("closed for lunch\n");
  sign.destroy();
});

test.skipIf(!hasOpenssl)(
  "tls-edge: HTTPS for everybody, certificates by name, clients by certificate",
  async () => {
    example = await Example.start("tls-edge");
    const plain = await get(example.port("curl -i"), "/a", {
      headers: { host: "www.example.test" },
    });
    expect(plain.status).toBe(301);
    expect(plain.headers.location).toMatch(/^https:\/\/www\.example\.test:\d+\/a$/);
    const port = example.port("www.example.test");
    const certs = path.join(ROOT, "examples/tls-edge/certs");
    const read = (file: string) => readFileSync(path.join(certs, file));
    const ask = (host: string, identity: https.RequestOptions = {}) =>
      new Promise<string>((resolve, reject) => {
        const options = { port, host: "127.0.0.1", servername: host, ca: read("ca.pem") };
        const headers = { host };
        const request = https.get({ ...options, headers, ...identity, agent: false }, (response) =>
          response.setEncoding("utf8").on("data", resolve),
        );
        request.on("error", reject);
      });
    expect(await ask("www.example.test")).toBe("https://www.example.test/\n");
    expect(await ask("shop.example.test")).toBe("https://shop.example.test/\n");
    await expect(ask("staff.example.test")).rejects.toThrow();
    const ada = { key: read("ada.key"), cert: read("ada.pem") };
    expect(await ask("staff.example.test", ada)).toMatch(
      /^https:\/\/staff\.example\.test\/ by Hash=[0-9a-f]{64};URI=spiffe:\/\/example\.test\/staff\/ada\n$/,
    );
    const { certificates } = JSON.parse((await get(example.port("admin"), "/certs")).text) as {
      certificates: { cert_chain: { path: string; days_until_expiration: string }[] }[];
    };
    const chains = certificates.flatMap(({ cert_chain }) => cert_chain.map((c) => c.path));
    expect(chains).toContain("examples/tls-edge/certs/www.pem");
  },
);

test("udp: datagrams come back from one of two services", async () => {
  example = await Example.start("udp");
  const socket = dgram.createSocket("udp4");
  const answered = deferred<string>();
  socket.on("message", (bytes) => answered.resolve(String(bytes)));
  socket.send("hello", example.port("nc -u"), "127.0.0.1");
  expect(await answered.promise).toMatch(/^[ab]: hello$/);
  socket.close();
});

test("first-filter: a folder beside the config is a filter", async () => {
  example = await Example.start("first-filter");
  const port = example.port("/hello");
  const admin = example.port("admin");
  expect((await get(port, "/hello?name=Ada")).text).toBe("Hello, Ada!\n");
  const { headers, text } = await get(port, "/");
  expect(headers["x-greeting"]).toBe("Hello");
  expect(text).toBe("the route's own answer\n");
  const stats = () => get(admin, "/stats?filter=greeting").then(({ text }) => text);
  // What sandboxes count is collected once a second.
  await eventually(
    stats,
    (text) => /^greeting\.greeted: 1$/m.test(text),
    "the greeting is counted",
  );
});

test("scripts: a limit for each key, a check by another service, a body rewritten", async () => {
  example = await Example.start("scripts");
  const port = example.port("curl -i");
  const ask = (path: string, key?: string) =>
    get(port, path, key === undefined ? {} : { headers: { "x-api-key": key } });
  expect((await ask("/")).text).toBe("HELLO, NOBODY\n");
  expect((await ask("/private", "ada")).text).toBe("HELLO, ADA\n");
  expect(await ask("/private")).toMatchObject({ status: 403, text: "NOT FOR YOU\n" });
  const page = (await ask("/page", "ada")).text;
  expect(page).toMatch(/^VERSION [AB]\n$/);
  expect((await ask("/page", "ada")).text).toBe(page);
  const statuses: number[] = [];
  for (let k = 0; k < 12; k++) statuses.push((await ask("/", "bob")).status);
  expect(statuses.filter((status) => status === 200)).toHaveLength(10);
  // A token comes every six seconds, and the first of them may be under way for long.
  expect((await ask("/", "bob")).headers["retry-after"]).toMatch(/^[1-6]$/);
});

test("lua: headers and a body edited, another service asked, a module, a TCP connection", async () => {
  example = await Example.start("lua");
  const port = example.port("curl -i");
  const ask = (path: string, headers: Record<string, string> = {}) => get(port, path, { headers });
  expect(await ask("/")).toMatchObject({
    text: "HELLO, NOBODY\n",
    headers: { "x-size-before": "14", "content-length": "14" },
  });
  expect((await ask("/", { "accept-language": "fr-CH" })).text).toBe("BONJOUR, NOBODY\n");
  expect((await ask("/private", { "x-api-key": "ada" })).text).toBe("HELLO, ADA\n");
  expect(await ask("/private")).toMatchObject({ status: 403, text: "NOT FOR YOU\n" });
  expect((await ask("/plain")).text).toBe("hello, nobody\n");
  const client = await RawClient.connect(example.port("nc"));
  await client.untilText("say something, 127.0.0.1\n");
  client.send("a secret b\n");
  await client.untilText("a ****** b\n");
  client.destroy();
});

test("filters: a limit for each key, tokens, versions, bodies rewritten as they pass, TCP clients told apart", async () => {
  example = await Example.start("filters");
  const port = example.port("/page");
  const ask = (path: string, headers: Record<string, string> = {}) => get(port, path, { headers });
  expect((await ask("/")).text).toBe("hello nobody, here is a lion\n");

  const page = await ask("/page");
  const [, version] = /^version ([ab])\n$/.exec(page.text)!;
  const cookie = String(page.headers["set-cookie"]).split(";")[0]!;
  expect(cookie).toBe(`version=${version}`);
  expect((await ask("/page", { cookie })).text).toBe(page.text);

  expect((await ask("/private")).status).toBe(401);
  const authorization = /authorization: (Bearer [^']+)'/.exec(example.stdout)![1]!;
  expect((await ask("/private", { authorization })).text).toBe("hello ada, here is a lion\n");
  const forged = await ask("/private", { authorization: `${authorization.slice(0, -4)}AAAA` });
  expect([forged.status, forged.text]).toEqual([401, "a wrong signature\n"]);

  const statuses: number[] = [];
  for (let k = 0; k < 12; k++) statuses.push((await ask("/", { "x-api-key": "k" })).status);
  expect(statuses.filter((status) => status === 200)).toHaveLength(10);

  const tcp = Number(/curl -i http:\/\/localhost:(\d+)\/\n +admin/.exec(example.stdout)![1]);
  expect((await get(tcp, "/")).text).toBe("hello nobody, here is a cat\n");
  const ssh = await RawClient.connect(tcp);
  ssh.send("SSH-2.0-OpenSSH_9.2\r\n");
  await ssh.untilClosed();
});

test("mesh: through two proxies and HTTP/2 between them, WebSocket as well", async () => {
  example = await Example.start("mesh");
  const front = example.port("/service/1");
  for (const n of [1, 2]) expect(await hello(front, n)).toMatch(helloOf(n));
  expect(await webSocketEcho(`ws://127.0.0.1:${front}/service/1/echo`, "hi")).toBe("hi");
  const stats = async (line: string, filter: string) =>
    (await get(example!.port(line), `/stats?filter=${filter}`)).text;
  expect(await stats("  admin  ", "service1.upstream_cx_http2_total")).toMatch(/: [1-9]/);
  expect(await stats("admin of service1", "local_service.upstream_cx_http1_total")).toMatch(
    /: [1-9]/,
  );
  expect(await example.stop()).toBe(0);
  expect(example.stdout).toMatch(/^service 1: GET \/service\/1 HTTP\/2 200$/m);
  expect(example.stdout).toMatch(/^service 1: GET \/service\/1\/echo HTTP\/2 /m);
  expect(example.stdout).toMatch(/^service 2: GET \/service\/2 HTTP\/2 200$/m);
});

test("grpc-bridge: an HTTP/1.1 client reads and writes at a gRPC server", async () => {
  example = await Example.start("grpc-bridge");
  const port = example.port("the client's side");
  const client = async (...args: string[]) => {
    const file = path.join(ROOT, "examples/grpc-bridge/client.ts");
    const run = promisify(execFile)(process.execPath, [file, ...args], {
      env: { ...process.env, PORT: String(port) },
    });
    return (await run).stdout;
  };
  expect(await client("get", "greeting")).toBe("503, grpc-status 5 no greeting\n");
  expect(await client("set", "greeting", "hello")).toBe("200, grpc-status 0\n");
  expect(await client("get", "greeting")).toBe("200, grpc-status 0\nhello\n");
  expect((await get(port, "/", { headers: { host: "other" } })).status).toBe(404);
});

test.skipIf(!hasOpenssl)(
  "external-site: a site is asked by its own name, over TLS that is verified",
  async () => {
    example = await Example.start("external-site");
    const { status, text } = await get(example.port("curl -i"), "/");
    expect([status, text]).toEqual([200, "HTTP/2.0 www.envoyproxy.io www.envoyproxy.io\n"]);
    const clusters = await get(example.port("admin"), "/clusters");
    expect(clusters.text).toMatch(/^site::127\.0\.0\.1:\d+::rq_success::1$/m);
  },
);

const examples = readdirSync(path.join(ROOT, "examples"), { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => entry.name);

test("this file starts every example", () => {
  const own = readFileSync(import.meta.filename, "utf8");
  for (const name of examples) expect(own).toContain(`Example.start("${name}"`);
});

const configsOf = (folder: string): string[] =>
  readdirSync(folder).filter((file) => file.endsWith(".yaml") && file !== "compose.yaml");

test.each(examples)("%s has a README of one screen, and its configs are valid", async (name) => {
  if (name === "tls-edge" && !hasOpenssl) return;
  const folder = path.join(ROOT, "examples", name);
  const readme = readFileSync(path.join(folder, "README.md"), "utf8");
  expect(readme.split("\n").length).toBeLessThan(50);
  expect(readme).toMatch(new RegExp(`examples/${name}/run.ts`));
  const configs = configsOf(folder);
  expect(configs.length).toBeGreaterThan(0);
  const cli = path.join(ROOT, "core/bin/tsproxy.js");
  if (name === "tls-edge") makeCertificates();
  const validate = new Example([
    process.execPath,
    cli,
    "validate",
    ...configs.map((c) => path.join(folder, c)),
  ]);
  expect(await validate.exited, validate.stdout + validate.stderr).toBe(0);
});

test("npm start runs the front proxy", () => {
  const { scripts } = JSON.parse(readFileSync(path.join(ROOT, "package.json"), "utf8"));
  expect(scripts.start).toBe("node examples/front-proxy/run.ts");
  expect(existsSync(path.join(ROOT, "examples/front-proxy/run.ts"))).toBe(true);
});

test("no two examples want the same port", () => {
  const wanted = examples.map((name) => {
    const folder = path.join(ROOT, "examples", name);
    const texts = configsOf(folder).map((config) =>
      readFileSync(path.join(folder, config), "utf8"),
    );
    const text = texts.join("\n");
    return [...new Set([...text.matchAll(/port_value: (\d+)/g)].map(([, port]) => port))];
  });
  expect(wanted.flat().length).toBe(new Set(wanted.flat()).size);
});

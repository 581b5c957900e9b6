import { readFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import { direct, http, listener } from "./config.ts";
import { DevSession } from "./dev-session.ts";
import { Proxy } from "./proxy.ts";

const BUSY = `import { defineHttpFilter, Type } from "@tsproxy/sdk";

const kept: string[] = [];

function burn(until: number): number {
  let sum = 0;
  for (let k = 0; k < until; k++) sum += String(k).length;
  kept.push(String(sum).repeat(1000));
  return sum;
}

export default defineHttpFilter({
  name: "busy",
  config: Type.Object({}),
  setup: () => () => ({
    onResponseHeaders(headers) {
      headers.set("x-sum", String(burn(20_000)));
    },
  }),
});
`;

let proxy: Proxy | undefined;
afterEach(() => proxy?.stop());

async function started(): Promise<Proxy> {
  const main = listener("main", http([direct("/", "hello")], {}, [{ name: "busy", config: {} }]));
  const address = { socket_address: { address: "127.0.0.1", port_value: 0 } };
  const config = { static_resources: { listeners: [main] }, admin: { address } };
  return Proxy.start({ config, files: { "filters/busy.ts": BUSY } });
}

/** Asks the filter again and again until the work is done. */
async function underLoad<T>(port: number, work: Promise<T>): Promise<T> {
  let isOver = false;
  const done = work.finally(() => (isOver = true));
  while (!isOver) expect((await get(port, "/")).status).toBe(200);
  return done;
}

interface Node {
  readonly callFrame: { functionName: string; url: string; lineNumber: number };
  readonly hitCount: number;
  readonly children?: readonly Node[];
}

test("profiles one sandboxed filter by file and line, while it serves", async () => {
  proxy = await started();
  const source = pathToFileURL(path.join(proxy.dir, "filters/busy.ts")).href;
  const ask = (query: string) =>
    get(proxy!.adminPort, `/filter_profile?${query}`, { method: "POST" });

  // On a busy machine the filter may have been seen at work by the second profile only, or by the third.
  const main = proxy.port("main");
  const burn = await eventually(
    async () => {
      const cpu = await underLoad(main, ask("filter=busy&seconds=0.5"));
      expect(cpu.status).toBe(200);
      const { nodes } = JSON.parse(cpu.text) as { nodes: Node[] };
      return nodes.filter(({ callFrame }) => callFrame.functionName === "burn");
    },
    (found) => found.some(({ hitCount }) => hitCount > 0),
    "samples of burn",
  );
  expect(burn[0]?.callFrame).toMatchObject({ url: source, lineNumber: 4 });

  const names = (node: Node): string[] => [
    node.callFrame.functionName,
    ...(node.children ?? []).flatMap(names),
  ];
  await eventually(
    async () => {
      const heap = await underLoad(main, ask("filter=http/busy&seconds=0.5&kind=heap"));
      return names(JSON.parse(heap.text).head);
    },
    (found) => found.includes("burn"),
    "memory that burn has taken",
  );

  const snapshot = await ask("filter=busy&seconds=0.1&kind=snapshot");
  expect(JSON.parse(snapshot.text).snapshot.node_count).toBeGreaterThan(1000);

  // And it is entered on the worker's own thread again.
  expect((await get(proxy.port("main"), "/")).headers["x-sum"]).toBeDefined();
  const refused = await ask("filter=http/router");
  expect([refused.status, refused.text]).toEqual([
    500,
    expect.stringContaining('"http/router" shares an isolate with the shipped filters'),
  ]);
  expect((await ask("filter=none")).text).toMatch(
    /^no filter "none" is in a sandbox; there: http\/busy, .*http\/script/,
  );
});

test("writes a profile of a filter by /cpuprofiler, and by the command line", async () => {
  proxy = await started();
  const post = (query: string) =>
    get(proxy!.adminPort, `/cpuprofiler?${query}`, { method: "POST" });
  expect((await post("enable=y&filter=busy")).text).toBe("OK\n");
  await get(proxy.port("main"), "/");
  const [, file] = (await post("enable=n")).text.split("\n");
  expect(JSON.parse(readFileSync(file!, "utf8")).nodes[0].callFrame.functionName).toBe("(root)");

  const session = new DevSession();
  try {
    const admin = ["--admin", `127.0.0.1:${proxy.adminPort}`];
    const made = session.run("filter", "profile", "busy", "--seconds", "1", ...admin, "--json");
    expect(JSON.parse(made.stdout)).toMatchObject({ file: "busy.cpuprofile", kind: "cpu" });
    expect(JSON.parse(session.read("busy.cpuprofile")).nodes.length).toBeGreaterThan(0);
    const nobody = session.run("filter", "profile", "busy", "--admin", "127.0.0.1:1");
    expect(nobody).toMatchObject({ status: 1, stdout: expect.stringMatching(/^no tsproxy admin/) });
  } finally {
    await session.end();
  }
});

test("answers by /allocprofiler what a worker and a sandboxed filter have allocated, in Envoy's words", async () => {
  proxy = await started();
  const ask = async (query: string, method = "POST") => {
    const { status, text } = await get(proxy!.adminPort, `/allocprofiler${query}`, { method });
    return [status, text] as const;
  };
  const BAD = [400, "?enable=<y|n>\n"];
  expect([await ask(""), await ask("?enable=x")]).toEqual([BAD, BAD]);
  expect((await ask("?enable=y", "GET"))[0]).toBe(405);
  expect(await ask("?enable=n")).toEqual([400, "Allocation profiler is not started"]);
  const ofWorker = await allocated("");
  expect(ofWorker).toContain("core/sockets/");
  expect(ofWorker).not.toContain("busy.ts");
  expect(await allocated("&filter=busy")).toContain("filters/busy.ts");

  /** Places that have allocated while the filter was asked. */
  async function allocated(of: string): Promise<string> {
    expect(await ask(`?enable=y${of}`)).toEqual([200, "OK\n"]);
    expect(await ask("?enable=y")).toEqual([400, "Allocation profiler has already started"]);
    for (let n = 0; n < 100; n++) await get(proxy!.port("main"), "/");
    const [status, text] = await ask("?enable=n");
    expect(status).toBe(200);
    const urls = ({ callFrame, children }: HeapNode): string[] => [
      callFrame.url,
      ...children.flatMap(urls),
    ];
    return urls((JSON.parse(text) as { readonly head: HeapNode }).head).join(" ");
  }
}, 300_000);

interface HeapNode {
  readonly callFrame: { readonly url: string };
  readonly children: readonly HeapNode[];
}

test("answers heap dumps of threads, of a sandbox and of the isolate that shipped filters share", async () => {
  proxy = await started();
  expect((await get(proxy.port("main"), "/")).status).toBe(200);
  const dump = async (query: string) => {
    const { status, body } = await get(proxy!.adminPort, `/heap_dump${query}`);
    expect(status).toBe(200);
    return (JSON.parse(String(body)) as { readonly strings: string[] }).strings;
  };
  for (const query of ["", "?thread=worker_0", "?thread=control"])
    expect((await dump(query)).length).toBeGreaterThan(1000);
  expect(await dump("?filter=busy")).toContain("burn");
  expect(await dump("?filter=http/router")).toContain("envoy.filters.http.router");
  expect(await get(proxy.adminPort, "/heap_dump?thread=worker_9")).toMatchObject({ status: 500 });
  expect((await get(proxy.port("main"), "/")).status).toBe(200);
}, 300_000);

import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { isPacked, ROOT } from "./own-files.ts";
import { shortPath } from "./problem.ts";

export type NewFilterKind = "http" | "network";

export interface NewFilterOptions {
  readonly name: string;
  readonly kind: NewFilterKind;
  /** The directory that packages lie in. */
  readonly dir: string;
}

/** Writes a package that works as it stands: a small filter, its config, its test. */
export async function filterNew({ name, kind, dir }: NewFilterOptions): Promise<number> {
  if (!/^[a-z][a-z0-9_]*$/.test(name)) {
    const better = name
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, "_")
      .replace(/^[^a-z]+/, "");
    const hint = better === "" ? "" : `, say "${better}"`;
    process.stderr.write(
      `"${name}" is no name for a filter: write small letters, digits and _${hint}\n`,
    );
    return 1;
  }
  const folder = path.resolve(dir, name);
  if (existsSync(folder)) {
    process.stderr.write(`${shortPath(folder)} is there already; choose another name\n`);
    return 1;
  }
  await mkdir(folder, { recursive: true });
  for (const [file, text] of Object.entries(filesOf(name, kind)))
    await writeFile(path.join(folder, file), text);
  const tsconfig = await writeTsconfig(dir);
  const written = [folder, tsconfig].filter((file) => file !== undefined).map(shortPath);
  process.stdout.write(`wrote ${written.join(" and ")}\n${nextSteps(name, kind, folder)}`);
  return 0;
}

/**
 * What tsc and the editor need to know: filters import the SDK that came with this proxy, and Node does not exist for them. Stands
 * above the packages; in `filters/` itself if what is above has a tsconfig.json of its own.
 */
async function writeTsconfig(dir: string): Promise<string | undefined> {
  const above = path.dirname(path.resolve(dir));
  const places = [
    { at: above, include: path.basename(path.resolve(dir)) },
    { at: path.resolve(dir), include: "." },
  ];
  for (const { at, include } of places) {
    const file = path.join(at, "tsconfig.json");
    const found = await readFile(file, "utf8").catch(() => undefined);
    if (found !== undefined && isOurs(found)) return undefined;
    if (found !== undefined) continue;
    const config = { extends: kit(at), include: [include] };
    await writeFile(file, `${JSON.stringify(config, undefined, 2)}\n`);
    return file;
  }
  return undefined;
}

const KIT = isPacked ? "dist/tsconfig.json" : "core/tsconfig.filters.json";

function isOurs(tsconfig: string): boolean {
  return tsconfig.includes("tsproxy/tsconfig.json") || tsconfig.includes(KIT);
}

/** By name where the proxy is installed, so that it stays right when that moves; else by path. */
function kit(from: string): string {
  if (!isPacked) return path.join(ROOT, KIT);
  try {
    createRequire(path.join(from, "any.js")).resolve("tsproxy/tsconfig.json");
    return "tsproxy/tsconfig.json";
  } catch {
    return path.join(ROOT, KIT);
  }
}

function nextSteps(name: string, kind: NewFilterKind, folder: string): string {
  const place = kind === "http" ? "http_filters" : "filters";
  const dir = shortPath(path.dirname(folder));
  const option = dir === "filters" ? "" : ` --dir ${dir}`;
  return `  npx tsproxy filter test${option} ${name}    its test
  npx -p typescript tsc --noEmit    its types
  in the config, under ${place}:    - name: ${name}
  a proxy whose config has filters/ beside it, or --filters ${dir}, has it already; save and it reloads
`;
}

function filesOf(name: string, kind: NewFilterKind): Record<string, string> {
  const words = { name, Class: className(name), header: `x-${name.replaceAll("_", "-")}` };
  return {
    "package.json": `${JSON.stringify(manifest(name, kind), undefined, 2)}\n`,
    ...(kind === "http" ? httpFiles(words) : networkFiles(words)),
  };
}

interface Words {
  readonly name: string;
  readonly Class: string;
  readonly header: string;
}

function className(name: string): string {
  return name.replace(/(?:^|_)([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

function manifest(name: string, kind: NewFilterKind): unknown {
  return {
    name: `${kind}-${name.replaceAll("_", "-")}`,
    version: "0.1.0",
    private: true,
    type: "module",
    exports: { ".": "./filter.ts" },
  };
}

function httpFiles({ name, Class, header }: Words): Record<string, string> {
  return {
    "config.ts": `import { type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** The value of the ${header} header. */
  value: Type.String({ default: "hello" }),
});
export type Config = Static<typeof Config>;
`,
    "filter.ts": `import { type Counter, defineHttpFilter, type HttpFilter, type ResponseHeaders } from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** Marks every response. */
class ${Class} implements HttpFilter {
  readonly #config: Config;
  readonly #marked: Counter;

  constructor(config: Config, marked: Counter) {
    this.#config = config;
    this.#marked = marked;
  }

  onResponseHeaders(headers: ResponseHeaders) {
    headers.set("${header}", this.#config.value);
    this.#marked.inc();
  }
}

export default defineHttpFilter({
  name: "${name}",
  config: Config,
  setup(config, cx) {
    const marked = cx.stats.counter("${name}.marked");
    return () => new ${Class}(config, marked);
  },
});
`,
    "filter.test.ts": `import { type HttpStream, ResponseHeaders } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import ${camel(Class)} from "./filter.ts";

test("marks a response, and counts it", () => {
  const cx = new TestContext();
  const filter = ${camel(Class)}.setup({ value: "hello" }, cx)({} as HttpStream);
  const response = new ResponseHeaders();
  filter.onResponseHeaders?.(response, true);
  expect(response.get("${header}")).toBe("hello");
  expect(cx.stats.value("${name}.marked")).toBe(1);
});
`,
    "README.md": `# ${name}

Sets \`${header}\` on every response.

\`\`\`yaml
http_filters:
- name: ${name}
  config: { value: hello }
\`\`\`

Stats: \`${name}.marked\` counts responses.
`,
  };
}

function networkFiles({ name, Class }: Words): Record<string, string> {
  return {
    "config.ts": `import { type Static, Type, UInt32 } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** A connection that sends more than this is closed. */
  max_bytes: UInt32({ default: 1048576 }),
});
export type Config = Static<typeof Config>;
`,
    "filter.ts": `import {
  type Chunk,
  type Counter,
  defineNetworkFilter,
  type DownstreamConnection,
  type NetworkFilter,
  stop,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** Closes a connection that has sent too much. */
class ${Class} implements NetworkFilter {
  readonly #config: Config;
  readonly #connection: DownstreamConnection;
  readonly #closed: Counter;
  #bytes = 0;

  constructor(config: Config, connection: DownstreamConnection, closed: Counter) {
    this.#config = config;
    this.#connection = connection;
    this.#closed = closed;
  }

  onData(chunk: Chunk) {
    this.#bytes += chunk.length;
    if (this.#bytes <= this.#config.max_bytes) return;
    this.#closed.inc();
    this.#connection.close("abort");
    return stop;
  }
}

export default defineNetworkFilter({
  name: "${name}",
  config: Config,
  setup(config, cx) {
    const closed = cx.stats.counter("${name}.closed");
    return { create: (connection) => new ${Class}(config, connection, closed) };
  },
});
`,
    "filter.test.ts": `import { Chunk, stop } from "@tsproxy/sdk";
import { TestConnection, TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import ${camel(Class)} from "./filter.ts";

test("lets a connection send what it may, and closes it past that", () => {
  const cx = new TestContext();
  const connection = new TestConnection();
  const filter = ${camel(Class)}
    .setup({ max_bytes: 4 }, cx)
    .create(connection, { resumeReading() {} });
  expect(filter.onData?.(new Chunk(new Uint8Array(4), 0, 4), false)).toBeUndefined();
  expect(connection.closed).toBeUndefined();
  expect(filter.onData?.(new Chunk(new Uint8Array(1), 0, 1), false)).toBe(stop);
  expect(connection.closed).toBe("abort");
  expect(cx.stats.value("${name}.closed")).toBe(1);
});
`,
    "README.md": `# ${name}

Closes a connection that has sent more than \`max_bytes\`. Stands before the filter that serves the connection.

\`\`\`yaml
filters:
- name: ${name}
  config: { max_bytes: 1048576 }
- name: envoy.filters.network.tcp_proxy
\`\`\`

Stats: \`${name}.closed\` counts connections that it closed.
`,
  };
}

function camel(name: string): string {
  return name.charAt(0).toLowerCase() + name.slice(1);
}

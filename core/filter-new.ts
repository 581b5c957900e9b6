import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
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
  const sdk = sdkVersion(folder);
  for (const [file, text] of Object.entries(filesOf(name, kind, sdk)))
    await writeFile(path.join(folder, file), text);
  process.stdout.write(`wrote ${shortPath(folder)}\n${nextSteps(name, kind, folder, sdk)}`);
  return 0;
}

/** What package.json asks for: whatever is installed, or, outside of any installation, the SDK that came with this proxy. */
function sdkVersion(folder: string): string {
  try {
    createRequire(path.join(folder, "package.json")).resolve("@tsproxy/sdk");
    return "*";
  } catch {
    return `file:${path.dirname(fileURLToPath(import.meta.resolve("@tsproxy/sdk")))}`;
  }
}

function nextSteps(name: string, kind: NewFilterKind, folder: string, sdk: string): string {
  const place = kind === "http" ? "http_filters" : "filters";
  const where = shortPath(folder);
  const install =
    sdk === "*" ? "" : `  (cd ${where} && npm install)    once, for the editor and the test\n`;
  return `${install}  npx vitest run ${where}    its test
  in the config, under ${place}:    - name: ${name}
  a proxy whose config has filters/ beside it, or --filters ${shortPath(path.dirname(folder))}, has it already; save and it reloads
`;
}

function filesOf(name: string, kind: NewFilterKind, sdk: string): Record<string, string> {
  const words = { name, Class: className(name), header: `x-${name.replaceAll("_", "-")}` };
  return {
    "package.json": `${JSON.stringify(manifest(name, kind, sdk), undefined, 2)}\n`,
    "tsconfig.json": TSCONFIG,
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

function manifest(name: string, kind: NewFilterKind, sdk: string): unknown {
  return {
    name: `${kind}-${name.replaceAll("_", "-")}`,
    version: "0.1.0",
    private: true,
    type: "module",
    exports: { ".": "./filter.ts" },
    dependencies: { "@tsproxy/sdk": sdk },
    ...(sdk !== "*" && { devDependencies: { vitest: "^4.0.0" } }),
  };
}

/** No Node in there: `setTimeout` or `Buffer` shall not compile where they would not run. */
const TSCONFIG = `{
  "compilerOptions": {
    "target": "ES2024",
    "lib": ["ES2024"],
    "module": "NodeNext",
    "strict": true,
    "noEmit": true,
    "allowImportingTsExtensions": true,
    "erasableSyntaxOnly": true,
    "verbatimModuleSyntax": true,
    "skipLibCheck": true,
    "types": []
  },
  "include": ["*.ts"],
  "exclude": ["*.test.ts"]
}
`;

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

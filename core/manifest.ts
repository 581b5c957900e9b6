import type { SandboxManifest } from "@tsproxy/sdk";

const MEMBERS: Readonly<Record<keyof SandboxManifest, (value: unknown) => boolean>> = {
  clusters: (value) => Array.isArray(value) && value.every((name) => typeof name === "string"),
  headers: isHeaders,
  body: (value) => value === "none" || value === "read",
  shared: (value) => typeof value === "boolean",
  failurePolicy: (value) => value === "closed" || value === "open" || value === "previous",
  disabledBy: (value) => typeof value === "string" && value !== "",
  cpuShare: (value) => typeof value === "number" && value >= 0.01 && value <= 1,
  memoryMb: (value) => Number.isInteger(value) && Number(value) >= 16 && Number(value) <= 512,
  pauseMs: (value) => Number.isInteger(value) && Number(value) >= 100 && Number(value) <= 3_600_000,
};
const WORDS: Readonly<Record<keyof SandboxManifest, string>> = {
  clusters: "a list of names",
  headers: "{ read, write }, lists of lower-case names",
  body: '"none" or "read"',
  shared: "true or false",
  failurePolicy: '"closed", "open" or "previous"',
  disabledBy: "the name of a field of its per-route config",
  cpuShare: "a number from 0.01 to 1",
  memoryMb: "a whole number of MiB from 16 to 512",
  pauseMs: "a whole number of milliseconds from 100 to 3600000",
};

/** `sandbox` of a definition, as the package's code says it. Throws what is wrong with it. */
export function parseManifest(value: unknown): SandboxManifest {
  if (value === undefined) return {};
  if (!isObject(value)) throw new Error("sandbox: write an object");
  for (const [name, member] of Object.entries(value)) {
    if (!Object.hasOwn(MEMBERS, name))
      throw new Error(`sandbox: no "${name}"; there are ${Object.keys(MEMBERS).join(", ")}`);
    const known = name as keyof SandboxManifest;
    if (!MEMBERS[known](member)) throw new Error(`sandbox.${name}: write ${WORDS[known]}`);
  }
  return value as SandboxManifest;
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function isNames(value: unknown): boolean {
  return (
    Array.isArray(value) &&
    value.every((name) => typeof name === "string" && name !== "" && name === name.toLowerCase())
  );
}

function isHeaders(value: unknown): boolean {
  return (
    isObject(value) &&
    Object.entries(value).every(
      ([name, list]) => (name === "read" || name === "write") && isNames(list),
    )
  );
}

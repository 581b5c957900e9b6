import type { SandboxManifest } from "@tsproxy/sdk";
import { didYouMean } from "../config/diagnostic.ts";

/** What is wrong in the member `sandbox` of a definition. `path`: the names that lead there, from `sandbox` on. */
export class ManifestError extends Error {
  readonly path: readonly string[];

  constructor(path: readonly string[], message: string) {
    super(message);
    this.path = path;
  }
}

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

const NO_ROUTES = "routes have no configs for it";
/** Members that mean nothing to a kind of package and are refused, so that nobody relies on them: why, by member and kind. */
const NOT_FOR: Readonly<Partial<Record<keyof SandboxManifest, Readonly<Record<string, string>>>>> =
  {
    headers: {
      network: "it sees bytes and no heads",
      listener: "it sees bytes and no heads",
      balancer: "it sees no heads",
    },
    body: {
      listener: "what it may see are the first bytes of connections, and those it cannot change",
      access_log: "it sees no bodies",
      balancer: "it sees no bodies",
    },
    disabledBy: {
      network: NO_ROUTES,
      listener: NO_ROUTES,
      access_log: NO_ROUTES,
      balancer: NO_ROUTES,
    },
    cpuShare: { balancer: "who has used its share up waits, and requests cannot wait for a host" },
  };
/** The failure policies that a kind may have, where it may not have all. */
const POLICIES: Readonly<Record<string, readonly string[]>> = {
  access_log: ["previous"],
  balancer: ["closed", "open"],
};

/** Checks the member `sandbox` of a package's definition. Throws a ManifestError that says what to write instead. */
export function parseManifest(value: unknown, kind: string): SandboxManifest {
  if (value === undefined) return {};
  if (!isObject(value)) throw new ManifestError(["sandbox"], "sandbox: write an object");
  checkNames(["sandbox"], value, Object.keys(MEMBERS));
  for (const [name, member] of Object.entries(value)) {
    const known = name as keyof SandboxManifest;
    const fail = (message: string): ManifestError =>
      new ManifestError(["sandbox", name], `sandbox.${name}: ${message}`);
    if (known === "headers" && isObject(member)) checkNames(["sandbox", name], member, HEADERS);
    if (!MEMBERS[known](member)) throw fail(`write ${WORDS[known]}`);
    const reason = NOT_FOR[known]?.[kind];
    if (reason !== undefined)
      throw fail(`remove it, for this is ${articled(kind)} package: ${reason}`);
    const policies = known === "failurePolicy" ? POLICIES[kind] : undefined;
    if (policies?.includes(member as string) === false)
      throw fail(`of ${articled(kind)} package it may be ${policies.join(" or ")}`);
  }
  return value as SandboxManifest;
}

function checkNames(path: readonly string[], value: object, known: readonly string[]): void {
  const wrong = Object.keys(value).find((name) => !known.includes(name));
  if (wrong === undefined) return;
  const help = didYouMean(wrong, known) ?? `there are ${known.join(", ")}`;
  throw new ManifestError([...path, wrong], `${path.join(".")}: no "${wrong}"; ${help}`);
}

const articled = (kind: string): string => (/^[aeiou]/.test(kind) ? `an ${kind}` : `a ${kind}`);

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const HEADERS = ["read", "write"];

function isNames(value: unknown): boolean {
  return (
    Array.isArray(value) &&
    value.every((name) => typeof name === "string" && name !== "" && name === name.toLowerCase())
  );
}

function isHeaders(value: unknown): boolean {
  return isObject(value) && Object.values(value).every(isNames);
}

/** By kind of package: whether the return value of `setup` is valid, and code to suggest if not. Other kinds are not checked. */
const RULES: Readonly<Record<string, readonly [holds: (made: object) => boolean, write: string]>> =
  {
    http: [isFunction, "setup: () => (stream) => ({ onRequestHeaders(headers) { … } })"],
    listener: [isFunction, "setup: () => (socket) => ({ onBytes(bytes) { … } })"],
    network: [
      (made) => isFunction((made as { create?: unknown }).create),
      "setup: () => ({ create: (connection) => ({ onData(chunk) { … } }) })",
    ],
    access_log: [
      (made) => isFunction((made as { log?: unknown }).log),
      "setup: () => ({ log(entry) { … } })",
    ],
    balancer: [
      (made) =>
        isFunction((made as { create?: unknown }).create) ||
        isFunction((made as { compose?: unknown }).compose),
      "setup: () => ({ create: ({ hosts }) => ({ choose: () => hosts[0] }) })",
    ],
  };

function isFunction(value: unknown): boolean {
  return typeof value === "function";
}

/** Says what is wrong with `made`, the return value of `setup` of a package of this kind. Undefined: nothing. */
export function misuse(kind: string, made: unknown): string | undefined {
  const rule = RULES[kind];
  if (rule === undefined) return undefined;
  const [holds, write] = rule;
  if (made instanceof Promise)
    return "setup answers at once; keep the promise that it starts, and await that in a hook";
  if (made !== undefined && made !== null && holds(made)) return undefined;
  return `setup does not return what ${kind} packages return; write ${write}`;
}

import dgram from "node:dgram";
import { existsSync, statSync } from "node:fs";
import net from "node:net";
import { networkInterfaces } from "node:os";
import { dirname } from "node:path";
import { type Problem, problem } from "../problem.ts";
import type { AddressConfig, ListenerConfig } from "../protocol.ts";
import type { Bound, ListenFailure } from "./bound.ts";

/**
 * Finds the addresses that cannot be bound. Workers bind with SO_REUSEPORT, which would share a port with another process without
 * an error, so each address that the proxy does not hold yet is bound once without it, and closed.
 */
export async function checkAddresses(
  listeners: readonly ListenerConfig[],
  ours: readonly Bound[],
): Promise<Problem[]> {
  const owned = new Set(ours.map(({ address }) => key(address)));
  const problems: Problem[] = [];
  const wanted = listeners
    .filter(({ bindToPort }) => bindToPort !== false)
    .flatMap((listener) =>
      [listener.address, ...(listener.additionalAddresses ?? [])].map((address) => ({
        ...listener,
        address,
      })),
    );
  for (const listener of wanted) {
    const { address } = listener;
    if (owned.has(key(address))) continue;
    const code = await (address.path !== undefined
      ? tryPath(address.path)
      : address.udp === true
        ? tryUdp(address)
        : tryPort(address));
    if (code !== undefined) problems.push(listenProblem(listener, code));
  }
  return problems;
}

/** Says why a listener's address cannot be bound: `front.yaml:4:5: cannot listen on 127.0.0.1:80: …` */
export function listenProblem(
  listener: ListenerConfig,
  failure: string | Pick<ListenFailure, "code" | "message">,
): Problem {
  const { code, message } =
    typeof failure === "string" ? { code: failure, message: failure } : failure;
  const text = `${listener.source}: cannot listen on ${shown(listener.address)}`;
  const reasons = listener.address.path === undefined ? REASONS : PATH_REASONS;
  return problem(`${text}: ${reasons[code] ?? message}`);
}

const REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: "the address is in use by another process",
  EACCES: "permission denied; ports below 1024 want CAP_NET_BIND_SERVICE",
  EADDRNOTAVAIL: "this machine has no such address",
};
const PATH_REASONS: typeof REASONS = {
  ...REASONS,
  EACCES: "permission denied",
  ENOENT: "its folder does not exist; make that folder first",
  ENOTSOCK: "what is there is no socket; remove it, or name another path",
};

/** This machine's first address beyond loopback, of that family if there is one. Undefined: it has none. */
export function ownAddress(family: "v4" | "v6"): string | undefined {
  const all = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  const outside = all.filter((a) => !a.internal);
  return (outside.find((a) => a.family === `IP${family}`) ?? outside[0])?.address;
}

/** An address as text: `127.0.0.1:80`, `[::1]:80`, or the path of a unix socket. */
export function shown({ ip, port, path }: AddressConfig): string {
  return path ?? (ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`);
}

/**
 * Without the IP address: a port that the proxy holds on one address counts as its own on all, since 0.0.0.0 and 127.0.0.1
 * exclude each other.
 */
function key({ port, path, udp }: AddressConfig): string {
  return path ?? `${udp === true ? "udp " : ""}${port}`;
}

function tryUdp({ ip, port, ipv4Compat }: AddressConfig): Promise<string | undefined> {
  if (port === 0) return Promise.resolve(undefined);
  return new Promise((resolve) => {
    const type = ip.includes(":") ? "udp6" : "udp4";
    const socket = dgram.createSocket({ type, ipv6Only: type === "udp6" && ipv4Compat !== true });
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    socket.bind({ address: ip, port, exclusive: true }, () =>
      socket.close(() => resolve(undefined)),
    );
  });
}

function tryPort({ ip, port, ipv4Compat }: AddressConfig): Promise<string | undefined> {
  if (port === 0) return Promise.resolve(undefined);
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    const ipv6Only = ip.includes(":") && ipv4Compat !== true;
    server.listen({ host: ip, port, ipv6Only, exclusive: true }, () =>
      server.close(() => resolve(undefined)),
    );
  });
}

/** Answers EADDRINUSE if a process accepts on the socket. A socket file on which nobody does is left over and may be taken. */
function tryPath(path: string): Promise<string | undefined> {
  const obstacle = path.startsWith("@") ? undefined : tryFile(path);
  if (obstacle !== undefined) return Promise.resolve(obstacle);
  return new Promise((resolve) => {
    const socket = net.connect(path.startsWith("@") ? `\0${path.slice(1)}` : path);
    socket.once("connect", () => {
      socket.destroy();
      resolve("EADDRINUSE");
    });
    socket.once("error", () => resolve(undefined));
  });
}

/** Envoy would remove whatever is at the path, a user's own file as well. */
function tryFile(path: string): string | undefined {
  if (!existsSync(dirname(path))) return "ENOENT";
  if (!existsSync(path) || statSync(path).isSocket()) return undefined;
  return "ENOTSOCK";
}

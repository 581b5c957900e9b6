import {
  type Address,
  type Chunk,
  formatIp,
  latin1Decode,
  type ProxyTlv,
  parseIp,
} from "@tsproxy/sdk";

// The PROXY protocol, versions 1 and 2: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt

export type Version = "V1" | "V2";

/** A complete header. */
interface ProxyHeader {
  readonly version: Version;
  /** Size of the header in bytes. */
  readonly size: number;
  /** Undefined: the header names no client (LOCAL, UNKNOWN). */
  readonly source: Address | undefined;
  readonly destination: Address | undefined;
  readonly tlvs: readonly ProxyTlv[];
}

/** There is no header; it is not complete yet; its line has no end; or it breaks the rules of its version. */
type NoHeader = "absent" | "more" | "endless" | "bad V1" | "bad V2";

const V1_SIGNATURE = "PROXY ";
const V2_SIGNATURE = "\r\n\r\n\0\r\nQUIT\n";
/** The longest line has 107 bytes; the specification adds one for a terminating null byte. */
const V1_MAX = 107 + 1;
/** Bytes of version 2 before the addresses. */
export const V2_FIXED = 16;

/** Returns the version that the first bytes announce. "absent": they begin no header; "more": too few bytes to tell. */
export function versionOf(bytes: Chunk): Version | "absent" | "more" {
  const start = latin1Decode(bytes.memory, bytes.at, Math.min(bytes.end, bytes.at + 12));
  if (start.startsWith(V1_SIGNATURE)) return "V1";
  if (start === V2_SIGNATURE) return "V2";
  return V1_SIGNATURE.startsWith(start) || V2_SIGNATURE.startsWith(start) ? "more" : "absent";
}

export function readProxyHeader(bytes: Chunk): ProxyHeader | NoHeader {
  const version = versionOf(bytes);
  if (version === "V1") return readV1(bytes);
  if (version === "V2") return readV2(bytes);
  return version;
}

function readV1(bytes: Chunk): ProxyHeader | NoHeader {
  const end = Math.min(bytes.end, bytes.at + V1_MAX);
  const text = latin1Decode(bytes.memory, bytes.at, end);
  const newline = text.indexOf("\r\n");
  if (newline < 0) return bytes.length <= V1_MAX ? "more" : "endless";
  const size = newline + 2;
  // As in Envoy, white space may end the line.
  const [, family, source = "", destination = "", from = "", to = "", ...rest] = text
    .slice(0, newline)
    .trimEnd()
    .split(" ");
  const none = { version: "V1" as const, size, tlvs: [] };
  if (family === "UNKNOWN") return { ...none, source: undefined, destination: undefined };
  const length = family === "TCP4" ? 4 : family === "TCP6" ? 16 : 0;
  if (length === 0 || rest.length > 0) return "bad V1";
  const a = addressOf(source, from, length);
  const b = addressOf(destination, to, length);
  if (a === undefined || b === undefined || !isUnicast(a) || !isUnicast(b)) return "bad V1";
  return { ...none, source: a, destination: b };
}

function addressOf(ip: string, port: string, length: number): Address | undefined {
  // Leading zeros mean nothing, as in Envoy.
  if (!/^\d+$/.test(port) || Number(port) > 65_535) return undefined;
  if (ip.includes(":") !== (length === 16) || ip.includes("%")) return undefined;
  const bytes = parseIp(ip);
  return bytes === undefined ? undefined : { ip: formatIp(bytes), port: Number(port) };
}

/** Whether an end of a connection can have this address: not the unspecified one, no group of hosts, not all hosts. */
function isUnicast({ ip }: Address): boolean {
  const bytes = parseIp(ip)!;
  if (bytes.every((byte) => byte === 0)) return false;
  if (bytes.length === 16) return bytes[0] !== 0xff;
  return bytes[0]! >> 4 !== 0xe && bytes.some((byte) => byte !== 0xff);
}

const COMMAND = { LOCAL: 0, PROXY: 1 } as const;
const FAMILY = { UNSPEC: 0, INET: 1, INET6: 2, UNIX: 3 } as const;
const STREAM = 1;
const DATAGRAM = 2;

function readV2(bytes: Chunk): ProxyHeader | NoHeader {
  const { memory, at } = bytes;
  if (bytes.length < V2_FIXED) return "more";
  const version = memory[at + 12]! >> 4;
  const command = memory[at + 12]! & 15;
  const family = memory[at + 13]! >> 4;
  const protocol = memory[at + 13]! & 15;
  const length = (memory[at + 14]! << 8) | memory[at + 15]!;
  if (version !== 2 || (command !== COMMAND.LOCAL && command !== COMMAND.PROXY)) return "bad V2";
  if (bytes.length < V2_FIXED + length) return "more";
  const size = V2_FIXED + length;
  const own = { version: "V2" as const, size, source: undefined, destination: undefined };
  if (command === COMMAND.LOCAL) return { ...own, tlvs: [] };
  const body = at + V2_FIXED;
  const end = at + size;
  const addresses = ADDRESS_SIZES[family];
  if (addresses === undefined || length < addresses) return "bad V2";
  const tlvs = readTlvs(memory, body + addresses, end);
  // As in Envoy, the command PROXY without IP addresses (UNSPEC, UNIX) is refused.
  if (tlvs === undefined || family === FAMILY.UNSPEC || family === FAMILY.UNIX) return "bad V2";
  // As in Envoy, addresses of datagrams are accepted too.
  if (protocol !== STREAM && protocol !== DATAGRAM) return "bad V2";
  const ip = family === FAMILY.INET ? 4 : 16;
  const read = (from: number, port: number): Address => ({
    ip: formatIp(memory.slice(from, from + ip)),
    port: (memory[port]! << 8) | memory[port + 1]!,
  });
  const source = read(body, body + 2 * ip);
  const destination = read(body + ip, body + 2 * ip + 2);
  if (!isUnicast(source) || !isUnicast(destination)) return "bad V2";
  return { ...own, source, destination, tlvs };
}

const ADDRESS_SIZES: readonly (number | undefined)[] = [0, 12, 36, 216];

/** Reads the TLVs, with copies of their values; undefined if one is longer than the rest of the header. */
function readTlvs(memory: Uint8Array, from: number, end: number): ProxyTlv[] | undefined {
  const tlvs: ProxyTlv[] = [];
  for (let at = from; at < end; ) {
    if (at + 3 > end) return undefined;
    const type = memory[at]!;
    const length = (memory[at + 1]! << 8) | memory[at + 2]!;
    if (at + 3 + length > end) return undefined;
    tlvs.push({ type, value: memory.slice(at + 3, at + 3 + length) });
    at += 3 + length;
  }
  return tlvs;
}

import type { ClientHello } from "@tsproxy/sdk";
import { md5, sha256 } from "./digest.ts";

const EXTENSION_SERVER_NAME = 0;
const EXTENSION_SIGNATURE_ALGORITHMS = 13;
const EXTENSION_ALPN = 16;
/** How many hex digits of a digest JA4 keeps. */
const HASH_DIGITS = 12;

/** RFC 8701: clients add values like 0x0a0a and 0x1a1a at random, so that servers learn to ignore unknown ones. */
function isGrease(id: number): boolean {
  return (id & 0x0f0f) === 0x0a0a && id >> 8 === (id & 0xff);
}
const known = (ids: readonly number[]): number[] => ids.filter((id) => !isGrease(id));

/** JA3: version, cipher suites, extensions, groups and point formats, hashed. Groups keep their GREASE, as in Envoy. */
export function ja3(hello: ClientHello): string {
  const { legacyVersion, cipherSuites, extensions, groups, pointFormats } = hello;
  const lists = [known(cipherSuites), known(extensions), groups, pointFormats];
  return md5([legacyVersion, ...lists.map((list) => list.join("-"))].join(","));
}

/**
 * JA4: `t13d1516h2_8daaf6152771_d8a2da3f94cd`. The first part is readable; the others are hashes of the sorted cipher suites, and of
 * the sorted extensions with the signature algorithms in the client's order.
 */
export function ja4(hello: ClientHello): string {
  const { cipherSuites, extensions, signatureAlgorithms } = hello;
  const suites = known(cipherSuites);
  const types = known(extensions);
  const sni = types.includes(EXTENSION_SERVER_NAME) ? "d" : "i";
  const head = `t${versionOf(hello)}${sni}${twoDigits(suites.length)}${twoDigits(types.length)}`;
  const others = types.filter((t) => t !== EXTENSION_SERVER_NAME && t !== EXTENSION_ALPN);
  const algorithms = types.includes(EXTENSION_SIGNATURE_ALGORITHMS) ? signatureAlgorithms : [];
  const rest = algorithms.length === 0 ? "" : `_${hexList(algorithms)}`;
  return [
    `${head}${alpnOf(hello)}`,
    hashOf(hexList(suites.sort(ascending))),
    hashOf(others.length === 0 ? "" : hexList(others.sort(ascending)) + rest),
  ].join("_");
}

const VERSIONS: Readonly<Record<number, string>> = {
  772: "13",
  771: "12",
  770: "11",
  769: "10",
};

function versionOf({ versions, legacyVersion }: ClientHello): string {
  const offered = known(versions);
  return VERSIONS[offered.length > 0 ? Math.max(...offered) : legacyVersion] ?? "00";
}

/** First and last character of the first protocol; where one is no letter or digit, a hex digit of each. */
function alpnOf({ alpn: [first = ""] }: ClientHello): string {
  if (first === "") return "00";
  const ends = first.charAt(0) + first.charAt(first.length - 1);
  if (/^[0-9A-Za-z]{2}$/.test(ends)) return ends;
  return (ends.charCodeAt(0) >> 4).toString(16) + (ends.charCodeAt(1) & 15).toString(16);
}

const ascending = (a: number, b: number): number => a - b;
const twoDigits = (count: number): string => String(Math.min(count, 99)).padStart(2, "0");
const hexList = (ids: readonly number[]): string =>
  ids.map((id) => id.toString(16).padStart(4, "0")).join(",");
const hashOf = (text: string): string =>
  text === "" ? "0".repeat(HASH_DIGITS) : sha256(text).slice(0, HASH_DIGITS);

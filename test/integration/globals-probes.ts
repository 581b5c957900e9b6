/**
 * What filters call of the globals, as functions of one input. Their source runs as it stands in isolates and in Node, whose
 * answers are compared, so each uses nothing but its input and globals.
 */
export const PROBES = {
  encode: (text: string) => [...new TextEncoder().encode(text)],
  decode: (bytes: number[]) => new TextDecoder().decode(new Uint8Array(bytes)),
  decodeFatal: (bytes: number[]) =>
    new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(new Uint8Array(bytes)),
  decodeInPieces(bytes: number[]) {
    const decoder = new TextDecoder();
    const all = new Uint8Array(bytes);
    const cut = bytes.length >> 1;
    const text = decoder.decode(all.subarray(0, cut), { stream: true });
    return text + decoder.decode(all.subarray(cut), { stream: true }) + decoder.decode();
  },
  btoa: (text: string) => btoa(text),
  atob: (text: string) => atob(text),
  url([text, base]: [string, string?]) {
    const url = new URL(text, base);
    const { href, protocol, username, password, host, hostname, port, pathname, search, hash } =
      url;
    const parts = [protocol, username, password, host, hostname, port, pathname, search, hash];
    return [href, url.origin, ...parts, [...url.searchParams]];
  },
  urlChanged([text, name, value]: [string, string, string]) {
    const url = new URL(text);
    (url as unknown as Record<string, string>)[name] = value;
    return [url.href, url.host, url.origin, [...url.searchParams]];
  },
  parameters([text, name, value]: [string, string, string]) {
    const made = new URLSearchParams(text);
    const before = [[...made], made.get(name), made.getAll(name), made.has(name), made.size];
    made.append(value, name);
    made.set(name, value);
    const set = made.toString();
    made.sort();
    const sorted = made.toString();
    made.delete(name);
    return [before, set, sorted, made.toString(), [...made.keys()], [...made.values()]];
  },
  clone(value: unknown) {
    const map = new Map<unknown, unknown>([[value, new Set([value])]]);
    const given = {
      value,
      map,
      at: new Date(1),
      r: /a/gi,
      u: undefined,
      n: 5n,
      e: new TypeError("x"),
    };
    const made = structuredClone(given);
    const [[key, set]] = [...made.map] as [[unknown, Set<unknown>]];
    const same = [made.value === key, set.has(key), made.e instanceof TypeError, made.e.name];
    return [made.value, same, made.at.getTime(), String(made.r), "u" in made, String(made.n)];
  },
};
export type Probe = keyof typeof PROBES;

/** JSON of what a probe answers, `"throws"` where it does. */
export function outcome(run: () => unknown): string {
  try {
    return JSON.stringify(run());
  } catch {
    return '"throws"';
  }
}

/** The same numbers in [0, 1) for the same seed (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Inputs for a probe: made from pieces that its grammar knows, put together at random. */
export function randomInputs(probe: Probe, count: number): unknown[] {
  const random = randomNumbers(probe.length * 7919 + 1);
  const below = (n: number) => Math.floor(random() * n);
  const pick = <T>(of: readonly T[]): T => of[below(of.length)]!;
  const some = (of: readonly string[], most: number) =>
    Array.from({ length: below(most + 1) }, () => pick(of)).join("");
  const bytes = (most: number) =>
    Array.from({ length: below(most) }, () =>
      pick([below(256), below(128), 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0xef, 0xbb, 0xbf, 0xed, 0xc0]),
    );
  const value = (depth: number): unknown => {
    const kind = below(depth > 3 ? 4 : 6);
    if (kind === 4) return Array.from({ length: below(4) }, () => value(depth + 1));
    if (kind === 5)
      return Object.fromEntries(
        Array.from({ length: below(4) }, () => [some(TEXT, 3), value(depth + 1)]),
      );
    return [random(), some(TEXT, 4), random() < 0.5, null][kind];
  };
  const path = () => some(PATH, 6);
  /** Without another scheme, which isolates refuse. */
  const relative = () => path().replace(/^[^/?#]*:/, "");
  const absolute = () =>
    `${pick(SCHEMES)}${pick(["", "", "", "u@", "u:p%40:q@", ":@", "ü:p@"])}${pick(HOSTS)}${pick(PORTS)}${pick(["", `${pick(["/", "\\", "?", "#"])}${path()}`])}`;
  const inputs: Readonly<Record<Probe, () => unknown>> = {
    encode: () => some(TEXT, 12),
    decode: () => bytes(12),
    decodeFatal: () => bytes(6),
    decodeInPieces: () => bytes(12),
    btoa: () => some([...TEXT.slice(0, 8), "\u00ff", "\0", "\u0100"], 9),
    atob: () =>
      some(["YQ", "Yw==", "=", " ", "A", "+/", "_", "-", "*", "ab", "abcd", "\n", "é"], 6),
    url: () => [random() < 0.5 ? absolute() : relative(), ...(random() < 0.6 ? [absolute()] : [])],
    urlChanged: () => {
      const name = pick([
        "pathname",
        "search",
        "hash",
        "port",
        "hostname",
        "host",
        "protocol",
        "username",
        "password",
        "href",
      ]);
      const given = {
        port: pick(PORTS).slice(1),
        hostname: pick(HOSTS),
        host: pick(HOSTS) + pick(PORTS),
        protocol: pick(["http", "https:", "ws", "x", "1"]),
        href: absolute(),
      } as Record<string, string>;
      return [`http://a:81/b?c=d#e`, name, given[name] ?? path()];
    },
    parameters: () => [some(QUERY, 10), pick(["a", "b", "", "é"]), some(TEXT, 3)],
    clone: () => value(0),
  };
  return Array.from({ length: count }, inputs[probe]);
}

const TEXT = [
  "a",
  "Z",
  "0",
  " ",
  "+",
  "&",
  "=",
  "%",
  "é",
  "€",
  "😀",
  "\ud800",
  "\udc00",
  "\0",
  "\n",
  '"',
];
const QUERY = ["a", "b", "=", "&", "+", "%", "%20", "%zz", "%e2%82%ac", "%ff", "?", ";", "#"];
const PATH = [
  "a",
  "b",
  "/",
  "//",
  ".",
  "..",
  "/./",
  "/../",
  "%2e",
  "%2E%2e",
  "%",
  "%7e",
  " ",
  "?",
  "#",
  "\\",
  ":",
  "@",
  "é",
  "<",
  ">",
  '"',
  "'",
  "`",
  "{",
  "}",
  "|",
  "^",
  "[",
  "]",
  "~",
  "\t",
  "\n",
  "\0",
  "q=1",
  "&",
  "%20",
  "http:",
];
const SCHEMES = [
  "http://",
  "https://",
  "HTTP://",
  "ws://",
  "wss:",
  "http:/",
  "http:\\\\",
  "https:///",
  " http://",
];
const HOSTS = [
  "a",
  "example.com",
  "EXAMPLE.Com",
  "a.",
  "127.0.0.1",
  "127.1",
  "0x7f.0.0.1",
  "1.2.3",
  "256.1.1.1",
  "1.2.3.4.5",
  "4294967296",
  "017.0.0.1",
  "09.1",
  "[::1]",
  "[::]",
  "[1:0:0:2::3]",
  "[0:0:1:0:0:0:1:0]",
  "[::ffff:1.2.3.4]",
  "[1:2]",
  "[::1",
  "a b",
  "a%41",
  "a%20b",
  "a<b",
  "a_b",
  "-a",
  "%",
  "",
  "a%00",
  "1.2.3.4.",
  "x.0x1",
  "a|b",
  "a^b",
  "*",
  "a..b",
];
const PORTS = ["", "", ":", ":80", ":443", ":8080", ":0", ":00081", ":65536", ":8a", ":-1"];

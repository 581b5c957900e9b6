// What a run of cpu.ts measures, from its arguments, and the folder that it works in.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "2" },
    only: { type: "string" },
    connections: { type: "string" },
  },
});
const MODES =
  "http 1m tcp tcp1m filter new idle production log lua h2 h2h2 tls hs hs-resumed h2-16k h2-1m tls-16k tls-1m".split(
    " ",
  );
export const mode = positionals[0] ?? "http";
if (!MODES.includes(mode)) {
  console.error(`there is no mode "${mode}"; take one of ${MODES.join(", ")}`);
  process.exit(1);
}
export const rounds = Number(values.rounds);
export const seconds = Number(values.seconds);
const usual: Record<string, string> = {
  "1m": "16",
  tcp1m: "16",
  h2: "8",
  h2h2: "8",
  "h2-16k": "8",
  "h2-1m": "2",
  "tls-1m": "16",
  hs: "200",
  "hs-resumed": "1",
};
export const connections = values.connections ?? usual[mode] ?? "64";
export const dir = fs.mkdtempSync(path.join(os.tmpdir(), "tsproxy-bench-"));
fs.chmodSync(dir, 0o755); // nginx's workers are another user
export const isHttp2 = mode.startsWith("h2");
export const isHandshake = mode.startsWith("hs");
export const isTls = mode.startsWith("tls") || isHandshake;
/** What clients ask for, and its size in MiB (0: a few words). */
export const page = mode.endsWith("1m") ? "1m" : mode.endsWith("16k") ? "16k" : "";
export const pageMiB = page === "1m" ? 1 : page === "16k" ? 1 / 64 : 0;
/** The one for HTTP/1.1; the next port speaks HTTP/2. Runs side by side have each their own. */
export const BACKEND = 20_000 + (process.pid % 900) * 2;
export const UPSTREAM = mode === "h2h2" ? BACKEND + 1 : BACKEND;
export const only = values.only?.split(",");

/** What a browser sends beside Host. */
export const HEADERS = [
  "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
  "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
  "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
  "Accept-Encoding: gzip, deflate, br, zstd",
  "Cookie: session=4f1c9a7be2d34c0f9b8a; theme=dark; consent=yes",
  "Referer: http://127.0.0.1/start",
  "Cache-Control: max-age=0",
  "Upgrade-Insecure-Requests: 1",
];

export const write = (name: string, text: string): string => {
  const file = path.join(dir, name);
  fs.writeFileSync(file, text);
  return file;
};

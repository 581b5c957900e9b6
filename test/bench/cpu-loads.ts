// What asks: wrk, h2load, ab or OpenSSL's client, on core 0.
import { spawn } from "node:child_process";
import { children } from "./cpu-processes.ts";
import { connections, HEADERS, isHandshake, isHttp2, isTls, mode, page } from "./cpu-run.ts";

export async function load(port: number, secs: number): Promise<{ n: number; bad: number }> {
  const url = `http${isTls ? "s" : ""}://127.0.0.1:${port}/${page}`;
  if (isHttp2) return loadHttp2(url, secs);
  if (isHandshake) return loadHandshakes(port, secs);
  const text = await outputOf([
    "wrk",
    "-t1",
    `-c${connections}`,
    `-d${secs}s`,
    ...HEADERS.flatMap((h) => ["-H", h]),
    ...(mode === "new" ? ["-H", "Connection: close"] : []),
    url,
  ]);
  const n = Number(/(\d+) requests in/.exec(text)?.[1] ?? 0);
  const errors = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(text);
  const bad =
    Number(/Non-2xx or 3xx responses: (\d+)/.exec(text)?.[1] ?? 0) +
    (errors === null ? 0 : errors.slice(1).reduce((sum, e) => sum + Number(e), 0));
  return { n, bad };
}

async function loadHttp2(url: string, secs: number): Promise<{ n: number; bad: number }> {
  const headers = HEADERS.flatMap((h) => ["-H", h]);
  const argv = ["h2load", "-t1", `-c${connections}`, "-m32", "-D", String(secs)];
  const text = await outputOf([...argv, ...headers, url]);
  const [, done = "0", failed = "0"] = /(\d+) done, \d+ succeeded, (\d+) failed/.exec(text) ?? [];
  const n = Number(done);
  const ok = Number(/status codes: (\d+) 2xx/.exec(text)?.[1] ?? 0);
  return { n, bad: Number(failed) + Math.max(0, n - ok) };
}

/** `ab` makes a new TLS session for each request; OpenSSL's own client resumes one, a connection at a time. */
async function loadHandshakes(port: number, secs: number): Promise<{ n: number; bad: number }> {
  const argv =
    mode === "hs-resumed"
      ? ["openssl", "s_time", "-connect", `127.0.0.1:${port}`, "-reuse", "-tls1_2", "-www", "/"]
      : ["ab", "-q", "-n", "1000000", "-c", connections, "-f", "TLS1.3"];
  argv.push(mode === "hs-resumed" ? "-time" : "-t", String(secs));
  if (mode === "hs") argv.push(`https://127.0.0.1:${port}/`);
  // Both say what goes on as they run.
  const text = await outputOf(argv, "ignore");
  const counts =
    /^Complete requests: +(\d+)/m.exec(text) ??
    /^(\d+) connections in \d+ real seconds/m.exec(text);
  const bad = /^Non-2xx responses: +(\d+)/m.exec(text);
  return { n: Number(counts?.[1] ?? 0), bad: Number(bad?.[1] ?? 0) };
}

async function outputOf(argv: readonly string[], errors: "inherit" | "ignore" = "inherit") {
  const child = spawn("taskset", ["-c", "0", ...argv], { stdio: ["ignore", "pipe", errors] });
  children.add(child);
  let text = "";
  child.stdout!.on("data", (d) => {
    text += d;
  });
  await new Promise((resolve) => child.on("close", resolve));
  children.delete(child);
  return text;
}

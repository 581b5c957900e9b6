import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, RawClient } from "./client.ts";
import { accessLog, bootstrap, direct, http, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";

let proxy: Proxy;
const folder = mkdtempSync(path.join(os.tmpdir(), "tsproxy-bad-requests-"));
const file = path.join(folder, "access.log");
const FORMAT = "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS%\n";

beforeAll(async () => {
  const options = { access_log: [accessLog(file, FORMAT)], delayed_close_timeout: "0.05s" };
  proxy = await Proxy.start({
    config: bootstrap([listener("main", http([direct("/", "said\n")], options))]),
    args: ["--file-flush-interval-msec", "20"],
  });
});
afterAll(async () => {
  await proxy.stop();
  rmSync(folder, { recursive: true, force: true });
});

test("bytes that are no request have no method and no path in the log, whatever was read of them", async () => {
  const sent = [
    "GET / HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n",
    "GET / HTTP/2.0\r\nhost: x\r\n\r\n",
    "GET /\r\n",
    "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
    "GET ftp://x/ HTTP/1.1\r\nhost: x\r\n\r\n",
  ];
  for (const bytes of sent) {
    const client = await RawClient.connect(proxy.port("main"));
    client.send(bytes);
    await client.untilClosed();
  }
  await eventually(
    () => (existsSync(file) ? readFileSync(file, "utf8").split("\n").slice(0, -1) : []),
    (lines) => lines.length === sent.length,
    "a line for each",
  );
  expect(readFileSync(file, "utf8").split("\n").slice(0, -1)).toEqual([
    "- - 400 http1.codec_error",
    "- - 426 low_version",
    "- - 426 low_version",
    "- - 400 http.invalid_authority",
    "- - 400 http1.invalid_scheme",
  ]);
  const stat = await proxy.stats();
  for (const name of ["cx_delayed_close_timeout", "rq_rx_reset", "rq_response_before_rq_complete"])
    expect(stat(`http.test.downstream_${name}`), name).toBe(sent.length);
});

import { rmSync, writeFileSync } from "node:fs";
import { afterAll, afterEach, expect, it } from "vitest";
import { eventually } from "./client.ts";
import { bootstrap, direct, http, type Json, listener } from "./config.ts";
import type { Proxy } from "./proxy.ts";
import {
  ask,
  client,
  disposeAuthorities,
  downstreamTls,
  endTest,
  handshake,
  ours,
  secure,
  source,
  start,
} from "./tls-proxy.ts";

afterEach(endTest);
afterAll(disposeAuthorities);

const NAMES = "DNS:a.test";
const next = ours.issue("next", "next", NAMES);
const last = ours.issue("last", "last", NAMES);

/** Files of a listener that asks clients for certificates. */
function serving(name: string, filters: readonly Json[] = []) {
  const pair = ours.issue(name, name, NAMES);
  const authorities = `${pair.certificate}.ca`;
  writeFileSync(authorities, ours.root.pem);
  const validation_context = { trusted_ca: source(authorities) };
  const socket = downstreamTls(
    [pair],
    { validation_context },
    { require_client_certificate: true },
  );
  const chain = secure(http([direct("/", "yes")], {}, filters), socket);
  const config = bootstrap([listener("main", {}, { filter_chains: [chain] })]);
  const save = ({ pem, keyPem }: { readonly pem: string; readonly keyPem: string }): void => {
    writeFileSync(pair.key, keyPem);
    writeFileSync(pair.certificate, pem);
  };
  const breakAll = (): void => {
    writeFileSync(pair.certificate, "no certificate\n");
    for (const file of [pair.key, authorities]) rmSync(file);
  };
  return { config, save, breakAll };
}

const shows = (proxy: Proxy, name: string) =>
  eventually(
    () => handshake(proxy.port("main"), IDENTITY).catch(() => undefined),
    (seen) => seen?.name === name,
    `the certificate of ${name}`,
  );
const IDENTITY = { cert: client.pem, key: client.keyPem, servername: "a.test" };

it("certificates, keys and authorities serve after a crash as they did before, whatever has become of their files", async () => {
  const { config, save, breakAll } = serving("crashes");
  // Of several workers one may have taken a change while another has yet to look.
  const proxy = await start({ config, concurrency: 1 });
  await shows(proxy, "crashes");
  save(next);
  await shows(proxy, "next");
  breakAll();
  // The second crash finds a process that waits.
  for (let crashes = 1; crashes <= 2; crashes++) {
    const from = proxy.lines.length;
    process.kill(proxy.processes()[0]!, "SIGKILL");
    await proxy.line(/^watching /, from);
    await shows(proxy, "next");
    expect(await ask(proxy.port("main"), IDENTITY)).toBe("200 yes");
    await expect(ask(proxy.port("main"))).rejects.toThrow();
    await proxy.line(/changed certificates are not taken; the ones before go on/, from);
  }
  writeFileSync(`${ours.dir}/crashes.pem.ca`, ours.root.pem);
  save(last);
  await shows(proxy, "last");
}, 300_000);

/** Of a shipped filter's trust: it ends the isolate for the path /spin. */
const FRAGILE = `import { defineHttpFilter, Type } from "@tsproxy/sdk";
export default defineHttpFilter({ name: "fragile", config: Type.Object({}), setup: () => () => ({
  onRequestHeaders(headers) { if (headers.path === "/spin") for (;;) {} } }) });`;

it("a worker whose isolate was lost serves again although its files are gone", async () => {
  const { config, breakAll } = serving("lost", [{ name: "fragile", config: {} }]);
  const files = { "filters/fragile.ts": FRAGILE };
  const proxy = await start({ config, concurrency: 1, args: ["--trust", "fragile"], files });
  await shows(proxy, "lost");
  breakAll();
  await expect(ask(proxy.port("main"), { ...IDENTITY, path: "/spin" })).rejects.toThrow();
  await proxy.line(/the isolate of the shipped filters was lost/);
  await shows(proxy, "lost");
}, 300_000);

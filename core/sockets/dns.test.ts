import dgram from "node:dgram";
import { once } from "node:events";
import { networkInterfaces } from "node:os";
import { afterEach, expect, test } from "vitest";
import { resolveName } from "./dns.ts";

const servers: dgram.Socket[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

const NO_SUCH_NAME = 3;

/**
 * A server that knows one IPv4 address for whatever is asked, or answers with a code (RFC 1035 §4.1.1). Its `ip:port`. `onAsked` is
 * called for each question.
 */
async function dnsServer(
  known: readonly number[] | number,
  onAsked: () => void = () => {},
): Promise<string> {
  const [address, code] = typeof known === "number" ? [undefined, known] : [known, 0];
  const server = dgram.createSocket("udp4");
  servers.push(server);
  server.on("message", (question, from) => {
    onAsked();
    // RFC 1035 §4: id, flags (an answer), counts; the question; a name that points at it, A, IN, TTL 7, 4 bytes.
    const isA = question.readUInt16BE(question.indexOf(0, 12) + 1) === 1;
    const hasIt = address !== undefined && isA;
    const end = question.indexOf(0, 12) + 5;
    const head = Buffer.from([0x81, 0x80 + code, 0, 1, 0, hasIt ? 1 : 0, 0, 0, 0, 0]);
    const answer = hasIt ? [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 7, 0, 4, ...address] : [];
    const parts = [question.subarray(0, 2), head, question.subarray(12, end), Buffer.from(answer)];
    server.send(Buffer.concat(parts), from.port, from.address);
  });
  server.bind(0, "127.0.0.1");
  await once(server, "listening");
  return `127.0.0.1:${server.address().port}`;
}

test("servers of the config are asked, and nobody else", async () => {
  const options = { fallback: false, system: false, timeoutMs: 2_000, tries: 2 };
  const known = await dnsServer([192, 0, 2, 7]);
  expect(await resolveName("a.test", "V4_ONLY", { ...options, servers: [known] })).toEqual([
    { ip: "192.0.2.7", ttl: 7 },
  ]);
  const unknown = await dnsServer(NO_SUCH_NAME);
  expect(await resolveName("a.test", "AUTO", { ...options, servers: [unknown] })).toEqual([]);
});

test("a server that does not answer is a failure, not an empty answer", async () => {
  const mute = dgram.createSocket("udp4").bind(0, "127.0.0.1");
  servers.push(mute);
  await once(mute, "listening");
  const asked = resolveName("a.test", "V4_ONLY", {
    servers: [`127.0.0.1:${mute.address().port}`],
    fallback: false,
    system: false,
    timeoutMs: 50,
    tries: 1,
  });
  await expect(asked).rejects.toThrow("no answer from 127.0.0.1:");
});

test.each([
  ["SERVFAIL", 2],
  ["NOTIMP", 4],
  ["REFUSED", 5],
])(
  "servers that answer %s are asked in turn, each as often as the config says",
  async (_, code) => {
    const asked: string[] = [];
    const first = await dnsServer(code, () => asked.push("first"));
    const second = await dnsServer(code, () => asked.push("second"));
    const options = { fallback: false, system: false, timeoutMs: 2_000, tries: 2 };
    const failed = resolveName("a.test", "V4_ONLY", { ...options, servers: [first, second] });
    await expect(failed).rejects.toThrow("no answer from 127.0.0.1:");
    expect(asked).toEqual(["first", "second", "first", "second"]);

    asked.length = 0;
    const alone = { fallback: false, system: false, servers: [first] };
    await expect(resolveName("a.test", "V4_ONLY", alone)).rejects.toThrow("no answer from");
    expect(asked).toEqual(["first", "first", "first", "first"]);
  },
);

test("a server that knows the name is asked after one that could not answer", async () => {
  const servers = [await dnsServer(2), await dnsServer([192, 0, 2, 7])];
  const options = { servers, fallback: false, system: false, timeoutMs: 2_000, tries: 1 };
  expect(await resolveName("a.test", "V4_ONLY", options)).toEqual([{ ip: "192.0.2.7", ttl: 7 }]);
  // Who answers that there is no such name has answered.
  const denying = [await dnsServer(NO_SUCH_NAME), ...servers.slice(1)];
  expect(await resolveName("a.test", "V4_ONLY", { ...options, servers: denying })).toEqual([]);
});

test("an address stands for itself, whatever the family", async () => {
  expect(await resolveName("192.0.2.7", "V6_ONLY")).toEqual([{ ip: "192.0.2.7", ttl: 0 }]);
});

test("a name that ends in a number is no address in disguise", async () => {
  const quick = { servers: [], fallback: false, system: false, timeoutMs: 50, tries: 1 };
  for (const name of ["127.1", "2130706433", "0x7f.1", "0177.0.0.1."]) {
    const found = await resolveName(name, "V4_ONLY", quick).catch(() => "no such name");
    expect(["no such name", []], name).toContainEqual(found);
  }
});

test("with a dot at its end, localhost is a name like others", async () => {
  const servers = [await dnsServer([192, 0, 2, 7])];
  const options = { servers, fallback: false, system: false, timeoutMs: 2_000, tries: 2 };
  for (const name of ["localhost.", "a.localhost."])
    expect(await resolveName(name, "V4_ONLY", options), name).toEqual([
      { ip: "192.0.2.7", ttl: 7 },
    ]);
});

test("this machine's own names need no server, in any family", async () => {
  for (const name of ["localhost", "a.Localhost"]) {
    expect(await resolveName(name, "V4_ONLY"), name).toEqual([{ ip: "127.0.0.1", ttl: 0 }]);
    expect(await resolveName(name, "V4_PREFERRED"), name).toEqual([{ ip: "127.0.0.1", ttl: 0 }]);
    expect(await resolveName(name, "V6_ONLY"), name).toEqual([{ ip: "::1", ttl: 0 }]);
  }
  const addresses = Object.values(networkInterfaces()).flat();
  const hasIpv6 = addresses.some((address) => address?.family === "IPv6");
  expect(await resolveName("localhost", "AUTO")).toEqual([
    { ip: hasIpv6 ? "::1" : "127.0.0.1", ttl: 0 },
  ]);
});

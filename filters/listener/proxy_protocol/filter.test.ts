import { type AcceptedSocket, Chunk, type ListenerFilterFactory } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import proxyProtocol from "./filter.ts";
import { readProxyHeader } from "./header.ts";

function begin(config: object = {}) {
  const cx = new TestContext();
  const all = { allow_requests_without_proxy_protocol: false, ...config };
  const factory = cx.setup(proxyProtocol, all) as ListenerFilterFactory;
  const metadata = new Map<string, unknown>();
  const filterState = new Map<string, unknown>();
  const socket: AcceptedSocket = {
    remoteAddress: { ip: "192.0.2.1", port: 1 },
    localAddress: { ip: "192.0.2.2", port: 2 },
    transportProtocol: "raw_buffer",
    serverName: "",
    applicationProtocols: [],
    setMetadata: (namespace, values) => void metadata.set(namespace, values),
    setFilterState: (key, value) => void filterState.set(key, value),
  };
  const filter = factory(socket);
  const give = (text: string) => {
    const bytes = Buffer.from(text, "latin1");
    return filter.onBytes(new Chunk(bytes, 0, bytes.length));
  };
  return { cx, socket, give, metadata, filterState };
}

const SIGNATURE = "\r\n\r\n\0\r\nQUIT\n";
const TCP4 = "\x0a\x01\x02\x03\xc0\x00\x02\x01\x1f\x90\x00\x50";
function v2(command: number, family: number, body: string): string {
  const head = String.fromCharCode(command, family, body.length >> 8, body.length & 255);
  return SIGNATURE + head + body;
}

test("takes the addresses of a v1 line, and exactly the line", () => {
  const { cx, socket, give } = begin();
  const line = "PROXY TCP4 10.1.2.3 192.0.2.1 8080 80\r\n";
  for (let n = 0; n < line.length; n++) expect(give(line.slice(0, n))).toBe("more");
  expect(give(`${line}GET / HTTP/1.1`)).toBe(line.length);
  expect(socket.remoteAddress).toEqual({ ip: "10.1.2.3", port: 8080 });
  expect(socket.localAddress).toEqual({ ip: "192.0.2.1", port: 80 });
  expect(cx.stats.value("proxy_proto.versions.v1.found")).toBe(1);
});

test("UNKNOWN and LOCAL leave the socket's own addresses", () => {
  for (const header of ["PROXY UNKNOWN\r\n", v2(0x20, 0x11, TCP4), v2(0x20, 0x00, "")]) {
    const { socket, give } = begin();
    expect(give(header)).toBe(header.length);
    expect(socket.remoteAddress.ip).toBe("192.0.2.1");
  }
});

test("reads v2 with IPv4 and IPv6", () => {
  const four = begin();
  const header = v2(0x21, 0x11, TCP4);
  for (let n = 0; n < header.length; n++)
    expect(four.give(header.slice(0, n)), `${n}`).toBe("more");
  expect(four.give(header)).toBe(header.length);
  expect(four.socket.remoteAddress).toEqual({ ip: "10.1.2.3", port: 8080 });
  const six = begin();
  const ip = `\x20\x01\x0d\xb8${"\0".repeat(11)}\x01`;
  const long = v2(0x21, 0x21, `${ip}${ip}\x30\x39\x1f\x90`);
  expect(six.give(long)).toBe(long.length);
  expect(six.socket.remoteAddress).toEqual({ ip: "2001:db8::1", port: 12345 });
});

test("puts TLVs where the rules say", () => {
  const { give, metadata } = begin({
    rules: [
      { tlv_type: 2, on_tlv_present: { key: "authority" } },
      { tlv_type: 0xea, on_tlv_present: { metadata_namespace: "aws", key: "vpce" } },
    ],
  });
  give(v2(0x21, 0x11, `${TCP4}\x02\x00\x04name\xea\x00\x03abc`));
  expect(metadata.get("envoy.filters.listener.proxy_protocol")).toEqual({ authority: "name" });
  expect(metadata.get("aws")).toEqual({ vpce: "abc" });
});

test("of two rules for a type the last counts, of two values for a key the first, in the order of the header", () => {
  const { give, metadata } = begin({
    rules: [
      { tlv_type: 2, on_tlv_present: { key: "never" } },
      { tlv_type: 2, on_tlv_present: { key: "same" } },
      { tlv_type: 5, on_tlv_present: { key: "same" } },
      { tlv_type: 6 },
    ],
  });
  give(v2(0x21, 0x11, `${TCP4}\x06\x00\x03six\x05\x00\x04five\x02\x00\x03two\x02\x00\x01x`));
  expect([...metadata.values()]).toEqual([{ same: "five", "": "six" }]);
});

test("TLVs can go into filter state: one object, in which the last value of a key stays", () => {
  const { give, metadata, filterState } = begin({
    tlv_location: "FILTER_STATE",
    rules: [
      { tlv_type: 2, on_tlv_present: { key: "a" } },
      { tlv_type: 5, on_tlv_present: { key: "b", metadata_namespace: "elsewhere" } },
    ],
  });
  give(v2(0x21, 0x11, `${TCP4}\x02\x00\x01x\x05\x00\x00\x02\x00\x01y`));
  expect([...filterState]).toEqual([["envoy.network.proxy_protocol.tlv", { a: "y", b: "" }]]);
  expect(metadata.size).toBe(0);
});

test("bytes of a TLV that are no UTF-8 become exclamation marks, one each", () => {
  const texts: [string, string][] = [
    ["plain", "plain"],
    ["\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "é€😀"],
    ["a\xff\xfeb\x00", "a!!b\x00"],
    ["\xe2\x82x\xc3", "!!x!"],
    ["\xff\xef\xbf\xbd\xef\xbf", "!\ufffd!!"],
  ];
  for (const [bytes, text] of texts) {
    const { give, metadata } = begin({ rules: [{ tlv_type: 2, on_tlv_present: { key: "k" } }] });
    give(v2(0x21, 0x11, `${TCP4}\x02\x00${String.fromCharCode(bytes.length)}${bytes}`));
    expect([...metadata.values()]).toEqual([{ k: text }]);
  }
});

test("keeps TLVs for an upstream's header", () => {
  const bytes = `${TCP4}\x02\x00\x04name\xea\x00\x03abc`;
  const kept = (pass_through_tlvs?: object) => {
    const { give, metadata } = begin({ pass_through_tlvs });
    give(v2(0x21, 0x11, bytes));
    const found = metadata.get("envoy.network.proxy_protocol_options");
    return (found as { tlvs: { type: number }[] } | undefined)?.tlvs.map(({ type }) => type);
  };
  expect(kept()).toBeUndefined();
  expect(kept({ match_type: "INCLUDE_ALL" })).toEqual([2, 0xea]);
  expect(kept({ match_type: "INCLUDE", tlv_type: [0xea] })).toEqual([0xea]);
});

test("closes on what breaks the rules", () => {
  const bad = [
    v2(0x21, 0x00, ""),
    v2(0x21, 0x31, "a".repeat(216)),
    "PROXY TCP4 999.1.2.3 127.0.0.1 12345 8080\r\n",
    "PROXY TCP4 10.1.2.3 127.0.0.1 99999 8080\r\n",
    "PROXY TCP4 10.1.2.3 127.0.0.1 -1 8080\r\n",
    "PROXY TCP4 ::1 ::1 1 2\r\n",
    "PROXY TCP4 10.1.2.3 127.0.0.1 12345 8080\nGET / HTTP/1.1\r\n",
    "PROXY TCP4 0.0.0.0 127.0.0.1 12345 8080\r\n",
    "PROXY TCP4 10.1.2.3 255.255.255.255 12345 8080\r\n",
    "PROXY TCP4 10.1.2.3 224.0.0.1 12345 8080\r\n",
    "PROXY TCP6 :: ::1 12345 8080\r\n",
    "PROXY TCP6 ::1 ff02::1 12345 8080\r\n",
    v2(0x21, 0x11, `\x0a\x01\x02\x03\xff\xff\xff\xff\x1f\x90\x00\x50`),
    "PROXY TCP4 10.1.2.3 127.0.0.1 12345 8080 x\r\n",
    `PROXY TCP4 ${"1".repeat(200)}`,
    "PROXY \r\n",
    v2(0x21, 0x11, TCP4.slice(0, 6)),
    v2(0x25, 0x11, TCP4),
    v2(0x31, 0x11, TCP4),
    v2(0x21, 0x13, TCP4),
    v2(0x21, 0x41, TCP4),
    v2(0x21, 0x11, `${TCP4}\x02\x00\x09name`),
  ];
  for (const header of bad) expect(begin().give(header), JSON.stringify(header)).toBe("close");
});

test("a line of version 1 ends with CRLF, white space before it or not, and may have 108 bytes", () => {
  const { socket, give } = begin();
  const line = "PROXY TCP4 10.1.2.3 192.0.2.1 0080 80 \t\r\n";
  expect(give("PROXY TCP4 10.1.2.3 192.0.2.1 80 80\n")).toBe("more");
  expect(give(line)).toBe(line.length);
  expect(socket.remoteAddress.port).toBe(80);
  const rest = (size: number) => "x".repeat(size - "PROXY UNKNOWN ".length - 2);
  expect(give(`PROXY UNKNOWN ${rest(108)}\r\n`)).toBe(108);
  expect(give(`PROXY UNKNOWN ${rest(109)}\r\n`)).toBe("close");
});

test("no client could connect where every version is disallowed: the config is refused", () => {
  expect(() => begin({ disallowed_versions: ["V1", "V2"] })).toThrow("leave one out");
});

test("without a header: refused, unless the config allows it", () => {
  const strict = begin();
  expect(strict.give("GET / HTTP/1.1\r\n")).toBe("close");
  expect(strict.cx.stats.value("proxy_proto.not_found_disallowed")).toBe(1);
  expect(begin().give("proxy TCP4 10.1.2.3 127.0.0.1 1 2\r\n")).toBe("close");
  const lax = begin({ allow_requests_without_proxy_protocol: true });
  expect(lax.give("GET / HTTP/1.1\r\n")).toBe(0);
  expect(lax.cx.stats.value("proxy_proto.not_found_allowed")).toBe(1);
});

test("where there must be a header, other bytes are refused with their first line or the 16th byte", () => {
  const { cx, give } = begin();
  for (const part of ["GET / HT", "hello\n", "\r\nGET / HTTP/1.", "\x16\x03\x01\0\x05hello"])
    expect(give(part), JSON.stringify(part)).toBe("more");
  expect(give("hello\r\n")).toBe("close");
  expect(cx.stats.value("proxy_proto.versions.v1.error")).toBe(1);
  expect(give("\r\nGET / HTTP/1.1")).toBe("close");
  expect(cx.stats.value("proxy_proto.not_found_disallowed")).toBe(1);
  expect(begin({ allow_requests_without_proxy_protocol: true }).give("GET /")).toBe(0);
});

test("a first line that does not end is no header, refused to clients that need none as well", () => {
  for (const allow_requests_without_proxy_protocol of [false, true]) {
    const { cx, give } = begin({ allow_requests_without_proxy_protocol });
    expect(give("PROXY TCP4 10.1.2.3 192.0.2.1 8080 80 ".padEnd(109, "x"))).toBe("close");
    expect(cx.stats.value("proxy_proto.not_found_disallowed")).toBe(1);
    expect(cx.stats.value("proxy_proto.versions.v1.error")).toBe(0);
  }
});

test("a version can be disallowed, and is no header then to clients that need none", () => {
  const v1 = "PROXY TCP4 10.1.2.3 192.0.2.1 8080 80\r\n";
  const { cx, give } = begin({ disallowed_versions: ["V1"], stat_prefix: "edge" });
  expect(give(v1)).toBe("close");
  expect(cx.stats.value("proxy_proto.edge.versions.v1.disallowed")).toBe(1);
  const lax = begin({ disallowed_versions: ["V1"], allow_requests_without_proxy_protocol: true });
  expect(lax.give(v1)).toBe(0);
  expect(lax.cx.stats.value("proxy_proto.not_found_allowed")).toBe(1);
  expect(lax.cx.stats.value("proxy_proto.versions.v1.found")).toBe(0);
});

test("bytes that were changed on the way never make it throw, nor take more than there is", () => {
  let seed = 7;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return seed % below;
  };
  const starts = [
    "PROXY TCP4 10.1.2.3 192.0.2.1 8080 80\r\nx",
    v2(0x21, 0x11, `${TCP4}\x02\x00\x04name`),
  ];
  for (let round = 0; round < 20_000; round++) {
    const bytes = Buffer.from(starts[round & 1]!, "latin1");
    for (let k = random(4); k >= 0; k--) bytes[random(bytes.length)] = random(256);
    const n = random(bytes.length + 1);
    const found = readProxyHeader(new Chunk(bytes, 0, n));
    if (typeof found !== "string") expect(found.size).toBeLessThanOrEqual(n);
  }
});

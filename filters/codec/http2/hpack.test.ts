import { HeaderMap, latin1Encode, ResponseHeaders } from "@tsproxy/sdk";
import { responseHeaders, TestConnection, TestContext } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import { BufferPool, FrameWriter } from "./frame-writer.ts";
import { HeadArena } from "./head-arena.ts";
import { FAULT, HeadBuilder, KIND } from "./head-builder.ts";
import { HpackDecoder } from "./hpack-decoder.ts";
import { HpackEncoder } from "./hpack-encoder.ts";
import { huffmanDecode, huffmanEncode, huffmanSize } from "./huffman.ts";
import { Http2Stats } from "./stats.ts";

const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex.replaceAll(" ", ""), "hex"));
const limits = { maxHeadBytes: 60 * 1024, maxHeaders: 100 };

function reader(tableSize = 4096) {
  const decoder = new HpackDecoder(tableSize);
  const builder = new HeadBuilder(new HeadArena(() => 0), limits);
  const read = (hex: string) => {
    const headers = new HeaderMap();
    builder.begin(KIND.TRAILERS, headers);
    const block = bytes(hex);
    if (!decoder.decode(block, 0, block.length, builder)) return "broken";
    if (builder.finish() !== FAULT.NONE) return "malformed";
    return [...headers].map((line) => line.join(": "));
  };
  return { decoder, builder, read };
}

describe("huffman", () => {
  it("agrees with the examples of RFC 7541 Appendix C.4", () => {
    const text = latin1Encode("www.example.com");
    const coded = new Uint8Array(huffmanSize(text, 0, text.length));
    huffmanEncode(text, 0, text.length, coded, 0);
    expect(Buffer.from(coded).toString("hex")).toBe("f1e3c2e5f23a6ba0ab90f4ff");
  });

  it("brings every byte back", () => {
    const text = Uint8Array.from({ length: 512 }, (_, k) => (k * 7) & 255);
    const coded = new Uint8Array(huffmanSize(text, 0, text.length));
    expect(huffmanEncode(text, 0, text.length, coded, 0)).toBe(coded.length);
    const back = new Uint8Array(2000);
    const end = huffmanDecode(coded, 0, coded.length, back, 0);
    expect(Buffer.from(back.subarray(0, end)).equals(Buffer.from(text))).toBe(true);
  });

  it("refuses EOS, and padding that is not the beginning of EOS or a whole byte long", () => {
    for (const hex of ["ffffffff", "1c", "1fff", "fffffffc"]) {
      const coded = bytes(hex);
      expect(huffmanDecode(coded, 0, coded.length, new Uint8Array(64), 0)).toBe(-1);
    }
  });
});

describe("a header block", () => {
  it("is read with the table that those before it have filled (RFC 7541 Appendix C.6)", () => {
    const decoder = new HpackDecoder(4096);
    const builder = new HeadBuilder(new HeadArena(() => 0), limits);
    const read = (hex: string) => {
      const headers = new ResponseHeaders();
      const block = bytes(hex);
      builder.begin(KIND.RESPONSE, headers);
      expect(decoder.decode(block, 0, block.length, builder)).toBe(true);
      expect(builder.finish()).toBe(FAULT.NONE);
      return `${headers.status} ${[...headers].map((line) => line.join(": ")).join(" | ")}`;
    };
    // The table of the appendix holds 256 bytes.
    const first =
      "3fe101 4882 6402 5885 aec3771a4b 6196 d07abe94 1054d444a820 0595040b8166e082a62d1bff 6e91 9d29ad17 1863c78f0b97c8e9ae82ae43d3";
    expect(read(first)).toBe(
      "302 cache-control: private | date: Mon, 21 Oct 2013 20:13:21 GMT | location: https://www.example.com",
    );
    expect(read("4883640effc1c0bf")).toBe(
      "307 cache-control: private | date: Mon, 21 Oct 2013 20:13:21 GMT | location: https://www.example.com",
    );
    const third =
      "88c1 6196 d07abe941054d444a8200595040b8166e084a62d1bff c0 5a83 9bd9ab 77ad 94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007";
    expect(read(third)).toBe(
      "200 cache-control: private | date: Mon, 21 Oct 2013 20:13:22 GMT | location: https://www.example.com | content-encoding: gzip | set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    );
  });

  it("is broken by an index that names nothing, a cut string, and a table larger than allowed", () => {
    for (const hex of [
      "80",
      "be",
      "ff8080808001",
      "0085",
      "400a637573",
      "3fe21f",
      "0001613fe100",
    ]) {
      expect(reader().read(hex)).toBe("broken");
    }
  });

  it("may shrink the table at its beginning only", () => {
    const { read } = reader();
    expect(read("4001 61 01 62 be")).toEqual(["a: b", "a: b"]);
    expect(read("20 4001 61 01 62")).toEqual(["a: b"]);
    expect(read("be")).toBe("broken");
    expect(reader().read("4001610162 20")).toBe("broken");
  });

  it("is broken if the peer has acknowledged a smaller table and does not make its own smaller (RFC 9113 §4.3.1)", () => {
    const { decoder, read } = reader();
    decoder.onTableSizeAcknowledged(100);
    expect(read("3f45 4001610162")).toEqual(["a: b"]);
    expect(read("be")).toEqual(["a: b"]);
    for (const hex of ["4001610162", "88", "3fe11f 88"]) {
      const { decoder, read } = reader();
      decoder.onTableSizeAcknowledged(100);
      expect(read(hex)).toBe("broken");
    }
  });

  it("is malformed by names in upper case and by values that no header can carry", () => {
    expect(reader().read("00 01 41 01 62")).toBe("malformed");
    expect(reader().read("00 01 61 03 620a63")).toBe("malformed");
    expect(reader().read("00 00 01 62")).toBe("malformed");
  });

  it("keeps the white space around a value, as Envoy does", () => {
    const { read } = reader();
    expect(read("4001610620206209 2020 be")).toEqual(["a:   b\t  ", "a:   b\t  "]);
    expect(read("0001610109 0001610120")).toEqual(["a: \t", "a:  "]);
  });

  it("that is malformed still fills the table, for the blocks behind it count on that", () => {
    const { read } = reader();
    expect(read("40 01 41 01 62 40 01 63 01 64")).toBe("malformed");
    expect(read("be")).toEqual(["c: d"]);
    expect(read("bf")).toBe("malformed");
  });

  it("never grows beyond its limit, whatever it refers to", () => {
    const { decoder, builder } = reader();
    const long = latin1Encode("v".repeat(4000));
    const block = new Uint8Array(4 + 3 + long.length + 5000);
    block.set([0x40, 1, 97, 0x7f, 0xa1, 0x1e]);
    block.set(long, 6);
    block.fill(0xbe, 6 + long.length);
    builder.begin(KIND.TRAILERS, new HeaderMap());
    expect(decoder.decode(block, 0, block.length, builder)).toBe(true);
    expect(builder.finish()).toBe(FAULT.TOO_LARGE);
    expect(builder.memory.length).toBeLessThan(300_000);
  });
});

describe("an encoder", () => {
  function pair() {
    const connection = new TestConnection();
    const out = new FrameWriter(
      connection,
      new BufferPool(),
      new Http2Stats(new TestContext().stats),
    );
    const encoder = new HpackEncoder(out);
    const decoder = new HpackDecoder(4096);
    const builder = new HeadBuilder(new HeadArena(() => 0), limits);
    const pass = (headers: ResponseHeaders) => {
      out.ensure(1);
      out.at = 0;
      encoder.begin();
      encoder.status(headers.status);
      encoder.fields(headers, 0);
      const size = out.at;
      const back = new ResponseHeaders();
      builder.begin(KIND.RESPONSE, back);
      expect(decoder.decode(out.memory, 0, size, builder)).toBe(true);
      expect(builder.finish()).toBe(FAULT.NONE);
      return { size, text: `${back.status} ${[...back].map((l) => l.join(": ")).join(" | ")}` };
    };
    return { encoder, pass };
  }

  it("puts a field into the table when it comes again, and then names it by a number", () => {
    const { pass } = pair();
    const head = () => responseHeaders(200, "x-one", "some value", "server", "envoy");
    const sizes = [1, 2, 3, 4].map(() => pass(head()));
    for (const { text } of sizes) expect(text).toBe("200 x-one: some value | server: envoy");
    expect(sizes[2]!.size).toBe(3);
    expect(sizes[3]!.size).toBe(3);
  });

  it("stays in step with its peer while entries come and go", () => {
    const { pass, encoder } = pair();
    for (let k = 0; k < 2000; k++) {
      if (k === 700) encoder.setLimit(100);
      if (k === 1400) encoder.setLimit(4096);
      const value = `value ${(k * 7919) % 37}${"y".repeat(k % 90)}`;
      const head = responseHeaders(
        k % 3 === 0 ? 200 : 299,
        `x-${k % 11}`,
        value,
        "etag",
        `"${k % 5}"`,
      );
      expect(pass(head).text).toContain(`x-${k % 11}: ${value} | etag: "${k % 5}"`);
    }
  });

  it("keeps names apart whose hashes are the same", () => {
    const { pass } = pair();
    // 31 * "a" + "~" is 31 * "b" + "_".
    for (let k = 0; k < 4; k++)
      expect(pass(responseHeaders(200, "a~", "1", "b_", "1")).text).toBe("200 a~: 1 | b_: 1");
  });

  it("never puts credentials into the table", () => {
    const { pass } = pair();
    const head = () => responseHeaders(200, "authorization", "Basic c2VjcmV0");
    const sizes = [pass(head()).size, pass(head()).size, pass(head()).size];
    expect(new Set(sizes).size).toBe(1);
  });
});

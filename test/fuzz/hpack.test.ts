import { RequestHeaders, ResponseHeaders } from "@tsproxy/sdk";
import { requestHeaders, responseHeaders, TestConnection, TestContext } from "@tsproxy/sdk/testing";
import hpack, { type Compressor, type Decompressor, type Field } from "hpack.js";
import { expect, it } from "vitest";
import { BufferPool, FrameWriter } from "../../filters/codec/http2/frame-writer.ts";
import { HeadArena } from "../../filters/codec/http2/head-arena.ts";
import { FAULT, HeadBuilder, KIND } from "../../filters/codec/http2/head-builder.ts";
import { HpackDecoder } from "../../filters/codec/http2/hpack-decoder.ts";
import { HpackEncoder, SKIPPED } from "../../filters/codec/http2/hpack-encoder.ts";
import { STATIC_FIELDS } from "../../filters/codec/http2/static-table.ts";
import { Http2Stats } from "../../filters/codec/http2/stats.ts";
import { Random } from "./random.ts";

/**
 * hpack.js is the other end: it reads the header blocks that we write, and we read those that it writes. It keeps to RFC 7541 but for
 *
 * - §4.2: it takes changes of the table's size behind fields, where they are errors;
 * - §4.2: it may shrink its table without a word, so the tests let it say so (`reset`).
 *
 * FUZZ_ROUNDS=20000 makes millions of header lists of it.
 */
const ROUNDS = Number(process.env["FUZZ_ROUNDS"] ?? 40);
const LISTS = 40;
/** The largest table that is allowed here, and that which both ends begin with (RFC 9113 §6.5.2). */
const LIMIT = 65_536;
const DEFAULT = 4096;
const SIZES = [0, 31, 32, 64, 100, 300, 1000, 4095, 4096, 5000, 16_384, LIMIT];

type Pair = readonly [name: string, value: string];

const OWN_NAMES = ["x-a", "x-b", "a-name-of-some-length", "b", "set-cookie", "~!#$%&'*+-.^_`|"];
/** Regular fields of the static table but those that HTTP/2 has rules for: they come at most once in a list. */
const STATIC = STATIC_FIELDS.filter(
  ([name]) =>
    !name.startsWith(":") &&
    !["content-length", "cookie", "expect", "host", "set-cookie", "transfer-encoding"].includes(
      name,
    ),
);
const ALPHABETS = ["abc123", "ABC {}|~;,", "0123456789", "\x80\xe9\xff!", "\xf9\xfe\x7e<\\"];

function value(random: Random): string {
  const size = random.pick([0, 1, 5, 20, 100, 126, 127, 128, 400, 3000]);
  const alphabet = random.pick(ALPHABETS);
  // Few values, so that they come again.
  const start = random.below(4);
  let text = "";
  for (let k = 0; k < size; k++) text += alphabet[(start + k * (1 + start)) % alphabet.length];
  if (random.once(2)) text += random.below(1e6);
  return text.trim();
}

function regular(random: Random): Pair[] {
  const pairs: Pair[] = [];
  const once = new Set<string>();
  for (let n = random.below(10); n > 0; n--) {
    if (random.once(2)) {
      pairs.push([random.pick(OWN_NAMES), value(random)]);
      continue;
    }
    const [name, known] = random.pick(STATIC);
    if (once.has(name)) continue;
    once.add(name);
    pairs.push([name, known !== "" && random.once(2) ? known : value(random)]);
  }
  return pairs;
}

/** The pseudo fields of a request or of a response. */
function pseudo(random: Random, isRequest: boolean): Pair[] {
  if (!isRequest)
    return [[":status", String(random.pick([200, 204, 206, 299, 304, 404, 500, 599]))]];
  return [
    [":method", random.pick(["GET", "POST", "PUT", "PURGE"])],
    [":scheme", random.pick(["http", "https"])],
    [":authority", random.pick(["a", "www.example.com:8080", `h${random.below(5)}`])],
    [
      ":path",
      random.pick([
        "/",
        "/index.html",
        `/${random.below(9)}`,
        `/?${"q".repeat(random.below(300))}`,
      ]),
    ],
  ];
}

const isSecret = ([name, text]: Pair): boolean =>
  name === "authorization" ||
  name === "proxy-authorization" ||
  (name === "cookie" && text.length < 20);

// ---- hpack.js

class TheirEncoder {
  #bytes: Uint8Array[] = [];
  readonly #compressor: Compressor;

  constructor() {
    this.#compressor = hpack.compressor.create({ table: { maxSize: LIMIT } });
    this.#compressor.push = (bytes) => this.#bytes.push(bytes) > 0;
    this.#compressor.updateTableSize(DEFAULT);
  }
  /** The next block begins with it. */
  resize(size: number): void {
    this.#compressor.updateTableSize(size);
    this.#compressor.reset();
  }
  write(fields: readonly Field[]): Buffer {
    this.#compressor.write(fields);
    const block = Buffer.concat(this.#bytes);
    this.#bytes = [];
    return block;
  }
}

class TheirDecoder {
  fields: Field[] = [];
  /** Table sizes that the last block has set. */
  sizes: number[] = [];
  /** True if one of them stood behind a field. */
  isLate = false;
  #failed = false;
  readonly #decompressor: Decompressor;

  constructor() {
    const inner = hpack.decompressor.create({ table: { maxSize: LIMIT } });
    this.#decompressor = inner;
    inner.updateTableSize(DEFAULT);
    inner.push = (field) => this.fields.push(field) > 0;
    inner.on("error", () => {
      this.#failed = true;
    });
    const update = inner.updateTableSize;
    inner.updateTableSize = (size) => {
      this.sizes.push(size);
      if (this.fields.length > 0) this.isLate = true;
      update.call(inner, size);
    };
  }
  /** False if the block is broken. */
  read(block: Uint8Array): boolean {
    this.fields = [];
    this.sizes = [];
    this.#decompressor.write(block);
    this.#decompressor.execute();
    return !this.#failed;
  }
  get pairs(): Pair[] {
    return this.fields.map(({ name, value }) => [name, value]);
  }
}

// ---- ours

class OurEncoder {
  readonly #out = new FrameWriter(
    new TestConnection(),
    new BufferPool(),
    new Http2Stats(new TestContext().stats),
  );
  readonly encoder = new HpackEncoder(this.#out);

  write(head: RequestHeaders | ResponseHeaders): Uint8Array {
    const out = this.#out;
    out.ensure(1);
    out.at = 0;
    this.encoder.begin();
    if (head instanceof RequestHeaders) this.encoder.requestLine(head, false, "");
    else this.encoder.status(head.status);
    this.encoder.fields(head, SKIPPED);
    return out.memory.slice(0, out.at);
  }
}

class OurDecoder {
  readonly decoder = new HpackDecoder(LIMIT);
  readonly #builder = new HeadBuilder(new HeadArena(() => 0), {
    maxHeadBytes: 60 * 1024,
    maxHeaders: 100,
  });

  /** "broken": later blocks cannot be read either; "malformed": only this message is lost. */
  read(block: Uint8Array, isRequest: boolean): Pair[] | "broken" | "malformed" {
    const head = isRequest ? new RequestHeaders() : new ResponseHeaders();
    this.#builder.begin(isRequest ? KIND.REQUEST : KIND.RESPONSE, head);
    if (!this.decoder.decode(block, 0, block.length, this.#builder)) return "broken";
    if (this.#builder.finish() !== FAULT.NONE) return "malformed";
    if (head instanceof ResponseHeaders) return [[":status", String(head.status)], ...head];
    return [
      [":method", head.method],
      [":scheme", head.scheme],
      [":authority", head.authority ?? ""],
      [":path", head.path],
      ...[...head].filter(([name]) => name !== "host"),
    ];
  }
}

/** Pseudo fields may come in any order, others keep theirs. */
function normal(pairs: readonly Pair[]): string[] {
  const line = ([name, text]: Pair) => `${name}: ${text}`;
  const isPseudo = ([name]: Pair) => name.startsWith(":");
  return [
    ...pairs.filter(isPseudo).map(line).sort(),
    ...pairs.filter((pair) => !isPseudo(pair)).map(line),
  ];
}

it("writes blocks that hpack.js reads, in tables of any size that the peer allows", () => {
  for (let seed = 1; seed <= ROUNDS; seed++) {
    const random = new Random(seed);
    const ours = new OurEncoder();
    const theirs = new TheirDecoder();
    let limit = DEFAULT;
    for (let k = 0; k < LISTS; k++) {
      const before = Math.min(limit, DEFAULT);
      let least = before;
      for (let n = random.once(6) ? 1 + random.below(3) : 0; n > 0; n--) {
        limit = random.pick(SIZES);
        least = Math.min(least, limit);
        ours.encoder.setLimit(limit);
      }
      const isRequest = random.once(2);
      const front = pseudo(random, isRequest);
      const fields = regular(random);
      const head = headOf(front, fields);
      const where = `seed ${seed}, list ${k}`;
      expect(theirs.read(ours.write(head)), where).toBe(true);
      expect(normal(theirs.pairs), where).toEqual(normal([...front, ...fields]));
      const { isLate, sizes } = theirs;
      expect([isLate, sizes.every((size) => size <= limit)], where).toEqual([false, true]);
      // RFC 7541 §4.2: the smallest size since the last block is signalled, and then the one that holds.
      if (least < before)
        expect([sizes[0], sizes.at(-1)], where).toEqual([least, Math.min(limit, DEFAULT)]);
      for (const field of theirs.fields)
        expect(field.neverIndex, where).toBe(isSecret([field.name, field.value]));
    }
  }
});

it("reads blocks that hpack.js writes, with every kind of field and size", () => {
  for (let seed = 1; seed <= ROUNDS; seed++) {
    const random = new Random(seed);
    const theirs = new TheirEncoder();
    const ours = new OurDecoder();
    for (let k = 0; k < LISTS; k++) {
      if (random.once(6)) theirs.resize(random.pick(SIZES));
      const isRequest = random.once(2);
      const sent = [...pseudo(random, isRequest), ...regular(random)];
      const read = ours.read(theirs.write(sent.map((pair) => asAny(pair, random))), isRequest);
      const where = `seed ${seed}, list ${k}`;
      expect(read, where).toBeInstanceOf(Array);
      expect(normal(read as Pair[]), where).toEqual(normal(sent));
    }
  }
});

it("finds broken what hpack.js finds broken, and stays in step behind what is not", () => {
  let broken = 0;
  let read = 0;
  for (let seed = 1; seed <= ROUNDS; seed++) {
    const random = new Random(seed);
    const encoder = new TheirEncoder();
    const theirs = new TheirDecoder();
    const ours = new OurDecoder();
    for (let k = 0; k < LISTS; k++) {
      if (random.once(6)) encoder.resize(random.pick(SIZES));
      const isRequest = random.once(2);
      const fields = [...pseudo(random, isRequest), ...regular(random)];
      const good = encoder.write(fields.map((pair) => asAny(pair, random)));
      const block = random.once(3) ? mutated(good, random) : good;
      const where = `seed ${seed}, list ${k}: ${block.toString("hex")}`;
      const got = ours.read(block, isRequest);
      const isRead = theirs.read(block) && !theirs.isLate;
      expect(got !== "broken", where).toBe(isRead);
      if (!isRead) {
        broken++;
        break;
      }
      if (got === "malformed" || got === "broken") continue;
      read++;
      expect(normal(got.filter(isKept)), where).toEqual(
        normal(theirs.pairs.filter(isKept).map(trimmed)),
      );
    }
  }
  expect(broken).toBeGreaterThan(ROUNDS / 4);
  expect(read).toBeGreaterThan(ROUNDS);
});

function headOf(front: readonly Pair[], fields: readonly Pair[]): RequestHeaders | ResponseHeaders {
  const texts = front.map(([, text]) => text);
  if (texts.length === 1) return responseHeaders(Number(texts[0]), ...fields.flat());
  const [method, scheme, authority, path] = texts;
  const head = requestHeaders(method!, path!, "host", authority!, ...fields.flat());
  head.scheme = scheme === "https" ? "https" : "http";
  return head;
}

/** A field in any of the forms that it may be written in. */
function asAny([name, value]: Pair, random: Random): Field {
  const how = random.below(4);
  return { name, value, huffman: !random.once(3), incremental: how !== 0, neverIndex: how === 1 };
}

/** A scheme that is not `https` counts as `http`. */
const isKept = ([name]: Pair): boolean => name !== ":scheme";

/** RFC 9113 §8.2.1 forbids white space at the ends of a value; it is taken off, as Envoy does. */
const trimmed = ([name, text]: Pair): Pair => [name, text.replace(/^[ \t]+|[ \t]+$/g, "")];

function mutated(block: Buffer, random: Random): Buffer {
  const at = random.below(block.length);
  const end = Math.min(block.length, at + random.below(6));
  switch (random.below(5)) {
    case 0:
      return block.subarray(0, at);
    case 1:
      return Buffer.concat([block.subarray(0, at), block.subarray(end)]);
    case 2:
      return Buffer.concat([block.subarray(0, end), block.subarray(at)]);
    case 3:
      return Buffer.concat([
        block.subarray(0, at),
        Buffer.from([random.below(256)]),
        block.subarray(at),
      ]);
    default: {
      const copy = Buffer.from(block);
      copy[at]! ^= 1 << random.below(8);
      return copy;
    }
  }
}

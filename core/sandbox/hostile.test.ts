import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  ANSWER,
  BOX,
  EDITS,
  RECORD,
  REPLY,
  VERDICT,
  VERDICT_FLAG,
  VERDICT_TYPE,
} from "../inside/sandbox/layout.ts";
import { Exchange, FakeWorker, linesOf, stubs } from "./fake-worker.ts";

// Here the prelude itself is the enemy: code of a sandbox that has taken over its isolate and writes what it likes into its block.
const IMAGE = `(() => {
  let words, bytes, attack;
  const init = (box) => { words = new Int32Array(box); bytes = new Uint8Array(box); };
  const start = (its) => { attack = its.default; return '{"refusals":[],"reads":[],"policies":[]}'; };
  const run = (count) => { attack(words, bytes, count); };
  globalThis["tsproxy:image"] = { sdk: {}, prelude: { init, place() {}, expect() {}, start, run } };
})();`;
const HEAD =
  "GET /a HTTP/1.1\r\nhost: example.com\r\nupgrade: x\r\nx-a: 1\r\ncontent-length: 5\r\n";
const names = { ANSWER, BOX, EDITS, RECORD, REPLY, VERDICT, VERDICT_FLAG, VERDICT_TYPE };

/** A sandbox that runs `body` with words, bytes and the token of the first record. */
const attacker = (body: string): string => `
  const { ${Object.keys(names).join(", ")} } = ${JSON.stringify(names)};
  // onRequestHeaders onResponseHeaders onRequestBody
  const tokenOf = (words, k) => words[(words[(BOX.RECORDS >> 2) + k * 4] >> 2) + RECORD.TOKEN];
  /** Writes an answer: its head, its payload's words, then text. */
  function answer(words, bytes, at, kind, token, payload, text = "", size = payload.length * 4 + text.length) {
    let w = (BOX.OUT + at) >> 2;
    words[w++] = kind; words[w++] = token; words[w++] = size; words[w++] = 0;
    for (const word of payload) words[w++] = word;
    for (let k = 0; k < text.length; k++) bytes[w * 4 + k] = text.charCodeAt(k);
    const end = (at + 16 + payload.length * 4 + text.length + 7) & ~7;
    words[BOX.OUT_USED] = end;
    return end;
  }
  /** A verdict with edits: drops, then [name, value] lines. */
  function edits(words, bytes, token, { drops = [], lines = [], method, path, status = 0, pairs = lines.length }) {
    const texts = [method ?? "", path ?? "", ...lines.flat()];
    const payload = [VERDICT_TYPE.GO_ON | (VERDICT_FLAG.EDITS << 8), 0, 0, 0, drops.length, 0, pairs, method?.length ?? -1, path?.length ?? -1, status, ...drops, ...lines.flat().map((s) => s.length)];
    return answer(words, bytes, 0, ANSWER.VERDICT, token, payload, texts.join(""));
  }
  export default function (words, bytes, count) { const token = tokenOf(words, 0); ${body} }`;

let worker: FakeWorker;
beforeEach(() => {
  worker = new FakeWorker();
});
afterEach(() => worker.dispose());

async function attacked(body: string): Promise<Exchange> {
  const sandbox = await worker.sandbox(attacker(body), [{}], {
    image: IMAGE,
    limits: { pauseMs: 1000 },
  });
  const e = new Exchange(worker, [stubs(worker, sandbox)], HEAD);
  e.requestHeaders(false);
  worker.flush();
  // What gets no answer is late.
  sandbox.expire(performance.now() + 2000);
  return e.settled();
}

const ORIGINAL = ["host: example.com", "upgrade: x", "x-a: 1", "content-length: 5"];

it("is believed when it writes what an honest one would", async () => {
  const e = await attacked(
    `edits(words, bytes, token, { drops: [2], lines: [["x-b", "2"]], path: "/b" })`,
  );
  expect([e.reply, e.request.path, linesOf(e.request)]).toEqual([
    undefined,
    "/b",
    ["host: example.com", "upgrade: x", "content-length: 5", "x-b: 2"],
  ]);
});

describe("edits", () => {
  it.each([
    ["a line in a value", `{ lines: [["x-b", "1\\r\\nx-evil: 1"]] }`],
    ["a NUL in a value", `{ lines: [["x-b", "\\0"]] }`],
    ["a line in a name", `{ lines: [["x-b: 1\\r\\nx-evil", "1"]] }`],
    ["a name in upper case", `{ lines: [["X-B", "1"]] }`],
    ["an empty name", `{ lines: [["", "1"]] }`],
    ["a pseudo header", `{ lines: [[":path", "/"]] }`],
    ["a length of the body", `{ lines: [["content-length", "1"]] }`],
    [
      "a length of a body that it does not hold",
      `{ drops: [3], lines: [["content-length", "5"]] }`,
    ],
    ["a TE that is not gRPC's", `{ lines: [["te", "gzip"]] }`],
    ["a transfer coding", `{ lines: [["transfer-encoding", "chunked"]] }`],
    ["a hop-by-hop header", `{ lines: [["connection", "close"]] }`],
    ["the end of an upgrade", `{ drops: [1] }`],
    ["a second host", `{ lines: [["host", "evil"]] }`],
    ["two hosts in the place of one", `{ drops: [0], lines: [["host", "a"], ["host", "b"]] }`],
    ["no host", `{ drops: [0] }`],
    ["a host that is none", `{ drops: [0], lines: [["host", "a/b c"]] }`],
    ["a span that is not there", `{ drops: [4] }`],
    ["a span before the first", `{ drops: [-1] }`],
    ["more lines than it has", `{ pairs: 9999 }`],
    ["a negative number of lines", `{ pairs: -5 }`],
    ["a method with a blank", `{ method: "GE T" }`],
    ["an empty method", `{ method: "" }`],
    ["a method that changes how answers are framed", `{ method: "HEAD" }`],
    ["a tunnel", `{ method: "CONNECT" }`],
    ["a path with a blank", `{ path: "/a HTTP/1.1" }`],
    ["a path with a line", `{ path: "/a\\r\\nx: y" }`],
    ["a path that begins elsewhere", `{ path: "http://evil/" }`],
    ["a status for a request", `{ status: 200 }`],
  ])("with %s fail their stream and nothing goes on", async (_, edit) => {
    const e = await attacked(`edits(words, bytes, token, ${edit})`);
    expect([e.reply?.status, worker.malformations.length]).toEqual([500, 1]);
  });

  it.each(["101", "99", "1000", "-1"])("cannot make a response's status %s", async (status) => {
    const sandbox = await worker.sandbox(
      attacker(
        `const w = words[(BOX.RECORDS >> 2) + (count - 1) * 4] >> 2; edits(words, bytes, words[w + 1], { status: (words[w] & 255) === 5 ? ${status} : 0 })`,
      ),
      [{}],
      { image: IMAGE },
    );
    const e = new Exchange(worker, [stubs(worker, sandbox)], HEAD);
    await e.requestHeaders().settled();
    const response = e.responseHeaders(200, "server: up\r\n");
    await e.settled();
    expect([response.status, e.reply?.status]).toEqual([200, 500]);
  });
});

describe("answers", () => {
  it.each([
    [
      "of a size beyond the block",
      `answer(words, bytes, 0, ANSWER.VERDICT, token, [0, 0, 0, 0], "", 1 << 30)`,
    ],
    ["of a negative size", `answer(words, bytes, 0, ANSWER.VERDICT, token, [0, 0, 0, 0], "", -8)`],
    [
      "beyond the block",
      `answer(words, bytes, 0, ANSWER.VERDICT, token, [0, 0, 0, 0]); words[BOX.OUT_USED] = 1 << 30`,
    ],
    [
      "of a negative sum",
      `answer(words, bytes, 0, ANSWER.VERDICT, token, [0, 0, 0, 0]); words[BOX.OUT_USED] = -16`,
    ],
    ["that are cut short", `answer(words, bytes, 0, ANSWER.VERDICT, token, [0, 0])`],
    [
      "with a body that is not there",
      `answer(words, bytes, 0, ANSWER.VERDICT, token, [0, 0, 0, 1000])`,
    ],
    [
      "of a type that nobody knows",
      `answer(words, bytes, 0, ANSWER.VERDICT, token, [77, 0, 0, 0])`,
    ],
    [
      "that hold without end",
      `answer(words, bytes, 0, ANSWER.VERDICT, token, [VERDICT_TYPE.HOLD_BUFFER, 0, 2 ** 31 - 1, 0])`,
    ],
    [
      "that end a message before its trailers",
      `answer(words, bytes, 0, ANSWER.VERDICT, token, [VERDICT_TYPE.LAST_CHUNK, 0, 0, 0])`,
    ],
    [
      "with a status of 101",
      `answer(words, bytes, 0, ANSWER.VERDICT, token, [VERDICT_TYPE.REPLY, 0, 101, 0, 0, 0, 0])`,
    ],
    [
      "with a line in a reply's header",
      `answer(words, bytes, 0, ANSWER.VERDICT, token, [VERDICT_TYPE.REPLY, 0, 200, 0, 1, 0, 0, 1, 6], "xa\\r\\nb:1")`,
    ],
    [
      "with a length in a reply's header",
      `answer(words, bytes, 0, ANSWER.VERDICT, token, [VERDICT_TYPE.REPLY, 0, 200, 0, 1, 0, 0, 14, 1], "content-length5")`,
    ],
    [
      "with more headers than there are",
      `answer(words, bytes, 0, ANSWER.VERDICT, token, [VERDICT_TYPE.REPLY, 0, 200, 0, 200, 0, 0])`,
    ],
    ["that do not come", `words[BOX.OUT_USED] = 0`],
  ])("%s fail their stream", async (_, body) => {
    const e = await attacked(body);
    expect(e.reply?.status).toBeGreaterThanOrEqual(500);
    expect(linesOf(e.request)).toEqual(ORIGINAL);
  });

  it("count once, and only for streams that wait for this sandbox", async () => {
    const victim = new Exchange(
      worker,
      [
        stubs(
          worker,
          await worker.sandbox(attacker("words[BOX.OUT_USED] = 0"), [{}], { image: IMAGE }),
        ),
      ],
      HEAD,
    ).requestHeaders();
    worker.flush();
    const evil = await worker.sandbox(
      attacker(
        `let at = 0; for (let slot = 0; slot < 16; slot++) for (let g = 1; g < 8; g++) for (let lane = 0; lane < 2; lane++) at = answer(words, bytes, at, ANSWER.VERDICT, (g << 19) | (slot << 1) | lane, [0, 0, 0, 0]);`,
      ),
      [{}],
      { image: IMAGE },
    );
    const e = await new Exchange(worker, [stubs(worker, evil)], HEAD).requestHeaders().settled();
    expect([e.verdicts.length, victim.pending, victim.verdicts.length]).toEqual([1, 1, 0]);
  });

  it("of random words and bytes harm nobody else and let no line through that HTTP cannot carry", async () => {
    const sandbox = await worker.sandbox(
      attacker(`
        for (let k = 0; k < count; k++) {
          const small = () => [0, 1, 2, 3, 4, 5, 8, 16, 40, -1, 1 << 20][(random() * 11) | 0];
          const payload = Array.from({ length: 4 + random() * 24 }, small);
          if (random() < 0.7) payload[0] = ((random() * 9) | 0) | (((random() * 1024) | 0) << 8) | (((random() * 4) | 0) << 24);
          const text = Array.from({ length: random() * 60 }, () => String.fromCharCode(random() < 0.5 ? 97 + random() * 26 : random() * 256)).join("");
          at = answer(words, bytes, k === 0 ? 0 : at, 1 + ((random() * 8) | 0), tokenOf(words, k), payload, text, random() < 0.9 ? undefined : small());
        }`).replace(
        "export default",
        "let seed = 7, at = 0; const random = () => (seed = (Math.imul(seed, 48271) >>> 0) % 2147483647) / 2147483647;\nexport default",
      ),
      [{}],
      { image: IMAGE, limits: { pauseMs: 1 } },
    );
    const factory = stubs(worker, sandbox);
    for (let round = 0; round < 300; round++) {
      const all = Array.from({ length: 8 }, () =>
        new Exchange(worker, [factory], HEAD).requestHeaders(false),
      );
      worker.flush();
      sandbox.expire(performance.now() + 1000);
      worker.flush();
      for (const e of all) {
        expect(e.pending).toBe(0);
        for (const [name, value] of e.request) {
          expect(name).toMatch(/^[!#$%&'*+\-.^_`|~0-9a-z]+$/);
          // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not come through.
          expect(value).not.toMatch(/[\x00-\x08\x0a-\x1f\x7f]/);
        }
        expect(e.request.getAll("host").length).toBeLessThanOrEqual(1);
        expect(e.request.getAll("content-length").filter((value) => value !== "5")).toEqual([]);
        e.end();
      }
    }
    expect(sandbox.counts.faults).toBe(0);
  });
});

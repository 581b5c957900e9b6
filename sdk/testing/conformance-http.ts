import { HeaderMap, RequestHeaders, ResponseHeaders } from "../headers.ts";
import type { Hold, HookResult, HttpFilter, HttpFilterFactory, Verdict } from "../http.ts";
import { everyChunking } from "./chunkings.ts";
import { type ConformanceCheck, type FreshUse, ODD_BYTES } from "./conformance.ts";
import type { TestContext } from "./context.ts";
import { TestStream } from "./http.ts";
import { grown, withSeededRandom } from "./measure.ts";

type Use = FreshUse<HttpFilterFactory>;
type Step = readonly [name: string, run: (stream: TestStream) => unknown];

/** Most bytes of a body that a filter may ask to have held. */
const HOLD_MAX = 64 * 1024 * 1024;
const MIB = 1024 * 1024;

function trailers(): HeaderMap {
  const map = new HeaderMap();
  map.append("x-checksum", "1");
  return map;
}

const HEADS: readonly Step[] = [
  ["request headers", (s) => s.requestHeaders("GET", "/a?b=c")],
  ["response headers", (s) => s.responseHeaders(200, { "content-type": "text/plain" })],
];
const BODIES: readonly Step[] = [
  ["request headers", (s) => s.requestHeaders("POST", "/a", {}, false)],
  ["request body", (s) => s.requestBody("one", false)],
  ["last of the request body", (s) => s.requestBody("two")],
  ["response headers", (s) => s.responseHeaders(200, { "content-type": "text/plain" }, false)],
  ["response body", (s) => s.responseBody("three", false)],
  ["last of the response body", (s) => s.responseBody("four")],
];
const TRAILERS: readonly Step[] = [
  ["request headers", (s) => s.requestHeaders("POST", "/a", {}, false)],
  ["request body", (s) => s.requestBody("one", false)],
  ["request trailers", (s) => s.requestTrailers(trailers())],
  ["response headers", (s) => s.responseHeaders(200, {}, false)],
  ["response body", (s) => s.responseBody("two", false)],
  ["response trailers", (s) => s.responseTrailers(trailers())],
];
/** An upstream may answer before it has the request, and a local reply has no request body at all. */
const EARLY: readonly Step[] = [BODIES[0]!, BODIES[3]!, BODIES[1]!, BODIES[4]!, BODIES[5]!];
const SHAPES = { heads: HEADS, bodies: BODIES, trailers: TRAILERS, "an early answer": EARLY };

/** The checks that every HTTP filter has to pass. */
export function httpConformance(fresh: Use): ConformanceCheck[] {
  return [
    { name: "brings every stream to its end", run: () => endsEveryStream(fresh) },
    { name: "survives a reset in every hook", run: () => survivesResets(fresh) },
    { name: "leaves nothing behind when streams end", run: () => leavesNothing(fresh) },
    { name: "bounds what it keeps of a body", run: () => boundsBuffers(fresh) },
    { name: "throws at no odd head", run: () => takesOddHeads(fresh) },
    { name: "throws at no odd body", run: () => takesOddBodies(fresh) },
    { name: "comes to the same however a body is cut", run: () => takesEveryCut(fresh) },
  ];
}

/** Moves the clock on by two minutes, in which promises settle and timers fire. */
async function wait(cx: TestContext, stream: TestStream): Promise<void> {
  await stream.settled();
  for (let k = 0; k < 24; k++) {
    cx.clock.advance(5000);
    await stream.settled();
  }
}

function mustNotFail(stream: TestStream, where: string): void {
  if (stream.error === undefined) return;
  const { error } = stream;
  throw new Error(`${where}: ${error instanceof Error ? (error.stack ?? error.message) : error}`);
}

async function endsEveryStream(fresh: Use): Promise<void> {
  for (const [shape, steps] of Object.entries(SHAPES)) {
    if (steps === EARLY) continue; // its request has no end
    const { cx, value } = await fresh();
    const stream = new TestStream(cx, value);
    for (const [name, run] of steps) {
      run(stream);
      await wait(cx, stream);
      mustNotFail(stream, `${name} of ${shape}`);
      if (stream.waiting) throw new Error(`${name} of ${shape}: a promise that nothing settles`);
    }
    const isWhole = stream.upstream.ended && stream.downstream.ended;
    if (!isWhole && stream.reply === undefined && stream.tooLarge === undefined)
      throw new Error(
        `${shape}: the end of the ${stream.upstream.ended ? "response" : "request"} is kept back`,
      );
    stream.end();
  }
}

async function survivesResets(fresh: Use): Promise<void> {
  for (const [shape, steps] of Object.entries(SHAPES))
    for (let count = 0; count <= steps.length; count++)
      for (const isSettled of [false, true]) {
        const { cx, value } = await fresh();
        const stream = new TestStream(cx, value);
        for (const [, run] of steps.slice(0, count)) {
          run(stream);
          if (isSettled) await stream.settled();
        }
        const where = count === 0 ? "before its headers" : `in ${steps[count - 1]![0]} of ${shape}`;
        mustNotFail(stream, where);
        try {
          stream.end();
          await wait(cx, stream);
        } catch (error) {
          throw new Error(`reset ${where}: ${error instanceof Error ? error.stack : error}`);
        }
      }
}

async function leavesNothing(fresh: Use): Promise<void> {
  const { cx, value } = await fresh();
  const after = async (streams: number): Promise<Map<string, number>> => {
    for (let k = 0; k < streams; k++) {
      const steps = [HEADS, BODIES, TRAILERS][k % 3]!;
      const stream = new TestStream(cx, value);
      // Every other stream ends in the middle.
      for (const [, run] of steps.slice(0, k % 2 === 0 ? steps.length : 2)) {
        run(stream);
        await stream.settled();
      }
      stream.end();
      await stream.settled();
    }
    const left = new Map([["timers", cx.clock.armed]]);
    for (const name of cx.stats.gauges) left.set(`gauge ${name}`, cx.stats.value(name));
    return left;
  };
  const before = await after(12);
  for (const [name, count] of await after(36))
    if (count >= (before.get(name) ?? 0) + 12)
      throw new Error(
        `36 streams have ended and left more: ${name}, ${before.get(name) ?? 0} before, ${count} now`,
      );
}

async function boundsBuffers(fresh: Use): Promise<void> {
  const chunk = "x".repeat(64 * 1024);
  for (const response of [false, true]) {
    const { cx, value } = await fresh();
    let held = 0;
    const stream = new TestStream(cx, (of) =>
      watched(value(of), ({ max }) => {
        if (!(max <= HOLD_MAX)) throw new Error(`hold keeps up to ${max} bytes of each stream`);
        held = Math.max(held, max);
      }),
    );
    if (response) stream.requestHeaders("GET", "/").responseHeaders(200, {}, false);
    else stream.requestHeaders("POST", "/", {}, false);
    await stream.settled();
    mustNotFail(stream, "headers");
    const out = response ? stream.downstream : stream.upstream;
    // The test itself must not keep what has passed.
    const feed = async (chunks: number): Promise<void> => {
      for (let k = 0; k < chunks && !stream.waiting; k++) {
        if (response) stream.responseBody(chunk, false);
        else stream.requestBody(chunk, false);
        out.body = "";
        out.chunks.length = 0;
        await Promise.resolve();
      }
      await stream.settled();
    };
    await feed(16);
    const bytes = await grown(() => feed(384));
    mustNotFail(stream, "a long body");
    if (bytes > 12 * MIB + 2 * held)
      throw new Error(
        `24 MiB of a ${response ? "response" : "request"} went by, and ${Math.round(bytes / MIB)} MiB of memory with it`,
      );
    stream.end();
  }
}

/** Wraps a filter; `onHold` is called with each hold that buffers a body. */
function watched(filter: HttpFilter, onHold: (hold: Hold) => void): HttpFilter {
  const see = (verdict: Verdict): Verdict => {
    if (verdict?.type === "hold" && verdict.body === "buffer") onHold(verdict);
    return verdict;
  };
  const seen = (result: HookResult): HookResult =>
    result !== undefined && "then" in result ? Promise.resolve(result).then(see) : see(result);
  return new Proxy(filter, {
    get(target, name) {
      const member = Reflect.get(target, name) as unknown;
      if (typeof member !== "function") return member;
      const hook = member.bind(target) as (...args: unknown[]) => HookResult;
      const isHead = name === "onRequestHeaders" || name === "onResponseHeaders";
      return isHead ? (...args: unknown[]) => seen(hook(...args)) : hook;
    },
  });
}

const ODD_PATHS = [
  "",
  "/",
  "*",
  "//",
  "/%",
  "/%zz?%",
  "/?a&b=&=c&a=%ff",
  `/${"a".repeat(8000)}`,
  "/é\xff",
  "http://a/b",
];
const ODD_VALUES = [
  "",
  " ",
  ",",
  ";=;",
  "\xff\xfe",
  "%",
  "-1",
  "1e999",
  "{",
  "Bearer",
  "Basic !!!",
  "a".repeat(8000),
];
const NAMES = [
  "accept",
  "authorization",
  "content-length",
  "content-type",
  "cookie",
  "origin",
  "range",
  "x-forwarded-for",
  "x-request-id",
  "x-odd",
];

async function takesOddHeads(fresh: Use): Promise<void> {
  const { cx, value } = await fresh();
  const drive = async (
    where: string,
    request: (head: RequestHeaders) => void,
    response: (head: ResponseHeaders) => void,
  ): Promise<void> => {
    const stream = new TestStream(cx, value);
    const head = new RequestHeaders();
    head.method = "GET";
    head.path = "/";
    request(head);
    stream.requestHead(head);
    await stream.settled();
    mustNotFail(stream, `a request with ${where}`);
    const answer = new ResponseHeaders();
    answer.status = 200;
    response(answer);
    stream.responseHead(answer);
    await wait(cx, stream);
    mustNotFail(stream, `a response with ${where}`);
    stream.end();
  };
  const nothing = (): void => {};
  for (const path of ODD_PATHS)
    await drive(`the path ${path.slice(0, 40)}`, (head) => void (head.path = path), nothing);
  for (const method of ["", "get", "CONNECT", "x".repeat(100)])
    await drive(`the method "${method}"`, (head) => void (head.method = method), nothing);
  for (const status of [101, 199, 204, 304, 404, 503, 599, 999])
    await drive(`the status ${status}`, nothing, (head) => void (head.status = status));
  for (const odd of ODD_VALUES) {
    const fill = (head: HeaderMap): void => {
      for (const name of NAMES) head.append(name, odd);
    };
    await drive(`headers of "${odd.slice(0, 20)}"`, fill, fill);
  }
  const many = (head: HeaderMap): void => {
    for (let k = 0; k < 500; k++) head.append(NAMES[k % NAMES.length]!, `v${k}`);
  };
  await drive("500 headers, most of them again and again", many, many);
}

async function takesOddBodies(fresh: Use): Promise<void> {
  for (const odd of ODD_BYTES)
    for (const type of [
      "application/json",
      "application/x-www-form-urlencoded",
      "application/grpc",
    ]) {
      const { cx, value } = await fresh();
      const stream = new TestStream(cx, value);
      const headers = { "content-type": type };
      stream.requestHeaders("POST", "/", headers, false).requestChunks(["", odd, ""]);
      await stream.settled();
      mustNotFail(stream, `a request of ${type}, ${JSON.stringify(odd.slice(0, 20))}`);
      stream.responseHeaders(200, headers, false).responseChunks(["", odd, ""]);
      await wait(cx, stream);
      mustNotFail(stream, `a response of ${type}, ${JSON.stringify(odd.slice(0, 20))}`);
      stream.end();
    }
}

async function takesEveryCut(fresh: Use): Promise<void> {
  const drive = (chunks: readonly string[]): Promise<unknown> =>
    // Starts afresh each time, with the same random numbers.
    withSeededRandom(async () => {
      const { cx, value } = await fresh();
      const stream = new TestStream(cx, value);
      stream.requestHeaders("POST", "/", {}, false).requestChunks(chunks);
      await stream.settled();
      stream.responseHeaders(200, {}, false).responseChunks(chunks);
      await wait(cx, stream);
      mustNotFail(stream, `cut as ${JSON.stringify(chunks)}`);
      stream.end();
      const { reply, upstream, downstream } = stream;
      return { reply: reply?.status, request: upstream.body, response: downstream.body };
    });
  await everyChunking('{"a":1}\n', drive);
  await everyChunking("first line\r\nsecond line\r\n", drive);
}

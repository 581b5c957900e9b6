import http from "node:http";
import http2 from "node:http2";
import type net from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { deferred, eventually, get, RawClient } from "./client.ts";
import { bootstrap, cluster, http as httpFilter, listener, route } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { bodyOf, httpUpstream, tcpUpstream, type Upstream } from "./upstream.ts";

let origin1: Upstream<http.Server>;
let origin2: http2.Http2Server;
let proxy: Proxy;
let session: http2.ClientHttp2Session;
/** What the upstreams do with the request of the test in hand. */
let answer1: http.RequestListener = (_, response) => void response.end();
let answer2: (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => void;
const sessions: http2.ServerHttp2Session[] = [];

const OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const speaks = (config: object) => ({
  typed_extension_protocol_options: {
    [OPTIONS]: { "@type": `type.googleapis.com/${OPTIONS}`, ...config },
  },
});

beforeAll(async () => {
  origin1 = await httpUpstream((request, response) => answer1(request, response));
  origin1.server.on("upgrade", (request, socket) => {
    socket.write("HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    socket.write(`${request.method} ${request.url} ${request.headers["x-who"]} `);
    socket.on("data", (bytes) => socket.write(bytes.toString().toUpperCase()));
    socket.on("end", () => socket.end());
  });
  origin2 = http2.createServer({ settings: { enableConnectProtocol: true } });
  origin2.on("session", (s) => sessions.push(s));
  origin2.on("stream", (stream, headers) => answer2(stream, headers));
  await new Promise<void>((done) => origin2.listen(0, "127.0.0.1", done));
  const port2 = (origin2.address() as net.AddressInfo).port;
  const routes = [
    route("/two", "two"),
    route("/same", "same"),
    route("/old", "old"),
    route("/", "one"),
  ];
  const options = {
    http2_protocol_options: { allow_connect: true, initial_stream_window_size: 65_535 },
    http_protocol_options: { enable_trailers: true },
    upgrade_configs: [{ upgrade_type: "websocket" }],
    drain_timeout: "0.1s",
  };
  const explicit1 = {
    explicit_http_config: { http_protocol_options: { enable_trailers: true } },
  };
  const explicit2 = { explicit_http_config: { http2_protocol_options: {} } };
  proxy = await Proxy.start({
    config: bootstrap(
      [listener("main", httpFilter(routes, options))],
      [
        cluster("one", [origin1.port], speaks(explicit1)),
        cluster("two", [port2], speaks(explicit2)),
        cluster("old", [port2], { http2_protocol_options: {} }),
        cluster("same", [port2], speaks({ use_downstream_protocol_config: {} })),
      ],
    ),
  });
  session = http2.connect(`http://127.0.0.1:${proxy.port("main")}`);
  await new Promise((done) => session.once("remoteSettings", done));
});
afterAll(async () => {
  session?.destroy();
  await proxy?.stop();
  await origin1?.close();
  for (const s of sessions) s.destroy();
  origin2?.close();
});

interface Answer2 {
  status: number;
  headers: http2.IncomingHttpHeaders;
  body: string;
  trailers: http2.IncomingHttpHeaders | undefined;
  code: number | undefined;
}

/** One request on the session of all tests. */
function ask(
  headers: http2.OutgoingHttpHeaders,
  body: string | Buffer = "",
  trailers?: http2.OutgoingHttpHeaders,
): Promise<Answer2> {
  const stream = session.request(
    { ":method": body === "" ? "GET" : "POST", ":authority": "h.test", ...headers },
    { waitForTrailers: trailers !== undefined, endStream: body === "" && trailers === undefined },
  );
  if (trailers !== undefined) stream.on("wantTrailers", () => stream.sendTrailers(trailers));
  if (!stream.writableEnded) stream.end(body);
  return answerOf(stream);
}

function answerOf(stream: http2.ClientHttp2Stream): Promise<Answer2> {
  const answer: Answer2 = {
    status: 0,
    headers: {},
    body: "",
    trailers: undefined,
    code: undefined,
  };
  const pieces: Buffer[] = [];
  return new Promise((resolve) => {
    stream.on("response", (headers) => {
      answer.status = headers[":status"] ?? 0;
      answer.headers = headers;
    });
    stream.on("trailers", (headers) => {
      answer.trailers = headers;
    });
    stream.on("data", (piece: Buffer) => pieces.push(piece));
    stream.on("error", () => {});
    stream.on("close", () => {
      answer.body = Buffer.concat(pieces).toString();
      answer.code = stream.rstCode;
      resolve(answer);
    });
  });
}

test("a request over HTTP/2 reaches an HTTP/1.1 upstream with Host, joined cookies and no pseudo fields", async () => {
  let seen: string[] = [];
  answer1 = (request, response) => {
    seen = [`${request.method} ${request.url}`, ...request.rawHeaders];
    response.end("hello");
  };
  const answer = await ask({
    ":path": "/a?b=c",
    cookie: ["a=1", "b=2"],
    "x-a": "1",
    te: "trailers",
  });
  expect(answer).toMatchObject({ status: 200, body: "hello", code: 0 });
  expect(answer.headers).not.toHaveProperty("connection");
  expect(seen.slice(0, 3)).toEqual(["GET /a?b=c", "host", "h.test"]);
  expect(seen.join(" ")).toContain("x-a 1 te trailers cookie a=1; b=2");
  expect(seen.filter((name) => name.startsWith(":"))).toEqual([]);
});

test("a request over HTTP/1.1 reaches an HTTP/2 upstream, and its answer comes back", async () => {
  answer2 = (stream, headers) => {
    stream.respond({ ":status": 201, "x-saw": `${headers[":method"]} ${headers[":path"]}` });
    stream.end(`${headers[":authority"]} ${headers[":scheme"]} ${headers["connection"] ?? "-"}`);
  };
  for (const path of ["/two?x", "/old"]) {
    const answer = await get(proxy.port("main"), path, { headers: { connection: "keep-alive" } });
    expect(answer.status).toBe(201);
    expect(answer.headers["x-saw"]).toBe(`GET ${path}`);
    expect(answer.body.toString()).toMatch(/^127\.0\.0\.1:\d+ http -$/);
  }
});

test("the client's own :scheme goes on, whatever X-Forwarded-Proto says", async () => {
  answer2 = (stream, headers) => {
    stream.respond({});
    stream.end(`${headers[":scheme"]} ${headers["x-forwarded-proto"]}`);
  };
  const path = "/two";
  const https = await ask({ ":path": path, ":scheme": "https" });
  expect(https.body).toBe("https http");
  const forwarded = await ask({ ":path": path, ":scheme": "http", "x-forwarded-proto": "https" });
  expect(forwarded.body).toBe("http https");
});

test("many streams share one upstream connection, in the protocol that they came in", async () => {
  answer2 = (stream, headers) => {
    stream.respond({});
    stream.end(String(headers[":path"]));
  };
  const before = sessions.length;
  const paths = Array.from({ length: 200 }, (_, k) => `/same/${k}`);
  const answers = await Promise.all(paths.map((path) => ask({ ":path": path })));
  expect(answers.map((answer) => answer.body)).toEqual(paths);
  expect(sessions.length).toBe(before + 1);
});

test("bodies far larger than any window arrive whole, both ways and over every pair of protocols", async () => {
  const body = Buffer.alloc(1_500_000, "0123456789abcdef");
  answer1 = async (request, response) => response.end(await bodyOf(request));
  answer2 = (stream) => {
    stream.respond({});
    stream.pipe(stream);
  };
  for (const path of ["/", "/two"]) {
    const answer = await ask({ ":path": path }, body);
    expect(answer.body.length).toBe(body.length);
    expect(answer.body === body.toString()).toBe(true);
  }
  const back = await new Promise<string>((resolve, reject) => {
    const request = http.request(
      { port: proxy.port("main"), path: "/two", method: "POST" },
      async (response) => resolve((await bodyOf(response)).toString()),
    );
    request.on("error", reject);
    request.end(body);
  });
  expect(back === body.toString()).toBe(true);
});

test("a client that does not read stops the upstream, and others on its connection go on", async () => {
  let written = 0;
  answer1 = (request, response) => {
    if (request.url !== "/endless") {
      response.end("quick");
      return;
    }
    const more = (): void => {
      while (written < 200_000_000) {
        written += 65_536;
        if (!response.write(Buffer.alloc(65_536))) break;
      }
    };
    response.on("drain", more);
    more();
  };
  const slow = session.request({ ":path": "/endless", ":authority": "h.test" });
  slow.on("error", () => {});
  await new Promise((done) => slow.once("response", done));
  slow.pause();
  let last = -1;
  const isStopped = async () => {
    const same = written === last;
    last = written;
    expect((await ask({ ":path": "/quick" })).body).toBe("quick");
    return same;
  };
  await eventually(isStopped, (stopped) => stopped, "the upstream is stopped");
  expect(written).toBeLessThan(50_000_000);
  slow.close(http2.constants.NGHTTP2_CANCEL);
});

test("trailers pass in both directions, between both protocols", async () => {
  answer1 = async (request, response) => {
    await bodyOf(request);
    response.writeHead(200, { trailer: "x-sum" });
    response.write("body");
    response.addTrailers({ "x-sum": `${request.trailers["x-last"]}!` });
    response.end();
  };
  answer2 = (stream) => {
    let last = "";
    stream.on("trailers", (trailers) => {
      last = String(trailers["x-last"]);
    });
    stream.resume();
    stream.on("end", () => {
      stream.respond({}, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": `${last}!` }));
      stream.end("body");
    });
  };
  for (const path of ["/", "/two"]) {
    const answer = await ask({ ":path": path }, "data", { "x-last": "yes" });
    expect(answer).toMatchObject({ body: "body", trailers: { "x-sum": "yes!" } });
  }
});

test("resets and closes are carried over: each end learns that the other has given up", async () => {
  answer1 = (_, response) => {
    response.writeHead(200, { "content-length": 100 });
    response.write("cut");
    setImmediate(() => response.destroy());
  };
  expect(await ask({ ":path": "/cut" })).toMatchObject({ status: 200, body: "cut", code: 2 });
  const came = deferred();
  const gone = deferred();
  answer1 = (request) => {
    came.resolve();
    request.on("close", () => gone.resolve());
  };
  const stream = session.request({ ":path": "/hang", ":authority": "h.test" });
  stream.on("error", () => {});
  await came.promise;
  stream.close(http2.constants.NGHTTP2_CANCEL);
  await gone.promise;
  answer2 = (upstream) =>
    upstream.on("error", () => {}).close(http2.constants.NGHTTP2_REFUSED_STREAM);
  const refused = await get(proxy.port("main"), "/two");
  expect(refused.status).toBe(503);
  expect(refused.body.toString()).toContain("remote refused stream reset");
});

test("1xx answers, HEAD and statuses without a body pass", async () => {
  answer2 = (stream, headers) => {
    if (headers[":method"] === "HEAD")
      stream.respond({ "content-length": 77 }, { endStream: true });
    else stream.respond({ ":status": 204 }, { endStream: true });
  };
  expect(await ask({ ":path": "/two", ":method": "HEAD" })).toMatchObject({
    status: 200,
    body: "",
    headers: { "content-length": "77" },
  });
  expect(await ask({ ":path": "/two" })).toMatchObject({ status: 204, body: "", code: 0 });
});

test("a WebSocket over HTTP/2 becomes an upgrade for an HTTP/1.1 upstream", async () => {
  const stream = session.request({
    ":method": "CONNECT",
    ":protocol": "websocket",
    ":path": "/chat",
    ":authority": "h.test",
    "x-who": "me",
  });
  stream.write("one ");
  const seen = deferred<string>();
  let text = "";
  stream.on("data", (bytes: Buffer) => {
    text += bytes.toString();
    if (text.includes("TWO")) seen.resolve(text);
    else if (text.includes("ONE")) stream.write("two");
  });
  const status = await new Promise((done) => {
    stream.once("response", (headers) => done(headers[":status"]));
  });
  expect(status).toBe(200);
  expect(await seen.promise).toBe("GET /chat me ONE TWO");
  stream.close();
});

test("CONNECT over HTTP/2 is a tunnel to a TCP service, or goes on as CONNECT", async () => {
  const echo = await tcpUpstream((socket) => {
    socket.on("data", (bytes) => socket.write(bytes.toString().toUpperCase()));
    socket.on("end", () => socket.end("bye"));
  });
  const matcher = { connect_matcher: {} };
  const upgrade = (more: object) => [{ upgrade_type: "CONNECT", ...more }];
  const filter = httpFilter(
    [
      {
        match: { ...matcher, headers: [{ name: "x-passed", present_match: true }] },
        route: { cluster: "two", upgrade_configs: upgrade({}) },
      },
      {
        match: matcher,
        route: { cluster: "echo", upgrade_configs: upgrade({ connect_config: {} }) },
      },
    ],
    { http2_protocol_options: { allow_connect: true } },
  );
  const tunnels = await Proxy.start({
    config: bootstrap(
      [listener("main", filter)],
      [
        cluster("echo", [echo.port]),
        cluster("two", [(origin2.address() as net.AddressInfo).port], {
          http2_protocol_options: {},
        }),
      ],
    ),
  });
  answer2 = (stream, headers) => {
    stream.respond({ ":status": 200 });
    stream.write(`${headers[":method"]} ${headers[":authority"]} `);
    stream.on("data", (bytes) => stream.write(bytes));
    stream.on("end", () => stream.end());
  };
  const client = http2.connect(`http://127.0.0.1:${tunnels.port("main")}`);
  const tunnel = async (...headers: string[]) => {
    const stream = client.request(
      {
        ":method": "CONNECT",
        ":authority": "db.test:5432",
        ...(headers[0] && { [headers[0]]: "1" }),
      },
      { endStream: false },
    );
    let text = "";
    stream.setEncoding("utf8").on("data", (piece: string) => (text += piece));
    const status = await new Promise((resolve) =>
      stream.on("response", (head) => resolve(head[":status"])),
    );
    stream.write("abc");
    await eventually(
      () => text,
      (heard) => /abc$/i.test(heard),
      "what was sent comes back",
    );
    stream.end();
    await new Promise((resolve) => stream.on("end", resolve));
    return `${status} ${text}`;
  };
  try {
    expect(await tunnel()).toBe("200 ABCbye");
    expect(await tunnel("x-passed")).toBe("200 CONNECT db.test:5432 abc");
  } finally {
    client.destroy();
    await tunnels.stop();
    await echo.close();
  }
});

test("a tunnel whose upstream cannot be reached, or is lost, ends with CONNECT_ERROR", async () => {
  const cutting = await tcpUpstream((socket) => {
    socket.on("data", () => socket.resetAndDestroy());
  });
  const gone = await tcpUpstream(() => {});
  await gone.close();
  const to = (name: string) => ({
    match: {
      connect_matcher: {},
      headers: [{ name: ":authority", string_match: { prefix: name } }],
    },
    route: {
      cluster: name,
      upgrade_configs: [{ upgrade_type: "CONNECT", connect_config: {} }],
    },
  });
  const tunnels = await Proxy.start({
    config: bootstrap(
      [listener("main", httpFilter([to("cutting"), to("gone")]))],
      [cluster("cutting", [cutting.port]), cluster("gone", [gone.port])],
    ),
  });
  const client = http2.connect(`http://127.0.0.1:${tunnels.port("main")}`);
  const tunnel = (name: string) => {
    const headers = { ":method": "CONNECT", ":authority": `${name}:1` };
    const stream = client.request(headers, { endStream: false });
    stream.write("first");
    return answerOf(stream);
  };
  try {
    const code = http2.constants.NGHTTP2_CONNECT_ERROR;
    expect(await tunnel("gone")).toMatchObject({ status: 503, code });
    expect(await tunnel("cutting")).toMatchObject({ status: 200, code });
    expect(await tunnels.stat("cluster.cutting.upstream_cx_protocol_error")).toBe(0);
  } finally {
    client.destroy();
    await tunnels.stop();
    await cutting.close();
  }
});

test("what begins as HTTP/2 does and goes on otherwise gets no answer", async () => {
  const client = await RawClient.connect(proxy.port("main"));
  client.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
  await eventually(
    () => client.closed,
    (closed) => closed,
    "closed",
  );
  expect(client.text).toBe("");
});

test("an upgrade over HTTP/1.1 becomes an extended CONNECT for an HTTP/2 upstream", async () => {
  answer2 = (stream, headers) => {
    // It is reset when the client leaves.
    stream.on("error", () => {});
    stream.respond({});
    stream.write(`${headers[":method"]} ${headers[":protocol"]} ${headers[":path"]} `);
    stream.on("data", (bytes: Buffer) => stream.write(bytes.toString().toUpperCase()));
  };
  const client = await RawClient.connect(proxy.port("main"));
  client.send(
    "GET /two HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello",
  );
  await client.untilText("HELLO");
  expect(client.text).toMatch(/^HTTP\/1.1 101 /);
  expect(client.text).toContain("CONNECT websocket /two HELLO");
  client.destroy();
});

test("an upstream that says goodbye gets no new streams, and none is lost", async () => {
  answer2 = (stream, headers) => {
    if (headers[":path"] === "/two/bye") stream.session?.goaway(0, stream.id);
    stream.respond({});
    stream.end("ok");
  };
  const before = sessions.length;
  for (let k = 0; k < 20; k++) {
    const path = k === 5 ? "/two/bye" : "/two/ok";
    expect(await ask({ ":path": path })).toMatchObject({ status: 200, body: "ok" });
  }
  expect(sessions.length - before).toBeLessThanOrEqual(2);
});

test("a client that only opens and resets streams is shown the door, and others are served", async () => {
  answer1 = (request, response) => {
    if (request.url === "/fine") response.end("fine");
  };
  const hasty = http2.connect(`http://127.0.0.1:${proxy.port("main")}`);
  const closed = deferred();
  hasty.on("error", () => {});
  hasty.on("close", () => closed.resolve());
  let opened = 0;
  while (!hasty.closed && !hasty.destroyed && opened < 2000) {
    const stream = hasty.request({ ":path": "/hang", ":authority": "h.test" });
    stream.on("error", () => {});
    stream.close(http2.constants.NGHTTP2_CANCEL);
    opened++;
    if (opened % 20 === 0) await new Promise((done) => setImmediate(done));
  }
  await closed.promise;
  expect((await ask({ ":path": "/fine" })).body).toBe("fine");
});

test("a drained listener's clients are asked to leave with GOAWAY", async () => {
  answer1 = (_, response) => response.end("ok");
  const other = http2.connect(`http://127.0.0.1:${proxy.port("main")}`);
  await new Promise((done) => other.once("remoteSettings", done));
  const goaway = new Promise((done) => other.once("goaway", (code, last) => done([code, last])));
  await proxy.stop();
  expect((await goaway) as unknown).toEqual([0, 2 ** 31 - 1]);
  other.destroy();
});

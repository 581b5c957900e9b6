import { HeaderMap, ResponseHeaders } from "@tsproxy/sdk";
import { chunkings, TestContext, TestStream } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import grpcWeb from "./filter.ts";

const FRAME = "\x00\x00\x00\x00\x05hello";
const base64 = (text: string) => Buffer.from(text, "latin1").toString("base64");

function call(type: string, headers: Record<string, string> = {}) {
  const cx = new TestContext();
  const stream = new TestStream(cx, cx.setup(grpcWeb, {}));
  return stream.requestHeaders("POST", "/s/M", { "content-type": type, ...headers }, false);
}

function trailers(...lines: string[]) {
  const map = new HeaderMap();
  for (let k = 0; k < lines.length; k += 2) map.append(lines[k]!, lines[k + 1]!);
  return map;
}

it("makes a gRPC request of a binary one, and a last frame of the trailers", () => {
  const stream = call("application/grpc-web", { "content-length": "10" }).requestBody(FRAME);
  expect(stream.upstream.header("content-type")).toBe("application/grpc");
  expect(stream.upstream.header("te")).toBe("trailers");
  expect(stream.upstream.header("content-length")).toBeUndefined();
  expect(stream.upstream.body).toBe(FRAME);
  stream.responseHeaders(200, { "content-type": "application/grpc" }, false);
  stream.responseBody(FRAME, false).responseTrailers(trailers("grpc-status", "0", "x-a", "b"));
  expect(stream.downstream.header("content-type")).toBe("application/grpc-web+proto");
  expect(stream.downstream.body).toBe(`${FRAME}\x80\x00\x00\x00\x16grpc-status:0\r\nx-a:b\r\n`);
  expect(stream.downstream.trailers).toBeUndefined();
  expect(stream.downstream.ended).toBe(true);
});

it("decodes text however it was cut, and encodes each frame of the answer by itself", () => {
  for (const chunks of chunkings(base64(FRAME + FRAME))) {
    const stream = call("application/grpc-web-text", { accept: "application/grpc-web-text" });
    for (const [k, chunk] of chunks.entries()) stream.requestBody(chunk, k === chunks.length - 1);
    expect(stream.upstream.body).toBe(FRAME + FRAME);
    stream.responseHeaders(200, { "content-type": "application/grpc" }, false);
    for (const piece of [FRAME.slice(0, 3), FRAME.slice(3) + FRAME.slice(0, 7), FRAME.slice(7)])
      stream.responseBody(piece, false);
    stream.responseTrailers(trailers("grpc-status", "0"));
    const last = base64("\x80\x00\x00\x00\x0fgrpc-status:0\r\n");
    expect(stream.downstream.body).toBe(base64(FRAME) + base64(FRAME) + last);
  }
});

it("counts calls by service, method and status, and no other paths", () => {
  const cx = new TestContext();
  const factory = cx.setup(grpcWeb, {});
  const ask = (path: string, status: string) => {
    const stream = new TestStream(cx, factory);
    stream.info.clusterName = "up";
    stream.info.cluster = { observabilityName: "up" };
    stream.requestHeaders("POST", path, { "content-type": "application/grpc-web" }, false);
    stream.requestBody(FRAME).responseHeaders(200, { "content-type": "application/grpc" }, false);
    stream.responseTrailers(trailers("grpc-status", status));
  };
  ask("/s/M?q", "0");
  ask("/s/M", "5");
  ask("/s/M", "none");
  ask("/elsewhere", "0");
  const long = "m".repeat(300);
  ask(`/s/${long}`, "0");
  expect(cx.stats.value(`cluster.up.grpc-web.s.${long}.total`)).toBe(0);
  const stat = (name: string) => cx.stats.value(`cluster.up.grpc-web.s.M.${name}`);
  expect(["0", "5", "success", "failure", "total"].map(stat)).toEqual([1, 1, 1, 1, 2]);
});

it("refuses what is no base64", () => {
  expect(call("application/grpc-web-text").requestBody("!!!!").reply?.status).toBe(400);
  expect(call("application/grpc-web-text").requestBody("!!!!!").reply?.details).toBe(
    "grpc_base_64_decode_failed",
  );
  expect(call("application/grpc-web-text").requestBody("AAAAA").reply?.details).toBe(
    "grpc_base_64_decode_failed_bad_size",
  );
});

it("makes a gRPC status of an answer that is no gRPC", () => {
  const stream = call("application/grpc-web").requestBody(FRAME);
  stream.responseHeaders(503, { "content-type": "text/plain", "content-length": "6" }, false);
  stream.responseBody("o%ops!");
  expect(stream.downstream.headers).toContainEqual(["grpc-status", "14"]);
  expect(stream.downstream.headers).toContainEqual(["grpc-message", "o%25ops!"]);
  expect(stream.downstream.headers).toContainEqual(["content-length", "0"]);
  expect(stream.downstream.body).toBe("");
});

it("holds as much of an answer that is no gRPC as the listener buffers", () => {
  const held = call("application/grpc-web").filter.onResponseHeaders?.(
    new ResponseHeaders(),
    false,
  );
  expect(held).toMatchObject({ type: "hold", max: 0 });
});

it("leaves everybody else alone", () => {
  for (const type of ["application/grpc", "application/json", "application/grpc-web+json"]) {
    const stream = call(type).requestBody("{}");
    expect(stream.upstream.header("content-type")).toBe(type);
    stream.responseHeaders(200, {}, false).responseBody("x", false);
    stream.responseTrailers(trailers("a", "b"));
    expect(stream.downstream.trailers).toBeDefined();
  }
});

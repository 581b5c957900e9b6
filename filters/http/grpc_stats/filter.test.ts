import { HeaderMap, latin1Decode } from "@tsproxy/sdk";
import { chunkings, TestCluster, TestContext, TestStream } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import grpcStats from "./filter.ts";

const message = (size: number) =>
  latin1Decode(Uint8Array.from([0, 0, 0, size >> 8, size & 255]), 0, 5) + "m".repeat(size);

function open(config: object = { stats_for_all_methods: true }) {
  const cx = new TestContext();
  for (const name of ["g", "g/shop.Cart/Add"])
    cx.clusterMap.set(name, new TestCluster(name, cx.stats));
  const factory = cx.setup(grpcStats, { enable_upstream_stats: false, ...config });
  const call = (
    path = "/shop.Cart/Add",
    type = "application/grpc",
    cluster = "g",
    more: Record<string, string> = {},
  ) => {
    const route = { action: { type: "route", cluster } };
    const stream = new TestStream(cx, factory, { route: route as never });
    stream.requestHeaders("POST", path, { "content-type": type, ...more }, false);
    return stream;
  };
  return { call, value: (name: string) => cx.stats.value(`cluster.g.grpc.${name}`) };
}

const trailers = (status: string) => {
  const map = new HeaderMap();
  map.append("grpc-status", status);
  return map;
};

it("counts a call by its status and its messages, however they were cut", () => {
  for (const chunks of chunkings(message(3) + message(0) + message(300))) {
    const { call, value } = open();
    const stream = call();
    for (const chunk of chunks) stream.requestBody(chunk, false);
    stream.responseHeaders(200, { "content-type": "application/grpc" }, false);
    stream.responseBody(message(2), false);
    stream.responseTrailers(trailers("5"));
    expect(value("shop.Cart.Add.request_message_count")).toBe(3);
    expect(value("shop.Cart.Add.response_message_count")).toBe(1);
    expect(value("shop.Cart.Add.5")).toBe(1);
    expect(value("shop.Cart.Add.failure")).toBe(1);
    expect(value("shop.Cart.Add.total")).toBe(1);
  }
});

it("counts messages of a response with 200 alone, up to the envelope that ends a Connect stream", () => {
  const { call, value } = open();
  const grpc = { "content-type": "application/grpc" };
  const last = `\x02${message(1).slice(1)}`;
  const stream = call();
  stream.requestBody(last + message(1), true);
  stream.responseHeaders(200, grpc, false);
  stream.responseBody(message(2) + last, false);
  stream.responseBody(message(3), false);
  stream.responseTrailers(trailers("0"));
  expect(value("shop.Cart.Add.request_message_count")).toBe(2);
  expect(value("shop.Cart.Add.response_message_count")).toBe(1);

  const refused = call();
  refused.responseHeaders(429, grpc, false);
  refused.responseBody(message(2), true);
  expect(value("shop.Cart.Add.response_message_count")).toBe(1);
});

it("counts the messages of a Connect stream whatever the response is, and not its status", () => {
  const { call, value } = open();
  const stream = call("/shop.Cart/Add", "application/connect+proto");
  stream.requestBody(message(1) + message(2), true);
  stream.responseHeaders(500, { "content-type": "text/plain" }, false);
  stream.responseBody(`${message(2)}\x02${message(1).slice(1)}`, false);
  stream.responseTrailers(trailers("0"));
  expect(value("shop.Cart.Add.request_message_count")).toBe(2);
  expect(value("shop.Cart.Add.response_message_count")).toBe(1);
  expect(value("shop.Cart.Add.total")).toBe(0);
});

it("counts a unary call of Connect as one with success or failure", () => {
  const { call, value } = open();
  const stream = call("/shop.Cart/Add", "application/proto", "g", {
    "connect-protocol-version": "1",
  });
  stream.requestBody(message(1), true);
  stream.responseHeaders(200, { "content-type": "application/proto" }, false);
  stream.responseTrailers(trailers("0"));
  for (const name of ["request_message_count", "success", "total"])
    expect(value(`shop.Cart.Add.${name}`)).toBe(1);
  expect(value("shop.Cart.Add.0")).toBe(0);
});

it("shows logs the messages of a gRPC response to any request", () => {
  const { call, value } = open({ stats_for_all_methods: true, emit_filter_state: true });
  const stream = call("/shop.Cart/Add", "text/plain");
  stream.requestBody(message(1), true);
  stream.responseHeaders(200, { "content-type": "application/grpc" }, false);
  stream.responseBody(message(2), true);
  expect(JSON.stringify(stream.filterState.get("envoy.filters.http.grpc_stats"))).toBe(
    '{"responseMessageCount":"1"}',
  );
  expect(value("shop.Cart.Add.response_message_count")).toBe(0);
});

it("takes the status of an answer that is a head alone", () => {
  const { call, value } = open();
  call().responseHeaders(200, { "content-type": "application/grpc", "grpc-status": "0" }, true);
  expect(value("shop.Cart.Add.success")).toBe(1);
});

it("keeps a method of one cluster apart from a cluster whose name ends as the method does", () => {
  const { call, value } = open();
  const end = { "content-type": "application/grpc", "grpc-status": "0" };
  call().responseHeaders(200, end, true);
  const long = `/shop.Cart/${"m".repeat(300)}`;
  call(long, "application/grpc", "g/shop.Cart/Add").responseHeaders(200, end, true);
  expect(value("shop.Cart.Add.total")).toBe(1);
});

it("names only the methods that the config lists", () => {
  const services = [{ name: "shop.Cart", method_names: ["Add"] }];
  const { call, value } = open({
    individual_method_stats_allowlist: { services },
    replace_dots_in_grpc_service_name: true,
  });
  for (const path of ["/shop.Cart/Add?x=1", "/shop.Cart/Remove", "/odd"]) {
    call(path).responseHeaders(200, { "grpc-status": "0" }, true);
  }
  expect(value("shop.Cart.Add.total")).toBe(1);
  expect(value("total")).toBe(1);
});

it("leaves alone what is not gRPC", () => {
  const { call, value } = open();
  call("/shop.Cart/Add", "application/grpc-web").responseHeaders(200, { "grpc-status": "0" }, true);
  expect(value("shop.Cart.Add.total")).toBe(0);
});

it("counts nothing for a path that names no method", () => {
  const { call, value } = open();
  for (const path of ["/shop.Cart", "/a/b/c", "/shop.Cart/"]) {
    const stream = call(path);
    stream.responseHeaders(200, { "content-type": "application/grpc" }, false);
    stream.responseTrailers(trailers("0"));
  }
  expect(value("total")).toBe(0);
});

it("writes dots of services as underscores where every method is counted by itself", () => {
  const { call, value } = open({
    stats_for_all_methods: true,
    replace_dots_in_grpc_service_name: true,
  });
  call("/shop.Cart/Add").responseHeaders(200, { "grpc-status": "0" }, true);
  expect(value("shop_Cart.Add.total")).toBe(1);
});

it("leaves a call's messages where logs find them, once there is one", () => {
  const { call } = open({ emit_filter_state: true });
  const key = "envoy.filters.http.grpc_stats";
  const stream = call();
  expect(stream.filterState.get(key)).toBeUndefined();
  stream.requestBody(message(3) + message(0), false);
  const counts = stream.filterState.get(key);
  expect([JSON.stringify(counts), String(counts)]).toEqual(['{"requestMessageCount":"2"}', "2,0"]);
  stream.responseHeaders(200, { "content-type": "application/grpc" }, false);
  stream.responseBody(message(2), false);
  expect(String(counts)).toBe("2,1");
  expect(call("/a/b", "text/plain").filterState.size).toBe(0);
});

it("counts a method with a very long name without it", () => {
  const { call, value } = open();
  const method = "m".repeat(300);
  call(`/shop.Cart/${method}`).responseHeaders(200, { "grpc-status": "0" }, true);
  expect(value(`shop.Cart.${method}.total`)).toBe(0);
  expect(value("total")).toBe(1);
});

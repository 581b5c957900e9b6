import { describe, expect, it } from "vitest";
import { RequestHeaders, ResponseHeaders } from "../headers.ts";
import { TestContext } from "../testing/index.ts";
import { compileCel } from "./compile.ts";
import { celCondition } from "./condition.ts";
import { celJson, celText } from "./print.ts";

const cx = new TestContext();
const request = new RequestHeaders();
request.method = "GET";
request.path = "/x/y?q=1&r=2";
request.authority = "h.test";
request.append("x-a", "one");
request.append("x-two", "1");
request.append("x-two", "2");
const response = new ResponseHeaders();
response.status = 404;
const address = (port: number) => ({ ip: "127.0.0.1", port });
const source = {
  info: {
    responseCode: 404,
    flags: ["NR", "DPE"],
    responseCodeDetails: "route_not_found",
    bytesReceived: 5,
    attempts: 0,
    routeName: "rt",
    virtualHostName: "all",
    downstreamRemoteAddress: address(4711),
    downstreamLocalAddress: address(80),
  },
  request,
  response,
  metadata: new Map([["ns", { k: "v", n: 5, l: ["x"], d: { e: "deep" } }]]),
  routeMetadata: { rns: { k: "rv" } },
};
const program = (text: unknown) => compileCel(text, (pattern) => cx.regex(pattern));
const print = (text: string) => celText(program(text)(source)) ?? "-";

// What Envoy 1.40 prints for the same; `-` is an error.
describe("an expression comes to what Envoy makes of it", () => {
  it.each([
    ["1 + 2 * 3 - 1", "6"],
    ["7 / 2", "3"],
    ["-7 / 2", "-3"],
    ["-7 % 3", "-1"],
    ["7.0 / 2.0", "3.5"],
    ["1.0", "1"],
    ["1e21", "1e+21"],
    ["0.1 + 0.2", "0.3"],
    ["1234567.0", "1.23457e+06"],
    ["0.00001", "1e-05"],
    ["1 / 0", "-"],
    ["1.0 / 0.0", "inf"],
    ["9223372036854775807 + 1", "-"],
    ["-9223372036854775808", "-9223372036854775808"],
    ["1u + 2u", "3"],
    ["1u - 2u", "-"],
    ["1 + 1u", "-"],
    ["0x10", "16"],
    ["1 == 1.0 && 1 == 1u", "true"],
    ["'a' == 1", "false"],
    ["2 > 1.5", "true"],
    ["'b' > 'a'", "true"],
    ["'a' > 1", "-"],
    ["null", "NULL"],
    ["'a' + 'b'", "-"],
    ["[1] + [2]", "-"],
    ["'q\\\"s'", 'q"s'],
    ["r'a\\b'", "a\\b"],
    ["'\\u00e9' == 'é'", "true"],
    ["'''a'b'''", "a'b"],
    ["size('é') + size(b'é')", "3"],
    ["b'ab'", "ab"],
    ["b'\\x61\\142' == b'ab'", "true"],
    ["[1, 2, 'x']", "CelList value"],
    ["[1, 2][1]", "2"],
    ["[1, 2][5]", "-"],
    ["[null][0] == null && {'a': null}.a == null", "true"],
    ["{'a': 1}.a + {'a': 1}['a']", "2"],
    ["{'a': 1}['b']", "-"],
    ["1 in [1.0, 2] && 'a' in {'a': 1}", "true"],
    ["{'a': [1]} == {'a': [1.0]}", "true"],
    ["true || 1/0 == 1", "true"],
    ["1/0 == 1 || true", "true"],
    ["1/0 == 1 && false", "false"],
    ["1/0 == 1 && true", "-"],
    ["true ? 'yes' : 'no'", "yes"],
    ["1 ? 2 : 3", "-"],
    ["!true", "false"],
    ["'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c')", "true"],
    ["'xabcx'.matches('a.c') && !matches('abc', '^b')", "true"],
    ["'abc'.matches(request.method + '')", "-"],
    ["'xGETx'.matches(request.method)", "true"],
    ["int('12') + int(3.9)", "15"],
    ["int('x')", "-"],
    ["uint(5)", "5"],
    ["uint(-5)", "-"],
    ["double('1.5')", "1.5"],
    ["bool('true')", "true"],
    ["type(1) == int", "true"],
    ["type(1)", "CelType value"],
    ["timestamp('2024-01-02T03:04:05Z') + duration('10s')", "2024-01-02T03:04:15+00:00"],
    ["timestamp('2024-01-02T03:04:05Z') - timestamp('2024-01-02T03:04:00Z')", "5s"],
    ["timestamp('2024-01-02T03:04:05Z').getHours('+02:00')", "5"],
    ["timestamp('2024-01-02T03:04:05Z').getMonth()", "0"],
    ["timestamp('2024-01-02T03:04:05Z').getDate()", "2"],
    ["timestamp('2024-01-02T03:04:05Z').getDayOfMonth()", "1"],
    ["timestamp('2024-01-02T03:04:05Z').getDayOfYear()", "1"],
    ["timestamp('2024-13-02')", "-"],
    ["duration('90s')", "1m30s"],
    ["duration('1.5s') + duration('1s')", "2.5s"],
    ["duration('174.799us')", "174.799us"],
    ["duration('90s').getMinutes()", "1"],
    ["duration('ever')", "-"],
    ["request.path", "/x/y?q=1&r=2"],
    ["request.url_path", "/x/y"],
    ["request.query", "q=1&r=2"],
    ["request.headers['X-A']", "one"],
    ["request.headers['x-two']", "1,2"],
    ["request.headers['x-none']", "-"],
    ["'x-none' in request.headers", "false"],
    ["request.headers[':authority']", "h.test"],
    ["request.nope", "-"],
    ["has(request.nope) || has(request.referer)", "false"],
    ["has(request.path)", "true"],
    ["nothing", "-"],
    ["request", "CelMap value"],
    ["response.code >= 400 && response.flags == 256 + 262144", "true"],
    ["response.grpc_status", "12"],
    ["connection.mtls", "false"],
    ["connection.requested_server_name", ""],
    ["connection.tls_version", "-"],
    ["source.address", "127.0.0.1:4711"],
    ["destination.port", "80"],
    ["upstream.address", "-"],
    ["upstream.request_attempt_count", "0"],
    ["metadata.filter_metadata['ns']['n'] == 5", "true"],
    ["metadata.filter_metadata['ns']['n'] + 1", "-"],
    ["metadata.filter_metadata['ns']['l'][0]", "x"],
    ["metadata.filter_metadata.ns.d.e", "deep"],
    ["metadata.filter_metadata['none']", "-"],
    ["xds.route_name", "rt"],
    ["xds.route_metadata.filter_metadata['rns']['k']", "rv"],
    [
      "xds.route_metadata",
      'filter_metadata { key: "rns" value { fields { key: "k" value { string_value: "rv" } } } } ',
    ],
  ])("%s", (text, expected) => {
    expect(print(text)).toBe(expected);
  });

  it("keeps its type in JSON", () => {
    const json = (text: string) => celJson(program(text)(source));
    expect(json("{'b': [1, null, b'ab'], 'a': duration('90s')}")).toEqual({
      a: "90s",
      b: [1, null, "YWI="],
    });
    expect(json("1/0")).toBeUndefined();
  });
});

describe("a config is refused for", () => {
  it.each([
    ["1 +", "ends too early"],
    ["a b", '"b" at 3 is not expected'],
    ["'abc", "the text at 1 has no end"],
    ["'\\q'", "an escape that CEL does not know"],
    ["#", '"#" at 1 is not expected'],
    ["string(5)", "no function string of 1"],
    ["'a'.upperAscii()", "no function upperAscii"],
    ["'a'.size('b')", "no function size of 2"],
    ["[1].all(x, x > 0)", "all() is a comprehension"],
    ["has(1)", "has() takes one field"],
    ["99999999999999999999", "does not fit 64 bits"],
    ["'a'.matches('(')", "Invalid"],
    ["(".repeat(300), "nested more than 250 deep"],
    ["!".repeat(300), "nested more than 250 deep"],
    [`1${"+1".repeat(300)}`, "more than 250 operators in a row"],
    [`a${".b".repeat(300)}`, "nested more than 250 deep"],
  ])("%s", (text, message) => {
    expect(() => celCondition(text, "at.here", cx)).toThrow(message);
  });
});

it("takes expressions that are parsed already, in either spelling", () => {
  const path = { select_expr: { operand: { ident_expr: { name: "request" } }, field: "method" } };
  const text = { constExpr: { stringValue: "GET" } };
  const args = [path, text];
  expect(program({ call_expr: { function: "_==_", args } })(source)).toBe(true);
  const target = { const_expr: { bytes_value: "YWI=" } };
  expect(program({ call_expr: { function: "size", args: [target] } })(source)).toBe(2n);
  for (const wrong of [
    undefined,
    5,
    {},
    { call_expr: null },
    { ident_expr: {} },
    { call_expr: { args } },
  ])
    expect(() => program(wrong)).toThrow(TypeError);
});

it("never throws anything but what is wrong with an expression, and never while it runs", () => {
  const words = [
    "request",
    ".path",
    "[",
    "]",
    "(",
    ")",
    "'a'",
    "1",
    "1.5",
    "2u",
    "b'x'",
    "+",
    "-",
    "*",
    "/",
    "%",
    "&&",
    "||",
    "!",
    "?",
    ":",
    "==",
    "<",
    "in",
    "{",
    "}",
    ",",
    "has",
    "size",
    "null",
    "true",
    "duration('1s')",
    ".matches('a')",
    "[0]",
    "\\",
    '"',
    "r'",
  ];
  let seed = 7;
  const random = (n: number) => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % n;
  };
  for (let round = 0; round < 5000; round++) {
    const text = Array.from({ length: 1 + random(12) }, () => words[random(words.length)]).join(
      " ",
    );
    let made: ReturnType<typeof program>;
    try {
      made = program(text);
    } catch (error) {
      expect(error, text).toBeInstanceOf(TypeError);
      continue;
    }
    const value = made(source);
    celText(value);
    celJson(value);
  }
});

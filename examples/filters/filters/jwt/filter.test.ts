import { createSign, generateKeyPairSync } from "node:crypto";
import { TestContext, TestStream } from "@tsproxy/sdk/testing";
import { beforeEach, expect, test } from "vitest";
import jwt from "./filter.ts";

const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const jwks = { keys: [{ ...publicKey.export({ format: "jwk" }), kid: "one" }] };
const config = { prefix: "/private", keys: "keys:/jwks.json", issuer: "me" };

function token(claims: object, { kid = "one", alg = "RS256" } = {}): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const data = `${part({ alg, kid })}.${part({ iss: "me", exp: 2e9, ...claims })}`;
  return `${data}.${createSign("sha256").update(data).sign(privateKey, "base64url")}`;
}

let cx: TestContext;
let factory: ReturnType<typeof jwt.setup>;
let fetches = 0;
beforeEach(() => {
  cx = new TestContext();
  fetches = 0;
  // The issuer's keys, in the place of a cluster.
  cx.fetch = async () => {
    fetches++;
    return { ok: true, status: 200, json: async () => jwks } as never;
  };
  factory = cx.setup(jwt, config);
});

async function ask(authorization: string | undefined, path = "/private/x") {
  const stream = new TestStream(cx, factory);
  const headers = { "x-user": "root", ...(authorization && { authorization }) };
  stream.requestHeaders("GET", path, headers);
  for (let k = 0; k < 20 && stream.waiting; k++) await new Promise((r) => setTimeout(r, 5));
  return stream;
}

test("a good token passes, and the upstream hears whose it is", async () => {
  const stream = await ask(`Bearer ${token({ sub: "ada" })}`);
  expect(stream.upstream.header("x-user")).toBe("ada");
  await ask(`Bearer ${token({ sub: "bob" })}`);
  expect(fetches).toBe(1);
});

test.each([
  ["no token", undefined],
  ["no token", "Basic abc"],
  ["too old", `Bearer ${token({ exp: 1 })}`],
  ["too early", `Bearer ${token({ nbf: 3e9 })}`],
  ["of another issuer", `Bearer ${token({ iss: "you" })}`],
  ["signed by nobody we know", `Bearer ${token({}, { kid: "two" })}`],
  ["not signed as we want it", `Bearer ${token({}, { alg: "none" })}`],
  ["a wrong signature", `Bearer ${token({}).slice(0, -4)}AAAA`],
])("refuses %s", async (reason, authorization) => {
  const { reply } = await ask(authorization);
  expect(reply).toMatchObject({ status: 401, body: `${reason}\n` });
});

test("nobody names a user by a header of their own, and other paths need no token", async () => {
  const stream = await ask(undefined, "/public");
  expect(stream.reply).toBeUndefined();
  expect(stream.upstream.header("x-user")).toBeUndefined();
});

test("answers 503 while there are no keys", async () => {
  cx.fetch = async () => Promise.reject(new Error("no host"));
  const { reply } = await ask(`Bearer ${token({})}`);
  expect(reply).toMatchObject({ status: 503 });
});

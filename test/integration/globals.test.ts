import { generateKeyPairSync, webcrypto } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { get } from "./client.ts";
import { bootstrap, direct, http, listener } from "./config.ts";
import { outcome, PROBES, type Probe, randomInputs, randomNumbers } from "./globals-probes.ts";
import { Proxy } from "./proxy.ts";

// What isolates have beside ECMAScript, as filters get it in both placements: the answers to random inputs are those of Node.

const COUNT = 1000;

/** Answers a body `{ probe, inputs }` with the outcome of each input; the functions are the test's own, as text. */
const source = (name: string): string => `
import { defineHttpFilter, done, hold, reply, Type } from "@tsproxy/sdk";
const outcome = ${outcome};
const probes = {
  ${Object.entries(PROBES)
    .map(([probe, run]) => (/^\w+\(/.test(`${run}`) ? `${run}` : `${probe}: ${run}`))
    .join(",\n")}
};
const crypt = ${crypt};
export default defineHttpFilter({
  name: "${name}",
  config: Type.Object({}),
  setup: () => () => ({
    onRequestHeaders: () => hold({ body: "buffer", max: 1_000_000 }),
    async onRequestBody(chunk) {
      const { probe, inputs } = JSON.parse(chunk.text());
      const run = probes[probe];
      const answers = run !== undefined ? inputs.map((input) => outcome(() => run(input))) : await Promise.all(inputs.map(crypt));
      return reply(200, { body: JSON.stringify(answers) });
    },
  }),
});
`;

interface Question {
  readonly hash: string;
  readonly key: number[];
  readonly data: number[];
  readonly jwk: { readonly ec: object; readonly rsa: object };
  readonly ec: number[];
  readonly rsa: number[];
}

/** What each of the algorithms comes to: bytes, and whether signatures are right, of the data and of other data. */
async function crypt({ hash, key, data, jwk, ec, rsa }: Question): Promise<unknown> {
  const { subtle } = crypto;
  const bytes = new Uint8Array(data);
  const other = new Uint8Array([...data, 1]);
  const list = (buffer: ArrayBuffer) => [...new Uint8Array(buffer)];
  const hmac = { name: "HMAC", hash };
  const raw = new Uint8Array(key);
  const secret = await subtle.importKey("raw", raw, hmac, false, ["sign", "verify"]);
  const mac = await subtle.sign("HMAC", secret, bytes);
  const ecdsa = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const pkcs1 = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
  const ecKey = await subtle.importKey("jwk", jwk.ec, ecdsa, false, ["verify"]);
  const rsaKey = await subtle.importKey("jwk", jwk.rsa, pkcs1, false, ["verify"]);
  const [ecSign, rsaSign] = [new Uint8Array(ec), new Uint8Array(rsa)];
  return [
    list(await subtle.digest(hash, bytes)),
    list(mac),
    await subtle.verify("HMAC", secret, mac, bytes),
    await subtle.verify("HMAC", secret, mac, other),
    await subtle.verify(ecdsa, ecKey, ecSign, bytes),
    await subtle.verify(ecdsa, ecKey, ecSign, other),
    await subtle.verify(pkcs1, rsaKey, rsaSign, bytes),
    await subtle.verify(pkcs1, rsaKey, rsaSign, other),
  ];
}

/** Random data with signatures by keys of Node. */
async function questions(count: number): Promise<Question[]> {
  const random = randomNumbers(7);
  const bytes = (most: number) =>
    Array.from({ length: 1 + Math.floor(random() * most) }, () => Math.floor(random() * 256));
  const { subtle } = webcrypto;
  const ecdsa = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const pkcs1 = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
  const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const pkcs8 = (pair: typeof ec) => pair.privateKey.export({ format: "der", type: "pkcs8" });
  const ecKey = await subtle.importKey("pkcs8", pkcs8(ec), ecdsa, false, ["sign"]);
  const rsaKey = await subtle.importKey("pkcs8", pkcs8(rsa), pkcs1, false, ["sign"]);
  const jwk = {
    ec: ec.publicKey.export({ format: "jwk" }),
    rsa: rsa.publicKey.export({ format: "jwk" }),
  };
  const made: Question[] = [];
  for (let k = 0; k < count; k++) {
    const data = bytes(400);
    const signed = async (algorithm: object, key: webcrypto.CryptoKey) => [
      ...new Uint8Array(await subtle.sign(algorithm as never, key, new Uint8Array(data))),
    ];
    made.push({
      hash: ["SHA-1", "SHA-256", "SHA-384", "SHA-512"][k % 4]!,
      key: bytes(200),
      data,
      jwk,
      ec: await signed(ecdsa, ecKey),
      rsa: await signed(pkcs1, rsaKey),
    });
  }
  return made;
}

let proxy: Proxy;
beforeAll(async () => {
  const chain = (name: string) => {
    const manager = http([direct("/", "")], {}, [{ name, config: {} }]);
    return listener(name, manager, { per_connection_buffer_limit_bytes: 1_000_000 });
  };
  proxy = await Proxy.start({
    config: bootstrap([chain("apart"), chain("beside")]),
    files: { "filters/apart.ts": source("apart"), "filters/beside.ts": source("beside") },
    args: ["--trust", "beside"],
  });
});
afterAll(() => proxy?.stop());

describe.each(["apart", "beside"])("in a filter that runs %s", (place) => {
  const ask = async (probe: string, inputs: readonly unknown[]): Promise<unknown[]> => {
    const body = JSON.stringify({ probe, inputs });
    const { status, text } = await get(proxy.port(place), "/", { method: "POST", body });
    expect(status, text).toBe(200);
    return JSON.parse(text);
  };

  it.each(Object.keys(PROBES) as Probe[])("%s answers as in Node", async (probe) => {
    const run = PROBES[probe] as (input: unknown) => unknown;
    const inputs = randomInputs(probe, COUNT);
    const found: unknown[] = [];
    // In parts, so that none takes as long as an entry may.
    for (let k = 0; k < COUNT; k += 100)
      found.push(...(await ask(probe, inputs.slice(k, k + 100))));
    const differences = inputs.flatMap((input, k) => {
      const node = outcome(() => run(input));
      return node === found[k] ? [] : [{ input, node, found: found[k] }];
    });
    expect(differences).toEqual([]);
    expect(found).toHaveLength(COUNT);
  });

  it("crypto answers as in Node", async () => {
    const asked = await questions(100);
    const found: unknown[] = [];
    for (let k = 0; k < asked.length; k += 10)
      found.push(...(await ask("crypto", asked.slice(k, k + 10))));
    expect(found).toEqual(await Promise.all(asked.map(crypt)));
  });
});

import { expect, test } from "vitest";
import { get } from "./client.ts";
import { bootstrap, http, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";

const BYTES = Buffer.from([0xff, 0x00, 0x80, 0x0a, 0xc3]);
const inline_bytes = BYTES.toString("base64");

const withBody = (body: object, more: object = {}) =>
  bootstrap([
    listener(
      "main",
      http([{ match: { prefix: "/" }, direct_response: { status: 200, body, ...more } }]),
    ),
  ]);

test("the body of a direct response may be any bytes, as its length says", async () => {
  const proxy = await Proxy.start({ config: withBody({ inline_bytes }) });
  try {
    const { body, headers } = await get(proxy.port("main"), "/");
    expect([body, headers["content-length"]]).toEqual([BYTES, "5"]);
  } finally {
    await proxy.stop();
  }
});

test("bytes that are not UTF-8 are refused where a format would put them into text", async () => {
  const body_format = { text_format_source: { inline_string: "%LOCAL_REPLY_BODY%" } };
  await expect(
    Proxy.start({ config: withBody({ inline_bytes }, { body_format }) }),
  ).rejects.toThrow(/direct_response\.body: is not UTF-8; with body_format only text works here/);
});

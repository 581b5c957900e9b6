/**
 * The messages of kv.proto, as far as they go: texts with the numbers 1 and 2.
 *
 *   service KV { rpc Get(GetRequest) returns (GetResponse); rpc Set(SetRequest) returns (SetResponse); }
 *   message GetRequest { string key = 1; }    message GetResponse { string value = 1; }
 *   message SetRequest { string key = 1; string value = 2; }    message SetResponse { bool ok = 1; }
 */
export function encodeTexts(...texts: readonly string[]): Buffer {
  const fields = texts.map((text, k) => {
    const bytes = Buffer.from(text);
    if (bytes.length > 127) throw new Error(`"${text}" is too long for this example`);
    return Buffer.concat([Buffer.from([((k + 1) << 3) | 2, bytes.length]), bytes]);
  });
  return Buffer.concat(fields);
}

export function decodeTexts(message: Buffer): string[] {
  const texts: string[] = [];
  for (let at = 0; at + 1 < message.length; at += 2 + message[at + 1]!) {
    const field = message[at]! >> 3;
    texts[field - 1] = message.toString("utf8", at + 2, at + 2 + message[at + 1]!);
  }
  return texts;
}

/** gRPC's frame around a message: a flag, four bytes of length. */
export function frame(message: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

export const unframe = (frame: Buffer): Buffer => frame.subarray(5, 5 + frame.readUInt32BE(1));

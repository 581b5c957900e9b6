import {
  ConfigError,
  type DownstreamConnection,
  defineNetworkFilter,
  type NetworkFilter,
  utf8Encode,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";

const DESCRIPTION = { describe: () => ({ responseCodeDetails: "direct_response" }) };

/** Says its one text to whoever connects, and hangs up. What the client says is dropped. */
class DirectResponse implements NetworkFilter {
  readonly #connection: DownstreamConnection;
  readonly #response: Uint8Array;

  constructor(connection: DownstreamConnection, response: Uint8Array) {
    this.#connection = connection;
    this.#response = response;
    connection.describedBy = DESCRIPTION;
  }

  onConnect(): void {
    const response = this.#response;
    if (response.length > 0) this.#connection.write(response, 0, response.length);
    this.#connection.close("flush");
  }
}

export default defineNetworkFilter({
  name: "envoy.filters.network.direct_response",
  types: ["envoy.extensions.filters.network.direct_response.v3.Config"],
  terminal: true,
  config: Config,
  setup(config) {
    const response = bytesOf(config);
    return { create: (connection) => new DirectResponse(connection, response) };
  },
});

function bytesOf(config: Config): Uint8Array {
  const { inline_string, inline_bytes } = config.response ?? {};
  if (inline_string !== undefined && inline_bytes !== undefined) {
    throw new ConfigError("response", "has inline_string and inline_bytes; keep one of the two");
  }
  if (inline_bytes === undefined) return utf8Encode(inline_string ?? "");
  const bytes = base64Decode(inline_bytes);
  if (bytes !== undefined) return bytes;
  throw new ConfigError("response.inline_bytes", `"${inline_bytes.slice(0, 40)}" is not base64`);
}

/** Both alphabets, padding optional: protobuf's JSON mapping takes either. */
function base64Decode(text: string): Uint8Array | undefined {
  const digits = text
    .replace(/={1,2}$/, "")
    .replaceAll("-", "+")
    .replaceAll("_", "/");
  if (!/^[A-Za-z0-9+/]*$/.test(digits) || digits.length % 4 === 1) return undefined;
  const bytes = new Uint8Array(Math.floor((digits.length * 3) / 4));
  let bits = 0;
  for (let k = 0, n = 0; k < digits.length; k++) {
    bits = ((bits << 6) | ALPHABET.indexOf(digits[k]!)) & 0xffffff;
    if (k % 4 !== 0) bytes[n++] = (bits >> (6 - 2 * (k % 4))) & 255;
  }
  return bytes;
}
const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

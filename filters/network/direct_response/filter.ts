import {
  base64Decode,
  ConfigError,
  type DownstreamConnection,
  defineNetworkFilter,
  type NetworkFilter,
  utf8Encode,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";

const DESCRIPTION = { describe: () => ({ responseCodeDetails: "direct_response" }) };

/** Writes its text to each client and closes the connection; what the client sends is dropped. */
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
    if (response.length > 0) {
      this.#connection.write(response, 0, response.length);
      // The end goes with the text: a close alone would be a reset, as what the client has sent is not read.
      this.#connection.end();
    }
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

// Hot path: every response head passes here after the filters.
import { HeaderLine, headerName, headerText, type ResponseHeaders } from "@tsproxy/sdk";
import type { Config } from "./config.ts";
import { appendVia } from "./request-head.ts";
import type { WallClock } from "./wall-clock.ts";

const SERVER = headerName("server");
const DATE = headerName("date");
const REQUEST_ID = headerName("x-request-id");

/** Completes response heads: date, server, via. */
export class ResponseHead {
  readonly #clock: WallClock;
  readonly #transformation: Config["server_header_transformation"];
  readonly #server: HeaderLine;
  readonly #via: string;

  constructor(config: Config, clock: WallClock) {
    this.#clock = clock;
    this.#transformation = config.server_header_transformation;
    this.#server = new HeaderLine("server", headerText(config.server_name, "server_name"));
    this.#via = headerText(config.via, "via");
  }

  /** `requestId`: the id that is returned to the client; undefined: the config does not ask for that. */
  complete(headers: ResponseHeaders, requestId: string | undefined): void {
    if (!headers.has(DATE)) headers.appendLine(this.#clock.dateLine);
    if (this.#transformation === "OVERWRITE") {
      if (headers.has(SERVER)) headers.replace(SERVER, this.#server.value);
      else headers.appendLine(this.#server);
    } else if (this.#transformation === "APPEND_IF_ABSENT" && !headers.has(SERVER)) {
      headers.appendLine(this.#server);
    }
    if (requestId !== undefined) headers.replace(REQUEST_ID, requestId);
    if (this.#via !== "") appendVia(headers, this.#via);
  }
}

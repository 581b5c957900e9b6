import {
  type HeaderMap,
  isFinalStatus,
  queryParameter,
  type RequestHeaders,
  type ResponseHeaders,
  utf8Decode,
  utf8Encode,
} from "@tsproxy/sdk";

/** What `req` and `res` have in common. Reading the body keeps the message back until it is complete. */
export class Message<H extends HeaderMap> {
  readonly headers: H;
  readonly #hasBody: boolean;
  #bytes: Uint8Array | undefined = undefined;
  #replacement: Uint8Array | undefined = undefined;
  #waiting: ((bytes: Uint8Array) => void)[] = [];
  #onWanted: (() => void) | undefined = undefined;
  #isSent = false;

  constructor(headers: H, hasBody: boolean) {
    this.headers = headers;
    this.#hasBody = hasBody;
  }

  header(name: string): string | undefined {
    return this.headers.get(name);
  }

  /** The whole body. */
  bytes(): Promise<Uint8Array> {
    if (!this.#hasBody) return Promise.resolve(EMPTY);
    if (this.#bytes !== undefined) return Promise.resolve(this.#bytes);
    if (this.#isSent) throw new Error("the body has gone on: ask for it before the hook ends");
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#onWanted?.();
    });
  }
  async text(): Promise<string> {
    const bytes = await this.bytes();
    return utf8Decode(bytes, 0, bytes.length);
  }
  async json(): Promise<unknown> {
    return JSON.parse(await this.text());
  }

  /** Replaces the body of the message. */
  set body(body: string | Uint8Array) {
    if (!this.#hasBody) throw new Error("there is no body to replace");
    if (this.#isSent) throw new Error("the body has gone on");
    this.#replacement = typeof body === "string" ? utf8Encode(body) : new Uint8Array(body);
  }

  // ---- for the filter

  /** The script has asked for the body, or has set another one. */
  get needsBody(): boolean {
    return this.#waiting.length > 0 || this.#replacement !== undefined;
  }
  get replacement(): Uint8Array | undefined {
    return this.#replacement;
  }
  set onWanted(call: () => void) {
    this.#onWanted = call;
  }
  deliver(bytes: Uint8Array): void {
    this.#bytes = bytes;
    for (const resolve of this.#waiting.splice(0)) resolve(bytes);
  }
  /** The head goes on without its body. */
  send(): void {
    this.#isSent = true;
  }
}

const EMPTY = new Uint8Array(0);

/** `req` */
export class ScriptRequest extends Message<RequestHeaders> {
  get method(): string {
    return this.headers.method;
  }
  set method(value: string) {
    this.headers.method = value;
  }
  /** With its query. */
  get path(): string {
    return this.headers.path;
  }
  set path(value: string) {
    this.headers.path = value;
  }
  get host(): string {
    return this.headers.authority ?? "";
  }
  set host(value: string) {
    this.headers.authority = value;
  }
  /** The first query parameter of that name, as it is written. */
  query(name: string): string | undefined {
    return queryParameter(this.headers.path, name);
  }
}

/** `res` */
export class ScriptResponse extends Message<ResponseHeaders> {
  get status(): number {
    return this.headers.status;
  }
  set status(value: number) {
    if (!isFinalStatus(value)) throw new RangeError(`${value} is no status of a response`);
    this.headers.status = value;
  }
}

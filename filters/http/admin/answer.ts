/** What admin answers. The body comes in pieces, made when the client takes them; those that core makes have to be awaited. */
export interface Answer {
  readonly status: number;
  readonly contentType: string;
  readonly body: Iterable<string> | AsyncIterable<string>;
  /** True: each character of the body is one byte; else it is text, sent as UTF-8. */
  readonly isBinary?: boolean;
  /** Runs once, after the answer has gone out or its client has left. */
  readonly after?: () => void;
}

const TEXT = "text/plain; charset=UTF-8";

export function text(body: string | Iterable<string>, status = 200): Answer {
  return { status, contentType: TEXT, body: typeof body === "string" ? [body] : body };
}

/** Envoy prints protobuf messages with one space a level and a newline at the end. */
export function json(value: unknown): Answer {
  return {
    status: 200,
    contentType: "application/json",
    body: [`${JSON.stringify(value, undefined, 1)}\n`],
  };
}

export function jsonPieces(body: Answer["body"]): Answer {
  return { status: 200, contentType: "application/json", body };
}

export function html(body: string): Answer {
  return { status: 200, contentType: "text/html; charset=UTF-8", body: [body] };
}

export function escapeHtml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Thrown by a handler for a request that it cannot serve. */
export class Refused extends Error {
  readonly status: number;
  readonly contentType: string;

  constructor(status: number, message: string, contentType = TEXT) {
    super(message);
    this.status = status;
    this.contentType = contentType;
  }

  get answer(): Answer {
    return { status: this.status, contentType: this.contentType, body: [this.message] };
  }
}

/** Refusals of /config_dump alone name no character set, as Envoy's. */
export function bareRefusal(status: number, message: string): Refused {
  return new Refused(status, message, "text/plain");
}

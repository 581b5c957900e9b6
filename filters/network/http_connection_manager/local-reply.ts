import {
  compileAccessLogFilter,
  compileHeaderRules,
  grpcStatusOfHttp,
  type HeaderRules,
  headerName,
  type LogEntry,
  type LogFilter,
  latin1Decode,
  type Reply,
  type RequestHeaders,
  type ResponseHeaders,
  type Route,
  type SetupContext,
  utf8Decode,
  utf8Encode,
} from "@tsproxy/sdk";
import { type BodyFormat, compileBodyFormat, withReplyBody } from "./body-format.ts";
import type { LocalReplyConfig } from "./local-reply-config.ts";

const CONTENT_TYPE = headerName("content-type");
const CONTENT_LENGTH = headerName("content-length");
const GRPC_STATUS = headerName("grpc-status");
const GRPC_MESSAGE = headerName("grpc-message");
const EMPTY = new Uint8Array(0);

/** The text encoded last: a proxy that answers by itself mostly repeats the same text. */
let lastText = "";
let lastBytes: Uint8Array = EMPTY;

/** What a local reply depends on, besides the Reply itself. */
export interface ReplyContext {
  /** The request is gRPC: its reply is a head alone, with `grpc-status` and `grpc-message`. */
  readonly grpc: boolean;
  readonly isHead: boolean;
  /** The route whose response header rules edit the reply; undefined: none. */
  readonly editedBy: Route | undefined;
  /** The stream that is answered; its `response` is the head that is being written. */
  readonly stream: LogEntry & { readonly request: RequestHeaders };
}

/** Writes the local replies of one connection manager, plainly or by `local_reply_config`. */
export class LocalReplies {
  readonly #mappers: readonly Mapper[];
  readonly #format: BodyFormat | undefined;

  constructor(config: LocalReplyConfig | undefined, path: string, cx: SetupContext) {
    this.#mappers = (config?.mappers ?? []).map((mapper, k) =>
      compileMapper(mapper, `${path}.mappers[${k}]`, cx),
    );
    this.#format = config?.body_format && compileBodyFormat(config.body_format, path);
  }

  /** Writes the reply into `head`, in Envoy's order, and returns its body. Throws on a header that HTTP cannot carry. */
  write(head: ResponseHeaders, reply: Reply, context: ReplyContext): Uint8Array {
    const { info, request } = context.stream;
    head.reset();
    head.status = reply.status;
    // Rules of a route that forwards run before the headers of the reply are added, those of other routes after.
    const { editedBy } = context;
    const forwards = editedBy?.action.type === "route";
    if (forwards) editedBy.editResponse(head, info, request, context.stream);
    for (const [name, value] of reply.headers) head.append(name, value);
    if (!forwards) editedBy?.editResponse(head, info, request, context.stream);
    if (reply.contentType !== undefined) head.set(CONTENT_TYPE, reply.contentType);
    let own: string | Uint8Array = reply.body;
    let type = "text/plain";
    const typeBefore = head.get(CONTENT_TYPE);
    const plain = reply.unedited === true;
    if (!plain && (this.#mappers.length > 0 || this.#format !== undefined)) {
      const text = textOf(own);
      const mapped = this.#rewrite(head, text, context.stream);
      if (mapped.body !== text) own = mapped.body;
      type = mapped.type;
    }
    info.responseCode = head.status;
    const retyped = own !== reply.body;
    if (context.grpc && !plain) {
      const text = textOf(own);
      // JSON formats end in a line break, which Envoy removes from `grpc-message`.
      const message = type === "application/json" ? text.replace(/\n$/, "") : text;
      writeGrpcReply(head, reply, message, context.isHead);
      return EMPTY;
    }
    // As in Envoy, no rule of the config has a say in the length.
    if (head.has(CONTENT_LENGTH)) head.remove(CONTENT_LENGTH);
    if (own.length === 0) {
      head.remove(CONTENT_TYPE);
      return EMPTY;
    }
    const body = typeof own === "string" ? encode(own) : own;
    // A content-type that a mapper has set stays; any other is replaced if the body was rewritten.
    const ownType = head.get(CONTENT_TYPE);
    const typed = ownType !== undefined && (!retyped || ownType !== typeBefore);
    head.append(CONTENT_LENGTH, String(body.length));
    if (!typed) head.replace(CONTENT_TYPE, type);
    return body;
  }

  #rewrite(
    head: ResponseHeaders,
    text: string,
    stream: ReplyContext["stream"],
  ): { readonly body: string; readonly type: string } {
    stream.info.responseCode = head.status;
    let body = text;
    let format = this.#format;
    const mapper = this.#mappers.find((each) => each.applies(stream));
    if (mapper !== undefined) {
      body = mapper.body ?? body;
      // As in Envoy, only formats of bodies know the body.
      mapper.rules?.apply(head, withReplyBody(stream, head, ""));
      if (mapper.status !== undefined) head.status = stream.info.responseCode = mapper.status;
      format = mapper.format ?? format;
    }
    if (format === undefined) return { body, type: "text/plain" };
    return { body: format.format.format(withReplyBody(stream, head, body)), type: format.type };
  }
}

interface Mapper {
  readonly applies: LogFilter;
  readonly status: number | undefined;
  readonly body: string | undefined;
  readonly rules: HeaderRules | undefined;
  readonly format: BodyFormat | undefined;
}

function compileMapper(
  config: LocalReplyConfig["mappers"][number],
  path: string,
  cx: SetupContext,
): Mapper {
  const override = config.body_format_override;
  return {
    applies: compileAccessLogFilter(config.filter, `${path}.filter`, cx),
    status: config.status_code,
    body: config.body?.text,
    rules: compileHeaderRules(
      { ...NO_RULES, response_headers_to_add: config.headers_to_add },
      "response",
      path,
    ),
    format: override && compileBodyFormat(override, `${path}.body_format_override`),
  };
}

const NO_RULES = {
  request_headers_to_add: [],
  request_headers_to_remove: [],
  response_headers_to_remove: [],
};

function writeGrpcReply(head: ResponseHeaders, reply: Reply, body: string, isHead: boolean): void {
  const status = reply.grpcStatus ?? grpcStatusOfHttp(head.status);
  head.status = 200;
  head.set(CONTENT_TYPE, "application/grpc");
  if (!head.has(GRPC_STATUS)) head.append(GRPC_STATUS, String(status));
  if (body !== "" && !isHead) head.append(GRPC_MESSAGE, percentEncode(body));
  head.remove(CONTENT_LENGTH);
}

function textOf(body: string | Uint8Array): string {
  return typeof body === "string" ? body : utf8Decode(body, 0, body.length);
}

function encode(text: string): Uint8Array {
  if (text === lastText) return lastBytes;
  lastText = text;
  lastBytes = utf8Encode(text);
  return lastBytes;
}

/** `grpc-message` (gRPC over HTTP/2, "Responses"): bytes outside 0x20-0x7e and the percent sign are escaped. */
function percentEncode(text: string): string {
  const bytes = utf8Encode(text);
  let out = "";
  for (let k = 0; k < bytes.length; k++) {
    const byte = bytes[k]!;
    out +=
      byte < 0x20 || byte > 0x7e || byte === 0x25
        ? `%${byte.toString(16).toUpperCase().padStart(2, "0")}`
        : latin1Decode(bytes, k, k + 1);
  }
  return out;
}

import { checkHeader, isFinalStatus, type Reply } from "@tsproxy/sdk";
import { ANSWER_MAX, FRAMING, PART_SIZE, REPLY } from "./layout.ts";

/** Size of a reply without its body. Throws on a reply that a sandboxed filter must not give. */
export function measureReply(reply: Reply): number {
  if (!isFinalStatus(reply.status)) {
    throw new RangeError(`${reply.status} is no status that a filter can answer with`);
  }
  let size =
    (REPLY.REST + reply.headers.length * 2 + reply.flags.length) * 4 + reply.details.length;
  if (reply.contentType !== undefined) size += reply.contentType.length;
  for (const flag of reply.flags) size += flag.length;
  for (const [name, value] of reply.headers) {
    checkHeader(name, value);
    if (FRAMING.has(name.toLowerCase())) {
      throw new TypeError(`a sandboxed filter cannot set "${name}": framing is the codec's`);
    }
    size += name.length + value.length;
  }
  if (size > ANSWER_MAX - PART_SIZE / 2)
    throw new RangeError(`a reply with ${size} bytes of headers is too large`);
  return size;
}

/** Writes the reply at byte `at` (REPLY in layout.ts), after `measureReply`. `put` writes a text and answers where it ends. */
export function writeReply(
  words: Int32Array,
  at: number,
  reply: Reply,
  put: (text: string, at: number) => number,
): void {
  let w = at >> 2;
  words[w + REPLY.HEADERS] = reply.headers.length;
  words[w + REPLY.FLAGS] = reply.flags.length;
  words[w + REPLY.DETAILS] = reply.details.length;
  words[w + REPLY.GRPC_STATUS] = reply.grpcStatus ?? -1;
  words[w + REPLY.TYPE] = reply.contentType?.length ?? -1;
  w += REPLY.REST;
  let to = (w + reply.headers.length * 2 + reply.flags.length) * 4;
  to = put(reply.details, to);
  if (reply.contentType !== undefined) to = put(reply.contentType, to);
  for (const flag of reply.flags) {
    words[w++] = flag.length;
    to = put(flag, to);
  }
  for (const [name, value] of reply.headers) {
    words[w++] = name.length;
    to = put(name.toLowerCase(), to);
    words[w++] = value.length;
    to = put(value, to);
  }
}

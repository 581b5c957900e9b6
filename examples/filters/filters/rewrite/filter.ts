import {
  type Chunk,
  ConfigError,
  defineHttpFilter,
  done,
  type HttpFilter,
  latin1Decode,
  latin1Encode,
  type ResponseHeaders,
  Type,
  utf8Encode,
} from "@tsproxy/sdk";

const Config = Type.Object({
  from: Type.String({ minLength: 1, examples: ["cat"] }),
  to: Type.String({ default: "" }),
  /** Only bodies of this type, `text/html` as well as `text/html; charset=utf-8`. */
  content_type: Type.String({ default: "text/" }),
});

/** Bytes as one char each: what is searched for may be cut by chunks, also in the middle of a letter. */
interface Words {
  readonly from: string;
  readonly to: string;
  readonly contentType: string;
}

/** Replaces a word in response bodies as they pass; only what may be the beginning of the word is kept for the next chunk. */
class Rewrite implements HttpFilter {
  readonly #words: Words;
  #kept = "";

  constructor(words: Words) {
    this.#words = words;
  }

  onResponseHeaders(headers: ResponseHeaders) {
    const isEncoded = headers.get("content-encoding") !== undefined;
    const type = headers.get("content-type") ?? "";
    if (isEncoded || !type.startsWith(this.#words.contentType)) return done;
    // The length is not known before the end.
    headers.remove("content-length");
    headers.remove("etag");
    return undefined;
  }

  onResponseBody(chunk: Chunk, endStream: boolean) {
    const { from, to } = this.#words;
    const parts = (this.#kept + latin1Decode(chunk.memory, chunk.at, chunk.end)).split(from);
    const last = parts.pop()!;
    const keep = endStream ? 0 : beginningAtEnd(last, from);
    this.#kept = last.slice(last.length - keep);
    parts.push(last.slice(0, last.length - keep));
    chunk.replace(latin1Encode(parts.join(to)));
  }
}

/** How many chars at the end of the text may be the beginning of the word. */
function beginningAtEnd(text: string, word: string): number {
  for (let n = Math.min(text.length, word.length - 1); n > 0; n--)
    if (text.endsWith(word.slice(0, n))) return n;
  return 0;
}

function bytes(text: string): string {
  const encoded = utf8Encode(text);
  return latin1Decode(encoded, 0, encoded.length);
}

export default defineHttpFilter({
  name: "rewrite",
  config: Config,
  setup({ from, to, content_type: contentType }) {
    if (from.length > 1024) throw new ConfigError("from", "is longer than 1,024 characters");
    const words = { from: bytes(from), to: bytes(to), contentType };
    return () => new Rewrite(words);
  },
});

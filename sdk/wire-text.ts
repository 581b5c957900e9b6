import { latin1Decode, utf8Encode } from "./bytes.ts";
import { ConfigError } from "./extension.ts";

/**
 * A text of the config that becomes part of a path or host: its UTF-8 bytes, one char each, as header values are kept. White
 * space and control characters would break the request line, so the config is refused.
 */
export function wireText(text: string, path: string): string {
  return encode(text, path, 32);
}

/** The same for a header value, which may have spaces. */
export function headerText(text: string, path: string): string {
  return encode(text, path, 31);
}

/** Undoes percent-encoding, one char a byte as header bytes are kept. What is no escape stays as it is. */
export function percentDecode(text: string): string {
  if (!text.includes("%")) return text;
  return text.replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

const PLAIN = /^[!-~]*$/;

function encode(text: string, path: string, refusedUpTo: number): string {
  if (PLAIN.test(text)) return text;
  const bytes = utf8Encode(text);
  for (const byte of bytes) {
    if (byte <= refusedUpTo || byte === 127) {
      const what =
        refusedUpTo === 32 ? "white space or a control character" : "a control character";
      throw new ConfigError(path, `"${text}" has ${what}`);
    }
  }
  return latin1Decode(bytes, 0, bytes.length);
}

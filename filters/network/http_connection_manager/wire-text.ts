import { ConfigError, latin1Decode, utf8Encode } from "@tsproxy/sdk";

/**
 * A text of the config that becomes part of a path, host or header: its UTF-8 bytes, one char each, as header values are kept.
 * White space and control characters would break the request line, so the config is refused.
 */
export function wireText(text: string, path: string): string {
  const bytes = utf8Encode(text);
  for (const byte of bytes) {
    if (byte <= 32 || byte === 127) {
      throw new ConfigError(path, `"${text}" has white space or a control character`);
    }
  }
  return latin1Decode(bytes, 0, bytes.length);
}

import { createHash } from "node:crypto";

/** The first 22 characters of the SHA-256 in base64url. */
export function hashOf(bytes: string | Uint8Array): string {
  return createHash("sha256").update(bytes).digest("base64url").slice(0, 22);
}

import { SOCKET_ERRORS } from "../inside/ring.ts";

/** The number that stands for a socket's error in an event. */
export function errorIndex(code: string | undefined): number {
  const at = (SOCKET_ERRORS as readonly string[]).indexOf(code ?? "EIO");
  return at < 1 ? SOCKET_ERRORS.length - 1 : at;
}

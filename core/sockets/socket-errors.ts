import { SOCKET_ERRORS } from "../inside/ring.ts";

/** The number that stands for a socket's error in an event; 0: none. */
export function errorIndex(code: string | undefined): number {
  if (code === "") return 0;
  const at = (SOCKET_ERRORS as readonly string[]).indexOf(code ?? "EIO");
  return at < 1 ? SOCKET_ERRORS.length - 1 : at;
}

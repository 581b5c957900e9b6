import type { AddressConfig } from "../protocol.ts";

/** A listening socket of the proxy. */
export interface Bound {
  readonly name: string;
  /** The address it is bound to, with the number that port 0 became. */
  readonly address: AddressConfig;
}

/** A listener whose address could not be bound. */
export interface ListenFailure {
  readonly listener: string;
  /** The one of its addresses. */
  readonly address: AddressConfig;
  /** The socket's error code (`EADDRINUSE`), or "". */
  readonly code: string;
  readonly message: string;
}

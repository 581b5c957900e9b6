import type { Chunk } from "./bytes.ts";
import type { Address } from "./network.ts";

/** A UDP socket: a listener's, or one that a package has opened. After it has closed its methods do nothing. */
export interface UdpSocket {
  readonly localAddress: Address;
  readonly open: boolean;
  /**
   * Sends one datagram: to `to`, or to the address that the socket was opened for. False: it is dropped, because too much
   * waits. The caller may reuse the memory when this returns.
   */
  send(memory: Uint8Array, at: number, end: number, to?: Address): boolean;
  close(): void;
}

/** The owner of a socket that a package has opened. */
export interface UdpHandler {
  /** One datagram. The chunk is lent. */
  onDatagram(bytes: Chunk, from: Address): void;
  /** Something that was sent has failed, with the system's name for it (`ECONNREFUSED`). The socket stays open. */
  onError(error: string): void;
}

/** What a udp package's setup returns: it hears every datagram that comes to its listener. */
export interface UdpListenerFilter {
  onDatagram(bytes: Chunk, from: Address, socket: UdpSocket): void;
}

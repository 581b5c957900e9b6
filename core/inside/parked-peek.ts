import {
  type AcceptedSocket,
  type Address,
  type Chunk,
  type ListenerAnswer,
  type ListenerFilter,
  type ListenerFilterFactory,
  parseIp,
} from "@tsproxy/sdk";
import { ascii } from "./ascii.ts";
import type { ParkedUse, ParkTable } from "./parked.ts";
import { ParkedAsk } from "./parked-ask.ts";

/** Makes the factory for a dropped-in listener package: each connection waits for the package's verdict on its first bytes. */
export function parkedListenerFactory(parked: ParkedUse, table: ParkTable): ListenerFilterFactory {
  return (socket) => new ParkedPeek(parked, table, socket);
}

/** The untrusted JSON that a sandboxed listener filter answers with. */
interface ToldAnswer {
  readonly answer?: unknown;
  readonly set?: Readonly<Record<string, unknown>>;
  readonly metadata?: unknown;
}

/** The listener's half of one filter on one accepted connection. */
class ParkedPeek implements ListenerFilter {
  readonly #socket: AcceptedSocket;
  readonly #ask: ParkedAsk;
  /** The sandbox has the connection's addresses and names. */
  #told = false;
  /** Number of bytes that the filter was shown last. */
  #seen = 0;
  #resolve: ((answer: ListenerAnswer) => void) | undefined = undefined;

  constructor(parked: ParkedUse, table: ParkTable, socket: AcceptedSocket) {
    this.#socket = socket;
    this.#ask = new ParkedAsk(parked, table, (text, skip) => this.#onAnswer(text, skip));
  }

  onBytes(bytes: Chunk): Promise<ListenerAnswer> {
    this.#seen = bytes.length;
    let text = "{}";
    if (!this.#told) {
      const { remoteAddress, localAddress, transportProtocol, serverName, applicationProtocols } =
        this.#socket;
      const names = { transportProtocol, serverName, applicationProtocols };
      text = ascii(JSON.stringify({ remoteAddress, localAddress, ...names }));
      this.#told = true;
    }
    return new Promise((resolve) => {
      this.#resolve = resolve;
      this.#ask.ask(text, bytes.memory.subarray(bytes.at, bytes.end));
    });
  }

  onAbandoned(): void {
    this.#resolve = undefined;
    this.#ask.release();
  }

  #onAnswer(text: string | undefined, skip: boolean): void {
    const answer = text === undefined ? (skip ? 0 : "close") : this.#read(text);
    if (answer !== "more") this.#ask.release();
    const resolve = this.#resolve;
    this.#resolve = undefined;
    resolve?.(answer);
  }

  #read(text: string): ListenerAnswer {
    try {
      const told = JSON.parse(text) as ToldAnswer;
      const { answer } = told;
      const isCount =
        Number.isInteger(answer) && (answer as number) >= 0 && (answer as number) <= this.#seen;
      if ((isCount || answer === "more" || answer === "close") && this.#take(told))
        return answer as ListenerAnswer;
    } catch {
      // Not JSON: reported below.
    }
    this.#ask.malformed("what a listener filter cannot answer");
    return "close";
  }

  /** Applies what the filter has set on its connection. False: it is malformed. */
  #take({ set = {}, metadata = [] }: ToldAnswer): boolean {
    if (!Object.entries(set).every(([name, value]) => SETTABLE[name]?.(value) === true))
      return false;
    if (!Array.isArray(metadata) || metadata.length > VALUES_MAX) return false;
    if (!metadata.every((entry) => Array.isArray(entry) && isText(entry[0]) && isRecord(entry[1])))
      return false;
    Object.assign(this.#socket, set);
    for (const [namespace, values] of metadata as [string, Record<string, unknown>][])
      this.#socket.setMetadata?.(namespace, values);
    return true;
  }
}

const TEXT_MAX = 255; // the longest domain name (RFC 1035 §2.3.4)
const VALUES_MAX = 64;
const isText = (value: unknown): value is string =>
  typeof value === "string" && value.length <= TEXT_MAX;
const isRecord = (value: unknown): boolean =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const isAddress = (value: unknown): boolean => {
  const { ip, port, ...more } = (value ?? {}) as Partial<Address>;
  if (typeof ip !== "string" || parseIp(ip) === undefined) return false;
  return Number.isInteger(port) && port! >= 0 && port! <= 0xffff && Object.keys(more).length === 0;
};

const SETTABLE: Readonly<Record<string, (value: unknown) => boolean>> = {
  remoteAddress: isAddress,
  localAddress: isAddress,
  transportProtocol: isText,
  serverName: isText,
  applicationProtocols: (value) =>
    Array.isArray(value) && value.length <= VALUES_MAX && value.every(isText),
};

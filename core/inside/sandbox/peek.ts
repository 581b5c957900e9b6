import {
  type AcceptedSocket,
  type Address,
  type Chunk,
  type ListenerAnswer,
  type ListenerFilter,
  type ListenerFilterFactory,
  NoVerdict,
} from "@tsproxy/sdk";
import type { Asked } from "./asks.ts";

type Told = Pick<
  AcceptedSocket,
  "remoteAddress" | "localAddress" | "transportProtocol" | "serverName" | "applicationProtocols"
>;

/** One connection whose first bytes a sandboxed listener filter looks at. */
export class Peeked implements Asked {
  readonly #create: ListenerFilterFactory;
  #socket: PeekedSocket | undefined = undefined;
  #filter: ListenerFilter | undefined = undefined;
  readonly hook = "onBytes";
  #isWaiting = true;

  constructor(create: ListenerFilterFactory) {
    this.#create = create;
  }

  get filter(): ListenerFilter | undefined {
    return this.#filter;
  }

  ask(value: unknown, bytes: Chunk): unknown {
    this.#socket ??= new PeekedSocket(value as Told);
    this.#filter ??= this.#create(this.#socket);
    const answer = this.#filter.onBytes(bytes);
    return typeof answer === "object" && answer !== null
      ? answer.then((settled) => this.#told(settled, bytes))
      : this.#told(answer, bytes);
  }

  #told(answer: ListenerAnswer, { length }: Chunk): object {
    const isCount =
      Number.isInteger(answer) && (answer as number) >= 0 && (answer as number) <= length;
    if (!isCount && answer !== "more" && answer !== "close")
      throw new NoVerdict(answer, `"more", "close" or how many of the ${length} bytes it takes`);
    this.#isWaiting = answer === "more";
    return { answer, ...this.#socket!.changes() };
  }

  end(): void {
    if (this.#isWaiting) this.#filter?.onAbandoned?.();
  }
}

/** The socket as the filter sees it. Collects what the filter sets, for the next answer. */
class PeekedSocket implements AcceptedSocket {
  #told: Told;
  #set: Record<string, unknown> = {};
  #metadata: [string, Readonly<Record<string, unknown>>][] = [];

  constructor(told: Told) {
    this.#told = told;
  }

  changes(): object {
    const set = this.#set;
    const metadata = this.#metadata;
    this.#set = {};
    this.#metadata = [];
    return { set, metadata };
  }

  #change(values: Partial<Told>): void {
    this.#told = { ...this.#told, ...values };
    Object.assign(this.#set, values);
  }

  get remoteAddress(): Address {
    return this.#told.remoteAddress;
  }
  set remoteAddress(remoteAddress: Address) {
    this.#change({ remoteAddress });
  }
  get localAddress(): Address {
    return this.#told.localAddress;
  }
  set localAddress(localAddress: Address) {
    this.#change({ localAddress });
  }
  get transportProtocol(): string {
    return this.#told.transportProtocol;
  }
  set transportProtocol(transportProtocol: string) {
    this.#change({ transportProtocol });
  }
  get serverName(): string {
    return this.#told.serverName;
  }
  set serverName(serverName: string) {
    this.#change({ serverName });
  }
  get applicationProtocols(): readonly string[] {
    return this.#told.applicationProtocols;
  }
  set applicationProtocols(applicationProtocols: readonly string[]) {
    this.#change({ applicationProtocols });
  }
  setMetadata(namespace: string, values: Readonly<Record<string, unknown>>): void {
    this.#metadata.push([namespace, values]);
  }
}

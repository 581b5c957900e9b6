import type { ClientHello, TlsContext, TlsContextOptions } from "@tsproxy/sdk";
import type { CipherOrder } from "./cipher-order.ts";

const TLS13 = 0x0304;
/** How long BoringSSL resumes sessions of TLS 1.3, two days: `session_timeout` is for those of older versions. */
const TLS13_SESSION_S = 172_800;
/** Limit of contexts that a listener has for clients' orders, beside the first of each certificate. One takes 50 KiB and 1 ms. */
const MAX_ORDERED = 32;
/** At the limit, a context that was used within this time stays, and a client that needs another one gets the first. */
const KEPT_MS = 10_000;

export type ServerOptions = TlsContextOptions & { readonly order: CipherOrder };

/** Contexts that a listener has made for clients' orders, of all its certificates; the least recently used comes first. */
export class OrderedContexts {
  readonly #lastUse = new Map<ServerContext, number>();

  /** Notes a use, after `makeRoom` for a new one. */
  use(context: ServerContext, now: number): void {
    this.#lastUse.delete(context);
    this.#lastUse.set(context, now);
  }

  /** True if there may be one more; the least recently used is dropped for it. */
  makeRoom(now: number): boolean {
    if (this.#lastUse.size < MAX_ORDERED) return true;
    const [oldest] = this.#lastUse;
    if (oldest === undefined || now - oldest[1] < KEPT_MS) return false;
    this.#lastUse.delete(oldest[0]);
    oldest[0].drop();
    return true;
  }
}

interface ServerContext {
  readonly context: TlsContext;
  drop(): void;
}

/**
 * The OpenSSL contexts of one certificate. BoringSSL, and so Envoy, follows the client's order of cipher suites within groups of
 * equal preference (the suites of TLS 1.3 are one group), else the server's, and renews tickets in TLS 1.3 only, where they last
 * longer. An OpenSSL context has one order and one rule for tickets, so there is a context for each order and version that a client has needed.
 */
export class ServerContexts {
  /** Created at once, so that options that OpenSSL does not accept are errors of the config. */
  readonly first: TlsContext;
  readonly #options: TlsContextOptions;
  readonly #order: CipherOrder;
  readonly #make: (options: TlsContextOptions) => TlsContext;
  readonly #ordered: OrderedContexts;
  readonly #firstKey: string;
  /** Contexts by TLS version and cipher list, without the first. */
  readonly #contexts = new Map<string, ServerContext>();

  constructor(
    { order, ...options }: ServerOptions,
    ordered: OrderedContexts,
    make: (options: TlsContextOptions) => TlsContext,
  ) {
    this.#options = options;
    this.#order = order;
    this.#ordered = ordered;
    this.#make = make;
    const version = options.maxVersion === "TLSv1.3" ? "TLSv1.3" : "older";
    this.#firstKey = `${version} ${order.list}`;
    this.first = this.#create(version, order.list);
  }

  /** Returns the context for a client, created if needed. */
  of({ versions, cipherSuites }: ClientHello, now: number): TlsContext {
    const { maxVersion, clientsOrder, ciphers } = this.#options;
    const version = maxVersion === "TLSv1.3" && versions.includes(TLS13) ? "TLSv1.3" : "older";
    const isGiven = clientsOrder === true || cipherSuites.length === 0;
    const list = isGiven ? ciphers : this.#order.listFor(cipherSuites, version);
    const key = `${version} ${list}`;
    if (key === this.#firstKey) return this.first;
    let found = this.#contexts.get(key);
    if (found === undefined) {
      if (!this.#ordered.makeRoom(now)) return this.first;
      found = this.#add(key, this.#create(version, list));
    }
    this.#ordered.use(found, now);
    return found.context;
  }

  #add(key: string, context: TlsContext): ServerContext {
    const added = {
      context,
      drop: () => {
        this.#contexts.delete(key);
        context.release();
      },
    };
    this.#contexts.set(key, added);
    return added;
  }

  #create(version: "TLSv1.3" | "older", ciphers: string): TlsContext {
    const isRecent = version === "TLSv1.3";
    const lasting = isRecent ? { sessionTimeoutS: TLS13_SESSION_S } : {};
    return this.#make({ ...this.#options, ...lasting, ciphers, renewsTickets: isRecent });
  }

  release(): void {
    this.first.release();
    for (const { context } of this.#contexts.values()) context.release();
  }
}

import type { ClientHello, TlsContext, TlsContextOptions } from "@tsproxy/sdk";
import type { CipherOrder } from "./cipher-order.ts";

const TLS13 = 0x0304;
/** Limit of contexts per certificate; a client that would need another one gets the first. */
const MAX_CONTEXTS = 12;

export type ServerOptions = TlsContextOptions & { readonly order: CipherOrder };

/**
 * The OpenSSL contexts of one certificate. BoringSSL, and so Envoy, follows the client's order of cipher suites within groups of
 * equal preference (the suites of TLS 1.3 are one group), else the server's, and renews tickets in TLS 1.3 only. An OpenSSL
 * context has one order and one rule for tickets, so there is a context for each order and version that a client has needed.
 */
export class ServerContexts {
  /** Created at once, so that options that OpenSSL does not accept are errors of the config. */
  readonly first: TlsContext;
  readonly #options: TlsContextOptions;
  readonly #order: CipherOrder;
  readonly #make: (options: TlsContextOptions) => TlsContext;
  /** Contexts by TLS version and cipher list. */
  readonly #contexts = new Map<string, TlsContext>();

  constructor(
    { order, ...options }: ServerOptions,
    make: (options: TlsContextOptions) => TlsContext,
  ) {
    this.#options = options;
    this.#order = order;
    this.#make = make;
    this.first = this.#get(options.maxVersion === "TLSv1.3" ? "TLSv1.3" : "older", order.list);
  }

  /** Returns the context for a client, created if needed. */
  of({ versions, cipherSuites }: ClientHello): TlsContext {
    const { maxVersion, clientsOrder, ciphers } = this.#options;
    const version = maxVersion === "TLSv1.3" && versions.includes(TLS13) ? "TLSv1.3" : "older";
    const isGiven = clientsOrder === true || cipherSuites.length === 0;
    return this.#get(version, isGiven ? ciphers : this.#order.listFor(cipherSuites, version));
  }

  #get(version: "TLSv1.3" | "older", ciphers: string): TlsContext {
    const key = `${version} ${ciphers}`;
    let context = this.#contexts.get(key);
    if (context === undefined) {
      if (this.#contexts.size >= MAX_CONTEXTS) return this.first;
      const renewsTickets = version === "TLSv1.3";
      context = this.#make({ ...this.#options, ciphers, renewsTickets });
      this.#contexts.set(key, context);
    }
    return context;
  }

  release(): void {
    for (const context of this.#contexts.values()) context.release();
  }
}

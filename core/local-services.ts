import { X509Certificate } from "node:crypto";
import type { TlsContextOptions } from "@tsproxy/sdk";
import { fileError } from "./file-error.ts";
import type { ServedFiles } from "./served-files.ts";
import { certificatesOf, describeCertificate, isTrustedChain } from "./sockets/certificate.ts";
import type { Contexts } from "./sockets/tls.ts";
import type { WatchedFiles } from "./watched-files.ts";

/** Calls of an isolate that are answered synchronously: files, TLS contexts, certificates. Packages make them during setup. */
export class LocalServices {
  readonly #contexts: Contexts;
  readonly #files: ServedFiles;
  readonly #watch: WatchedFiles | undefined;

  constructor(contexts: Contexts, files: ServedFiles, watch?: WatchedFiles) {
    this.#contexts = contexts;
    this.#files = files;
    this.#watch = watch;
  }

  /**
   * Runs a call; `text` is the JSON of its arguments. Answers JSON of `{ value }` or `{ error }`; undefined: there is no such
   * call here.
   */
  call(name: string, text: string): string | undefined {
    const run = this.#calls[name];
    if (run === undefined) return undefined;
    try {
      return JSON.stringify({ value: run(JSON.parse(text) as never) ?? null });
    } catch (error) {
      return JSON.stringify({ error: reason(error) });
    }
  }

  readonly #calls: Readonly<Record<string, (args: never) => unknown>> = {
    "file.read": ({ path, encoding }: { path: string; encoding: "utf8" | "base64" }) =>
      this.#files.read(path).toString(encoding),
    "file.use": ({ path }: { path: string }) => this.#files.use(path),
    "file.release": ({ path }: { path: string }) => this.#files.release(path),
    "file.changing": () => this.#files.beginChange(),
    "file.changed": ({ isTaken }: { isTaken: boolean }) => this.#files.endChange(isTaken),
    "file.watch": ({ path }: { path: string }) => this.#watch?.add(path, this.#files.seen(path)),
    "file.unwatch": ({ path }: { path: string }) => this.#watch?.remove(path),
    "tls.context": (options: TlsContextOptions) => this.#contexts.create(options),
    "tls.release": ({ id }: { id: number }) => this.#contexts.release(id),
    "tls.leadsTo": ({ chain, authorities }: { chain: readonly string[]; authorities: string }) =>
      isTrustedChain(
        chain.map((pem) => new X509Certificate(pem)),
        certificatesOf(authorities),
      ),
    "tls.certificates": ({ pem }: { pem: string }) => certificatesOf(pem).map(describeCertificate),
  };
}

function reason(error: unknown): string {
  const { message, code, path } = error as NodeJS.ErrnoException;
  if (code !== undefined && path !== undefined) return `cannot read "${path}": ${fileError(error)}`;
  return message.replace(/^[0-9A-F]+:error:/, "error:").trim();
}

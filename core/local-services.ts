import { X509Certificate } from "node:crypto";
import { stat } from "node:fs/promises";
import type { TlsContextOptions } from "@tsproxy/sdk";
import { fileError } from "./file-error.ts";
import { fingerprintOf, type ServedFiles } from "./served-files.ts";
import { certificatesOf, describeCertificate, isTrustedChain } from "./sockets/certificate.ts";
import type { Contexts } from "./sockets/tls.ts";

/** Milliseconds between two looks at the watched files. */
const LOOK_MS = 1_000;

/** Calls of an isolate that are answered synchronously: files, TLS contexts, certificates. Packages make them during setup. */
export class LocalServices {
  readonly #contexts: Contexts;
  readonly #files: ServedFiles;
  readonly #watch: FileWatch | undefined;

  constructor(contexts: Contexts, files: ServedFiles, watch?: FileWatch) {
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

/**
 * Polls files once a second. This also notices changes behind a chain of links (as Kubernetes mounts secrets), and a file that
 * appears later.
 */
export class FileWatch {
  readonly #files = new Map<string, { uses: number; seen: string }>();
  readonly #onChanged: (path: string) => void;
  readonly #timer: NodeJS.Timeout;
  #looking = false;

  constructor(onChanged: (path: string) => void) {
    this.#onChanged = onChanged;
    this.#timer = setInterval(() => void this.#look(), LOOK_MS);
    this.#timer.unref();
  }

  /**
   * Watches the file. Uses are counted: it is watched until `remove` was called as often. `seen`: its fingerprint when it was read.
   */
  add(path: string, seen: string): void {
    const known = this.#files.get(path);
    if (known !== undefined) known.uses++;
    else this.#files.set(path, { uses: 1, seen });
  }

  remove(path: string): void {
    const known = this.#files.get(path);
    if (known !== undefined && --known.uses === 0) this.#files.delete(path);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#files.clear();
  }

  async #look(): Promise<void> {
    if (this.#looking || this.#files.size === 0) return;
    this.#looking = true;
    for (const [path, file] of [...this.#files]) {
      const now = await stat(path, { bigint: true }).then(fingerprintOf, () => undefined);
      if (now === undefined || now === file.seen) continue;
      file.seen = now;
      if (this.#files.get(path) === file) this.#onChanged(path);
    }
    this.#looking = false;
  }
}

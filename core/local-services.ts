import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import type { TlsContextOptions } from "@tsproxy/sdk";
import { certificatesOf, describeCertificate, isTrustedChain } from "./sockets/certificate.ts";
import type { Contexts } from "./sockets/tls.ts";

const MAX_FILE_BYTES = 64 * 1024 * 1024;
/** Milliseconds between two looks at the watched files. */
const LOOK_MS = 1_000;

/** Calls of an isolate that are answered synchronously: files, TLS contexts, certificates. Packages make them during setup. */
export class LocalServices {
  readonly #contexts: Contexts;
  readonly #watch: FileWatch | undefined;

  constructor(contexts: Contexts, watch?: FileWatch) {
    this.#contexts = contexts;
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
    "file.read": ({ path, encoding }: { path: string; encoding: "utf8" | "base64" }) => {
      const bytes = readFileSync(path);
      if (bytes.length > MAX_FILE_BYTES) throw new Error(`${path} has more than 64 MiB`);
      return bytes.toString(encoding);
    },
    "file.watch": ({ path }: { path: string }) => this.#watch?.add(path),
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

const WORDS: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file",
  EACCES: "permission denied",
  EISDIR: "it is a folder",
};

function reason(error: unknown): string {
  const { message, code, path } = error as NodeJS.ErrnoException;
  if (code !== undefined && path !== undefined)
    return `cannot read "${path}": ${WORDS[code] ?? message}`;
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

  /** Watches the file. Uses are counted: it is watched until `remove` was called as often. */
  add(path: string): void {
    const known = this.#files.get(path);
    if (known !== undefined) known.uses++;
    else {
      const file = { uses: 1, seen: "" };
      this.#files.set(path, file);
      void fingerprint(path).then((seen) => (file.seen = seen));
    }
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
      const now = await fingerprint(path);
      if (now === file.seen || file.seen === "" || now === GONE) continue;
      file.seen = now;
      if (this.#files.get(path) === file) this.#onChanged(path);
    }
    this.#looking = false;
  }
}

const GONE = "gone";

async function fingerprint(path: string): Promise<string> {
  const found = await stat(path, { bigint: true }).catch(() => undefined);
  return found === undefined ? GONE : `${found.ino} ${found.mtimeNs} ${found.size}`;
}

import { didYouMean, quote, type Report } from "./diagnostic.ts";
import { clone, invalidAt, ListNode, type MapNode, type Node, scalar } from "./document.ts";
import { merge } from "./overlay.ts";

const TLS = "envoy.extensions.transport_sockets.tls.v3.";
const COMMON = `${TLS}CommonTlsContext`;
const DOWNSTREAM = `${TLS}DownstreamTlsContext`;

/**
 * Copies the secrets of `static_resources.secrets` to where TLS contexts name them. A context's config then holds all that it
 * uses, so a changed secret changes it. References with `sds_config` stay, for the transport socket.
 */
export function placeSecrets(root: MapNode, report: Report): void {
  const resources = root.map("static_resources");
  const secrets = new Map<string, MapNode>();
  for (const node of resources?.list("secrets") ?? []) {
    if (node.kind !== "map") continue;
    const name = node.string("name") ?? "";
    if (secrets.has(name)) report.error(node.place, `there is another secret ${quote(name)}`);
    secrets.set(name, node);
  }
  resources?.delete("secrets");
  new SecretPlacer(secrets, report).walk(root);
}

/** Walks the tree and replaces references to secrets by copies of them. */
class SecretPlacer {
  readonly #secrets: ReadonlyMap<string, MapNode>;
  readonly #report: Report;

  constructor(secrets: ReadonlyMap<string, MapNode>, report: Report) {
    this.#secrets = secrets;
    this.#report = report;
  }

  walk(node: Node): void {
    if (node.kind === "list") for (const item of node.items) this.walk(item);
    if (node.kind !== "map" || node.unread !== undefined) return;
    if (node.message === COMMON) this.#common(node);
    if (node.message === DOWNSTREAM)
      this.#field(node, "session_ticket_keys_sds_secret_config", "session_ticket_keys");
    // A generator would take three times as long: 60 ms with 1,000 clusters.
    for (let entry = node.entries.first; entry !== undefined; entry = entry.next)
      if (entry.value.kind !== "scalar") this.walk(entry.value);
  }

  #common(node: MapNode): void {
    this.#certificates(node);
    this.#field(node, "validation_context_sds_secret_config", "validation_context");
    const combined = node.map("combined_validation_context");
    if (combined === undefined) return;
    this.#field(combined, "validation_context_sds_secret_config", "validation_context");
    const own = combined.get("validation_context");
    if (own === undefined) return;
    node.delete("combined_validation_context");
    const base = combined.get("default_validation_context");
    node.set(
      "validation_context",
      base === undefined ? own : merge(base, own, `${TLS}CertificateValidationContext`),
      combined.place,
    );
  }

  /** Adds the named certificates after those that stand in the context itself. */
  #certificates(node: MapNode): void {
    const references = node.list("tls_certificate_sds_secret_configs");
    const found = references.map((reference) => this.#find(reference, "tls_certificate"));
    const placed = found.filter((secret) => secret !== undefined);
    if (placed.length === 0) return;
    const own = node.list("tls_certificates");
    node.set("tls_certificates", new ListNode(node.place, [...own, ...placed]), node.place);
    const left = references.filter((_, k) => found[k] === undefined);
    if (left.length === 0) node.delete("tls_certificate_sds_secret_configs");
    else node.set("tls_certificate_sds_secret_configs", new ListNode(node.place, left));
  }

  /** Sets `field` to the secret that the field `reference` names, and removes the reference. */
  #field(node: MapNode, reference: string, field: string): void {
    const entry = node.entries.get(reference);
    const secret = entry && this.#find(entry.value, field);
    if (entry === undefined || secret === undefined) return;
    node.delete(reference);
    node.set(field, secret, entry.place);
  }

  /**
   * A copy of the secret that a reference names. Undefined: it comes from elsewhere (`sds_config`). If there is no such secret,
   * an error is reported and the node is an invalid one.
   */
  #find(reference: Node, kind: string): Node | undefined {
    if (reference.kind !== "map" || reference.has("sds_config")) return undefined;
    const name = reference.string("name") ?? "";
    const secret = this.#secrets.get(name)?.get(kind);
    if (secret !== undefined) return named(clone(secret), name);
    const place = reference.get("name")?.place ?? reference.place;
    const names = [...this.#secrets].filter(([, node]) => node.has(kind)).map(([other]) => other);
    this.#report.error(
      place,
      `no secret ${quote(name)} with ${kind} stands in static_resources.secrets`,
      didYouMean(name, names) ?? "add it there, or say with sds_config where it comes from",
    );
    return invalidAt(place);
  }
}

/** Adds the secret's name to the copy: the transport socket has stats by that name. */
function named(secret: Node, name: string): Node {
  if (secret.kind === "map") secret.set("secret_name", scalar(secret.place, name), secret.place);
  return secret;
}

import { ConfigError } from "@tsproxy/sdk";
import { parse } from "yaml";
import type {
  CommonTlsContext,
  Config,
  SecretReference,
  TicketKeys,
  TlsCertificate,
  ValidationContext,
} from "./config.ts";
import type { Sources } from "./source.ts";

/** Shape of a value in a secret. Used instead of the config's schemas, which are not loaded in workers. */
type Shape =
  | "text"
  | "flag"
  | "number"
  | { readonly one: readonly string[] }
  | { readonly each: Shape }
  | { readonly fields: Fields; readonly needed?: readonly string[] };
type Fields = Readonly<Record<string, Shape>>;

const DIRECTORY: Shape = { fields: { path: "text" } };
const SOURCE: Shape = {
  fields: {
    filename: "text",
    inline_bytes: "text",
    inline_string: "text",
    environment_variable: "text",
    watched_directory: DIRECTORY,
  },
};
const MATCHER: Shape = {
  fields: {
    exact: "text",
    prefix: "text",
    suffix: "text",
    contains: "text",
    safe_regex: { fields: { regex: "text" }, needed: ["regex"] },
    ignore_case: "flag",
  },
};
const NAMES = ["DNS", "URI", "EMAIL", "IP_ADDRESS", "OTHER_NAME"];

/** Fields of Envoy's Secret message and their shapes. */
const KINDS = {
  tls_certificate: {
    fields: {
      certificate_chain: SOURCE,
      private_key: SOURCE,
      pkcs12: SOURCE,
      password: SOURCE,
      ocsp_staple: SOURCE,
      watched_directory: DIRECTORY,
    },
  },
  validation_context: {
    fields: {
      trusted_ca: SOURCE,
      system_root_certs: { fields: {} },
      watched_directory: DIRECTORY,
      verify_certificate_spki: { each: "text" },
      verify_certificate_hash: { each: "text" },
      match_typed_subject_alt_names: {
        each: {
          fields: { san_type: { one: NAMES }, matcher: MATCHER, oid: "text" },
          needed: ["san_type", "matcher"],
        },
      },
      match_subject_alt_names: { each: MATCHER },
      crl: SOURCE,
      only_verify_leaf_cert_crl: "flag",
      allow_expired_certificate: "flag",
      trust_chain_verification: { one: ["VERIFY_TRUST_CHAIN", "ACCEPT_UNTRUSTED"] },
      max_verify_depth: "number",
    },
  },
  session_ticket_keys: { fields: { keys: { each: SOURCE } }, needed: ["keys"] },
} as const satisfies Readonly<Record<string, Shape>>;
type Kind = keyof typeof KINDS;
interface Secrets {
  readonly tls_certificate: TlsCertificate;
  readonly validation_context: Partial<ValidationContext>;
  readonly session_ticket_keys: TicketKeys;
}

/** Defaults of a validation context, applied after merging. */
const DEFAULTS = {
  allow_expired_certificate: false,
  trust_chain_verification: "VERIFY_TRUST_CHAIN",
  max_verify_depth: 100,
};

const TICKETS = "session_ticket_keys_sds_secret_config";
const VALIDATION = "validation_context_sds_secret_config";
const CERTIFICATES = "tls_certificate_sds_secret_configs";

/** Returns the config with all secrets that it references filled in; `sources` records the files read. */
export function withSecrets(config: Config, sources: Sources): Config {
  const { common_tls_context: common, [TICKETS]: tickets } = config;
  if (common === undefined && tickets === undefined) return config;
  return {
    ...config,
    ...(common !== undefined && { common_tls_context: completed(common, sources) }),
    ...(tickets !== undefined && {
      session_ticket_keys: secretOf(tickets, "session_ticket_keys", TICKETS, sources),
    }),
  };
}

/** Replaces references in the common context by their secrets. */
function completed(common: CommonTlsContext, sources: Sources): CommonTlsContext {
  const { tls_certificates: own = [], combined_validation_context: combined } = common;
  const certificates = (common[CERTIFICATES] ?? []).map((reference, k) =>
    secretOf(reference, "tls_certificate", `common_tls_context.${CERTIFICATES}[${k}]`, sources),
  );
  const whole = common[VALIDATION];
  const part = combined?.[VALIDATION];
  const read = (reference: SecretReference, at: string) =>
    secretOf(reference, "validation_context", `common_tls_context.${at}${VALIDATION}`, sources);
  const base = combined?.default_validation_context ?? common.validation_context;
  const added = part && read(part, "combined_validation_context.");
  const validation = whole === undefined ? merge(base, added) : read(whole, "");
  return {
    ...common,
    tls_certificates: [...own, ...certificates],
    ...(validation !== undefined && {
      validation_context: { ...DEFAULTS, ...(validation as ValidationContext) },
    }),
  };
}

/** Reads one secret from its file and checks it. `path`: of the reference in the config, for errors. */
function secretOf<K extends Kind>(
  reference: SecretReference,
  kind: K,
  path: string,
  sources: Sources,
): Secrets[K] {
  const { name = "", sds_config: source } = reference;
  const file = source?.path_config_source?.path ?? source?.path;
  if (file === undefined) throw new ConfigError(path, "give sds_config.path_config_source.path");
  const secret = secretsIn(sources.secretFile(file, name, path), file, path).find(
    (entry) => entry.name === name && entry[kind] !== undefined,
  );
  if (secret === undefined)
    throw new ConfigError(path, `${file} has no secret "${name}" with ${kind}`);
  const at = `${file}: secret "${name}".${kind}`;
  const content = conformed(KINDS[kind], secret[kind], at, path) as Secrets[K];
  return { ...content, secret_name: name };
}

/** A file of secrets that is no list of them: Envoy counts it apart from secrets that are refused. */
export class UnreadableSecrets extends ConfigError {}

/** Parses a file of secrets, Envoy's DiscoveryResponse in JSON or YAML, and returns its resources. */
function secretsIn(text: string, file: string, path: string): Record<string, unknown>[] {
  let content: unknown;
  try {
    content = parse(text);
  } catch (error) {
    throw new UnreadableSecrets(path, `${file}: ${(error as Error).message.split("\n")[0]}`);
  }
  const resources = (content as { resources?: unknown } | null)?.resources;
  if (!Array.isArray(resources))
    throw new UnreadableSecrets(
      path,
      `${file} is no list of resources; write "resources:" above it`,
    );
  return resources.filter((entry) => typeof entry === "object" && entry !== null).map(snakeKeys);
}

/** Merges as protobuf does: lists are appended, messages merged, values replaced. */
function merge(base: unknown, over: unknown): unknown {
  if (over === undefined) return base;
  if (Array.isArray(base) && Array.isArray(over)) return [...base, ...over];
  if (!isMap(base) || !isMap(over)) return over;
  const merged: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(over)) merged[key] = merge(base[key], value);
  return merged;
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Converts camelCase keys to snake_case, since protobuf's JSON allows both. */
function snakeKeys(entry: object): Record<string, unknown> {
  const keys = Object.entries(entry).map(([key, value]) => [
    key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
    value,
  ]);
  return Object.fromEntries(keys);
}

/** Checks a secret against its shape, as core does for the config; unknown fields are an error. `at`: path in the secret. */
function conformed(shape: Shape, value: unknown, at: string, path: string): unknown {
  const refuse = (what: string): never => {
    throw new ConfigError(path, `${at}: ${what}`);
  };
  if (shape === "text") return typeof value === "string" ? value : refuse("a text belongs here");
  if (shape === "flag")
    return typeof value === "boolean" ? value : refuse("true or false belongs here");
  if (shape === "number")
    return Number.isInteger(value) ? value : refuse("a whole number belongs here");
  if ("one" in shape) {
    if (shape.one.includes(value as string)) return value;
    return refuse(`"${value}" is none of ${shape.one.join(", ")}`);
  }
  if ("each" in shape) {
    if (!Array.isArray(value)) return refuse("a list belongs here");
    return value.map((item, k) => conformed(shape.each, item, `${at}[${k}]`, path));
  }
  if (!isMap(value)) return refuse("a map belongs here");
  const known: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(snakeKeys(value))) {
    const inner = Object.hasOwn(shape.fields, key) ? shape.fields[key] : undefined;
    if (inner === undefined)
      throw new ConfigError(path, `${at}.${key} is unknown, or not implemented here`);
    if (field !== null) known[key] = conformed(inner, field, `${at}.${key}`, path);
  }
  for (const key of shape.needed ?? [])
    if (known[key] === undefined) throw new ConfigError(path, `${at}.${key} is missing`);
  return known;
}

import { ConfigError, type TSchema } from "@tsproxy/sdk";
import { parse } from "yaml";
import {
  type CommonTlsContext,
  type Config,
  type SecretReference,
  TicketKeys,
  TlsCertificate,
  ValidationContext,
} from "./config.ts";
import type { Sources } from "./source.ts";

/** The secret's field in Envoy's Secret message, and its shape. */
const KINDS = {
  tls_certificate: TlsCertificate,
  validation_context: ValidationContext,
  session_ticket_keys: TicketKeys,
} as const;
type Kinds = typeof KINDS;
type Kind = keyof Kinds;

const TICKETS = "session_ticket_keys_sds_secret_config";
const VALIDATION = "validation_context_sds_secret_config";
const CERTIFICATES = "tls_certificate_sds_secret_configs";

/** The config with everything in it that it only names. The files that it stands on are noted in `sources`. */
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
  const validation =
    whole === undefined
      ? merge(base, part && read(part, "combined_validation_context."))
      : read(whole, "");
  return {
    ...common,
    tls_certificates: [...own, ...certificates],
    ...(validation !== undefined && {
      validation_context: filled(ValidationContext, validation) as ValidationContext,
    }),
  };
}

function secretOf<K extends Kind>(
  reference: SecretReference,
  kind: K,
  path: string,
  sources: Sources,
) {
  const { name = "", sds_config: source } = reference;
  const file = source?.path_config_source?.path ?? source?.path;
  if (file === undefined) throw new ConfigError(path, "give sds_config.path_config_source.path");
  const secret = secretsIn(sources.read(file, path), file, path).find(
    (entry) => entry.name === name && entry[kind] !== undefined,
  );
  if (secret === undefined)
    throw new ConfigError(path, `${file} has no secret "${name}" with ${kind}`);
  const at = `${file}: secret "${name}".${kind}`;
  return conformed(KINDS[kind], secret[kind], at, path) as StaticOf<K>;
}

type StaticOf<K extends Kind> = Kinds[K]["static"];

/** Envoy's DiscoveryResponse in JSON or YAML. */
function secretsIn(text: string, file: string, path: string): Record<string, unknown>[] {
  let content: unknown;
  try {
    content = parse(text);
  } catch (error) {
    throw new ConfigError(path, `${file}: ${(error as Error).message.split("\n")[0]}`);
  }
  const resources = (content as { resources?: unknown } | null)?.resources;
  if (!Array.isArray(resources))
    throw new ConfigError(path, `${file} is no list of resources; write "resources:" above it`);
  return resources.filter((entry) => typeof entry === "object" && entry !== null).map(snakeKeys);
}

/** As protobuf merges: lists are lengthened, messages merged, values replaced. */
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

/** Protobuf's JSON may have either form of a name. */
function snakeKeys(entry: object): Record<string, unknown> {
  const keys = Object.entries(entry).map(([key, value]) => [
    key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
    value,
  ]);
  return Object.fromEntries(keys);
}

/** What core does for the config itself: shapes and unknown fields. Defaults come later, since they are none of a merge. */
function conformed(schema: TSchema, value: unknown, at: string, path: string): unknown {
  const refuse = (what: string): never => {
    throw new ConfigError(path, `${at}: ${what}`);
  };
  switch (schema.type) {
    case "object": {
      if (!isMap(value)) return refuse("a map belongs here");
      return conformedMap(schema, snakeKeys(value), at, path);
    }
    case "array": {
      if (!Array.isArray(value)) return refuse("a list belongs here");
      return value.map((item, k) => conformed(schema.items, item, `${at}[${k}]`, path));
    }
    case "integer":
      if (!Number.isInteger(value)) return refuse("a whole number belongs here");
      return value;
    case "boolean":
      if (typeof value !== "boolean") return refuse("true or false belongs here");
      return value;
    default:
      if (typeof value !== "string") return refuse("a text belongs here");
      if (schema.enum !== undefined && !schema.enum.includes(value))
        return refuse(`"${value}" is none of ${schema.enum.join(", ")}`);
      return value;
  }
}

function conformedMap(
  schema: TSchema,
  value: Record<string, unknown>,
  at: string,
  path: string,
): unknown {
  const properties: Record<string, TSchema> = schema.properties;
  const known: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(value)) {
    const inner = properties[key];
    if (inner === undefined)
      throw new ConfigError(path, `${at}.${key} is unknown, or not implemented here`);
    if (field !== null) known[key] = conformed(inner, field, `${at}.${key}`, path);
  }
  for (const [key, inner] of Object.entries(properties)) {
    const isNeeded = schema.required?.includes(key) && inner.default === undefined;
    if (isNeeded && known[key] === undefined)
      throw new ConfigError(path, `${at}.${key} is missing`);
  }
  return known;
}

function filled(schema: TSchema, value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => filled(schema.items, item));
  if (!isMap(value)) return value;
  const whole: Record<string, unknown> = {};
  for (const [key, inner] of Object.entries(schema.properties as Record<string, TSchema>)) {
    const field = value[key] ?? inner.default;
    if (field !== undefined) whole[key] = filled(inner, field);
  }
  return whole;
}

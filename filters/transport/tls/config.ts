import {
  CidrRange,
  Duration,
  Enum,
  type Static,
  StringMatcher,
  Type,
  TypedExtension,
  UInt32,
} from "@tsproxy/sdk";

export const DataSource = Type.Object({
  filename: Type.Optional(Type.String({ minLength: 1 })),
  /** Base64, the JSON form of protobuf's bytes. */
  inline_bytes: Type.Optional(Type.String()),
  inline_string: Type.Optional(Type.String()),
  environment_variable: Type.Optional(Type.String({ minLength: 1 })),
  watched_directory: Type.Optional(Type.Object({ path: Type.Optional(Type.String()) })),
});
export type DataSource = Static<typeof DataSource>;

/** Accepted without effect: each file is watched anyway. */
const WatchedDirectory = Type.Optional(Type.Object({ path: Type.Optional(Type.String()) }));

const TlsProtocol = Enum(["TLS_AUTO", "TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3"], {
  default: "TLS_AUTO",
});

const TlsParameters = Type.Object({
  tls_minimum_protocol_version: TlsProtocol,
  tls_maximum_protocol_version: TlsProtocol,
  cipher_suites: Type.Optional(Type.Array(Type.String())),
  ecdh_curves: Type.Optional(Type.Array(Type.String())),
  signature_algorithms: Type.Optional(Type.Array(Type.String())),
  compliance_policies: Type.Optional(Type.Array(Enum(["FIPS_202205"]), { maxItems: 1 })),
});
export type TlsParameters = Static<typeof TlsParameters>;

/** Name of the secret that the message comes from; set by core for static secrets, by secret-file.ts for those in files. */
const SecretName = Type.Optional(Type.String());

export const TlsCertificate = Type.Object({
  secret_name: SecretName,
  certificate_chain: Type.Optional(DataSource),
  private_key: Type.Optional(DataSource),
  pkcs12: Type.Optional(DataSource),
  password: Type.Optional(DataSource),
  ocsp_staple: Type.Optional(DataSource),
  watched_directory: WatchedDirectory,
});
export type TlsCertificate = Static<typeof TlsCertificate>;

const SubjectAltNameMatcher = Type.Object({
  san_type: Enum(["DNS", "URI", "EMAIL", "IP_ADDRESS", "OTHER_NAME"]),
  matcher: StringMatcher,
  /** Only for OTHER_NAME. */
  oid: Type.Optional(Type.String()),
});
export type NameMatcher = Static<typeof SubjectAltNameMatcher>;

const SPIFFE = "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";
const SpiffeValidator = Type.Object({
  trust_domains: Type.Array(
    Type.Object({ name: Type.String({ minLength: 1 }), trust_bundle: DataSource }),
    { minItems: 1 },
  ),
});
export type SpiffeValidator = Static<typeof SpiffeValidator>;

export const ValidationContext = Type.Object({
  secret_name: SecretName,
  trusted_ca: Type.Optional(DataSource),
  system_root_certs: Type.Optional(Type.Object({})),
  watched_directory: WatchedDirectory,
  verify_certificate_spki: Type.Optional(Type.Array(Type.String())),
  verify_certificate_hash: Type.Optional(Type.Array(Type.String())),
  match_typed_subject_alt_names: Type.Optional(Type.Array(SubjectAltNameMatcher)),
  match_subject_alt_names: Type.Optional(Type.Array(StringMatcher)),
  crl: Type.Optional(DataSource),
  only_verify_leaf_cert_crl: Type.Optional(Type.Boolean()),
  custom_validator_config: Type.Optional(TypedExtension({ [SPIFFE]: SpiffeValidator })),
  allow_expired_certificate: Type.Boolean({ default: false }),
  trust_chain_verification: Enum(["VERIFY_TRUST_CHAIN", "ACCEPT_UNTRUSTED"], {
    default: "VERIFY_TRUST_CHAIN",
  }),
  max_verify_depth: UInt32({ default: 100, maximum: 100 }),
});
export type ValidationContext = Static<typeof ValidationContext>;

export const TicketKeys = Type.Object({ keys: Type.Array(DataSource, { minItems: 1 }) });
export type TicketKeys = Static<typeof TicketKeys>;

/** Names a secret in a file of secrets. Core has already replaced references to `static_resources.secrets`. */
const SecretReference = Type.Object({
  name: Type.Optional(Type.String()),
  sds_config: Type.Optional(
    Type.Object({
      path: Type.Optional(Type.String({ minLength: 1 })),
      path_config_source: Type.Optional(
        Type.Object({ path: Type.String({ minLength: 1 }), watched_directory: WatchedDirectory }),
      ),
      /** Accepted without effect: a file is read at once. */
      initial_fetch_timeout: Type.Optional(Duration()),
      resource_api_version: Type.Optional(Enum(["AUTO", "V2", "V3"])),
    }),
  ),
});
export type SecretReference = Static<typeof SecretReference>;

const CommonTlsContext = Type.Object({
  tls_params: Type.Optional(TlsParameters),
  tls_certificates: Type.Optional(Type.Array(TlsCertificate)),
  tls_certificate_sds_secret_configs: Type.Optional(Type.Array(SecretReference)),
  validation_context: Type.Optional(ValidationContext),
  validation_context_sds_secret_config: Type.Optional(SecretReference),
  combined_validation_context: Type.Optional(
    Type.Object({
      default_validation_context: Type.Optional(ValidationContext),
      validation_context_sds_secret_config: Type.Optional(SecretReference),
    }),
  ),
  alpn_protocols: Type.Optional(Type.Array(Type.String({ minLength: 1, maxLength: 255 }))),
  key_log: Type.Optional(
    Type.Object({
      path: Type.String({ minLength: 1 }),
      local_address_range: Type.Optional(Type.Array(CidrRange)),
      remote_address_range: Type.Optional(Type.Array(CidrRange)),
    }),
  ),
});
export type CommonTlsContext = Static<typeof CommonTlsContext>;

const DOWNSTREAM = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const UPSTREAM = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
export const TYPES = [DOWNSTREAM, UPSTREAM];

/** Schema of both messages; a transport socket of a listener is downstream, of a cluster upstream. */
export const Config = Type.Object({
  common_tls_context: Type.Optional(CommonTlsContext),
  // Downstream.
  require_client_certificate: Type.Optional(Type.Boolean()),
  /** Accepted without effect, as in Envoy 1.40. */
  require_sni: Type.Optional(Type.Boolean()),
  session_ticket_keys: Type.Optional(TicketKeys),
  session_ticket_keys_sds_secret_config: Type.Optional(SecretReference),
  disable_stateless_session_resumption: Type.Optional(Type.Boolean()),
  disable_stateful_session_resumption: Type.Optional(Type.Boolean()),
  session_timeout: Type.Optional(Duration()),
  full_scan_certs_on_sni_mismatch: Type.Optional(Type.Boolean()),
  ocsp_staple_policy: Enum(["LENIENT_STAPLING", "STRICT_STAPLING", "MUST_STAPLE"], {
    default: "LENIENT_STAPLING",
  }),
  prefer_client_ciphers: Type.Optional(Type.Boolean()),
  // Upstream.
  sni: Type.Optional(Type.String({ maxLength: 255 })),
  auto_host_sni: Type.Optional(Type.Boolean()),
  auto_sni_san_validation: Type.Optional(Type.Boolean()),
  max_session_keys: Type.Optional(UInt32()),
  allow_renegotiation: Type.Optional(Type.Boolean()),
  /** Accepted without effect, as in Envoy: RSA key usage is always enforced. */
  enforce_rsa_key_usage: Type.Optional(Type.Boolean()),
});
export type Config = Static<typeof Config>;

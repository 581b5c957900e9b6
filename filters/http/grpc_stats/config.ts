import { type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  stats_for_all_methods: Type.Optional(Type.Boolean()),
  individual_method_stats_allowlist: Type.Optional(
    Type.Object({
      services: Type.Array(
        Type.Object({
          name: Type.String(),
          method_names: Type.Array(Type.String(), { default: [] }),
        }),
        { default: [] },
      ),
    }),
  ),
  emit_filter_state: Type.Optional(Type.Boolean()),
  enable_upstream_stats: Type.Boolean({ default: false }),
  replace_dots_in_grpc_service_name: Type.Boolean({ default: false }),
});
export type Config = Static<typeof Config>;

import { type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** Requests of type `application/x-protobuf` become gRPC, and what answers them protobuf again. */
  upgrade_protobuf_to_grpc: Type.Boolean({ default: false }),
  /** gRPC servers know no query: it is taken off the path. */
  ignore_query_parameters: Type.Boolean({ default: false }),
});
export type Config = Static<typeof Config>;

/** What a filter may import. */
export * from "./access-log.ts";
export * from "./bytes.ts";
export * from "./cluster.ts";
export * from "./codec.ts";
export * from "./edf.ts";
export * from "./extension.ts";
export * from "./format.ts";
export * from "./headers.ts";
export * from "./http.ts";
export * from "./load-assignment.ts";
export * from "./network.ts";
export * from "./route.ts";
export * from "./schema.ts";
export * from "./service.ts";
export * from "./stats.ts";

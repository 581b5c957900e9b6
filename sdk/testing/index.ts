/** For tests of one package, with no proxy, no socket and a clock that the test moves. */

export * from "./chunkings.ts";
export * from "./client-codec.ts";
export * from "./clock.ts";
export * from "./cluster.ts";
export * from "./codec.ts";
export * from "./conformance.ts";
export * from "./connection.ts";
export * from "./context.ts";
export * from "./defaults.ts";
export * from "./http.ts";
export * from "./log-entry.ts";
export * from "./network.ts";
export * from "./place.ts";
export * from "./sample.ts";

import type { CloseEvent } from "@tsproxy/sdk";
import { expect, it } from "vitest";
import { connectFailure, isBindError } from "./connect-failure.ts";

const failed = (error: string): CloseEvent => ({
  by: "local",
  phase: "connecting",
  timeout: false,
  error,
});
const to = { ip: "10.0.0.1", port: 80 };
const from = { ip: "192.0.2.7", port: 0 };

it("says in Envoy's words why nothing could be reached", () => {
  expect(connectFailure(failed("ECONNREFUSED"), to, undefined)).toBe(
    "delayed_connect_error: Connection refused",
  );
  const socket = { ip: "", port: 0, path: "/up.sock" };
  expect(connectFailure(failed("ENOENT"), socket, undefined)).toBe(
    "immediate_connect_error: No such file or directory|remote address:/up.sock",
  );
  expect(connectFailure({ ...failed("X"), timeout: true }, to, undefined)).toBe("");
});

it("tells an address that could not be bound to from a peer that could not be reached", () => {
  const event = failed("EADDRNOTAVAIL");
  expect(isBindError(event, from)).toBe(true);
  expect(connectFailure(event, to, from)).toBe(
    "failed to bind to 192.0.2.7:0: Cannot assign requested address",
  );
  expect(connectFailure(failed("EADDRINUSE"), to, { ...from, port: 81 })).toBe(
    "failed to bind to 192.0.2.7:81: Address already in use",
  );
  expect(connectFailure(failed("EINVAL"), to, { ip: "::1", port: 0 })).toBe(
    "failed to bind to [::1]:0: Address family not supported by protocol",
  );
  // Nothing was asked for: the system had no port left.
  expect(isBindError(event, undefined)).toBe(false);
});

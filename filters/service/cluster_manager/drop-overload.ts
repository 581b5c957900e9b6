// Hot path: asked for every request.
import { ConfigError, type Runtime, RuntimeInteger } from "@tsproxy/sdk";
import { type ClusterConfig, dropOf } from "./config.ts";

/** Runtime says so much percent at most. Envoy reads it when it loads a cluster; here it may change while the cluster serves. */
const LIMIT = "load_balancing_policy.drop_overload_limit";
const MOST = 100;

/** `drop_overloads`: the part of a cluster's requests that is turned away, 0 to 1. */
export class DropOverload {
  readonly #part: number;
  readonly #limit: RuntimeInteger;

  constructor(config: ClusterConfig, runtime: Runtime) {
    const { numerator, denominator } = dropOf(config);
    this.#part = numerator / denominator;
    this.#limit = new RuntimeInteger({ default_value: MOST, runtime_key: LIMIT }, runtime);
  }

  get value(): number {
    return this.#part === 0 ? 0 : Math.min(this.#part, this.#limit.value / MOST);
  }
}

/** As in Envoy, a config whose runtime names a limit that cannot be is refused, if a cluster has something to drop. */
export function checkDropLimit(config: ClusterConfig, at: string, runtime: Runtime): void {
  if ((config.load_assignment?.policy?.drop_overloads ?? []).length === 0) return;
  const limit = runtime.integer(LIMIT, MOST);
  if (limit > MOST)
    throw new ConfigError(
      `${at}.load_assignment.policy.drop_overloads`,
      `is limited by the runtime key ${LIMIT}, which is ${limit}; the valid range is 0 to ${MOST}`,
    );
}

import { formatAddress } from "@tsproxy/sdk";
import { type Answer, json, text } from "./answer.ts";
import type { CoreData } from "./core-data.ts";
import { addressJson } from "./host-json.ts";
import type { Query } from "./query.ts";

/** `/listeners` */
export async function listeners(query: Query, core: CoreData): Promise<Answer> {
  const all = await core.listeners();
  if (query.wantsJson) {
    return json({
      listener_statuses: all.map((listener) => ({
        name: listener.name,
        local_address: addressJson(listener.address),
        ...(listener.additional.length > 0 && {
          additional_local_addresses: listener.additional.map(addressJson),
        }),
      })),
    });
  }
  return text(
    all.map(({ name, address, additional }) =>
      [address, ...additional].map((at) => `${name}::${formatAddress(at)}\n`).join(""),
    ),
  );
}

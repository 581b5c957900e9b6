import type { AddressConfig, ThreadConfig, ToListen } from "../protocol.ts";
import { listenerOf, socketNumber } from "../protocol.ts";
import type { ListeningSockets } from "./listening-sockets.ts";

interface BoundSocket {
  readonly name: string;
  readonly address: AddressConfig;
}
/** A socket that could not be bound; those after it were not tried. */
interface BindFailure {
  readonly name: string;
  readonly code: string;
  readonly message: string;
}

/** Binds sockets as the config of their listeners has it. One of the same name is closed first. */
export async function bindListeners(
  listening: ListeningSockets,
  wanted: readonly ToListen[],
  configs: ThreadConfig["listeners"],
): Promise<readonly BoundSocket[] | BindFailure> {
  const bound: BoundSocket[] = [];
  for (const { name, address, fd } of wanted) {
    const listener = listenerOf(name);
    const config = configs.find((known) => known.name === listener);
    const { path = "" } = listening.get(name) ?? {};
    const left = listening.unlisten(name);
    // Of an abstract socket there cannot be two, and another name may want its address next.
    if (path.startsWith("@")) await left;
    try {
      const options = {
        backlog: config?.backlog ?? 0,
        bufferBytes: config?.bufferBytes ?? 0,
        keepAlive: config?.keepAlive,
        ipv6Only: address.ip.includes(":") && address.ipv4Compat !== true,
        fd,
      };
      const at =
        address.udp === true
          ? await listening.listenUdp(name, address, options)
          : await listening.listen(name, address, options);
      bound.push({ name, address: at });
    } catch (error) {
      const { code = "", message } = error as NodeJS.ErrnoException;
      return { name, code, message };
    }
  }
  return bound;
}

/** Closes sockets that the config no longer has, and gives the others what it says of them. */
export function configureListeners(
  listening: ListeningSockets,
  configs: ThreadConfig["listeners"],
): void {
  for (const name of listening.names) {
    const config = configs.find(
      (known) => known.name === listenerOf(name) && socketNumber(name) < known.sockets,
    );
    if (config === undefined) void listening.unlisten(name);
    else listening.configure(name, config);
  }
}

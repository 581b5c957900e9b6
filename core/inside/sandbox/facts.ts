import {
  type DirectResponseAction,
  type DownstreamFacts,
  newStreamInfo,
  type RedirectAction,
  type Route,
  type RouteAction,
  type StreamInfo,
} from "@tsproxy/sdk";
import { ascii } from "../ascii.ts";
import { type Change, Mirror } from "./mirror.ts";

/** Facts as the stub sends them in JSON; parts that have not changed are missing. */
interface Told {
  readonly info?: StreamInfo;
  readonly route?: ToldRoute | null;
  readonly metadata?: readonly Change[];
  readonly filterState?: readonly Change[];
  readonly connectionState?: readonly Change[];
  readonly downstream?: Omit<DownstreamFacts, "metadata"> & {
    readonly metadata: readonly (readonly [string, Record<string, unknown>])[];
  };
}
type ToldRoute = Pick<
  Route,
  "name" | "virtualHostName" | "routeMetadata" | "virtualHostMetadata"
> & {
  readonly action: object;
};

/** The facts of one stream in the sandbox; ../parked-facts.ts is the other half. JSON is parsed when the filter reads a fact. */
export class Facts {
  #unread: string[] = [];
  #info: StreamInfo | undefined = undefined;
  #route: Route | undefined = undefined;
  #downstream: DownstreamFacts | undefined = undefined;
  #metadata: Map<string, Record<string, unknown>> | undefined = undefined;
  #filterState: Map<string, unknown> | undefined = undefined;
  #connectionState: Map<string, unknown> | undefined = undefined;
  #mirrors: Readonly<Record<"metadata" | "filterState" | "connectionState", Mirror>> | undefined =
    undefined;

  push(text: string): void {
    this.#unread.push(text);
  }

  get info(): StreamInfo {
    this.#read();
    return (this.#info ??= newStreamInfo());
  }
  get route(): Route | undefined {
    this.#read();
    return this.#route;
  }
  get downstream(): DownstreamFacts | undefined {
    this.#read();
    return this.#downstream;
  }
  get metadata(): Map<string, Record<string, unknown>> {
    this.#read();
    return (this.#metadata ??= new Map());
  }
  get filterState(): Map<string, unknown> {
    this.#read();
    return (this.#filterState ??= new Map());
  }
  get connectionState(): Map<string, unknown> {
    this.#read();
    return (this.#connectionState ??= new Map());
  }

  #read(): void {
    if (this.#unread.length === 0) return;
    const texts = this.#unread;
    this.#unread = [];
    for (const text of texts) this.#take(JSON.parse(text) as Told);
  }

  #take(told: Told): void {
    const { info, route, metadata, filterState, connectionState, downstream } = told;
    if (info !== undefined) this.#info = info;
    if (route !== undefined) this.#route = route === null ? undefined : new ToldOnlyRoute(route);
    if (downstream !== undefined)
      this.#downstream = { ...downstream, metadata: new Map(downstream.metadata) };
    if (metadata !== undefined) {
      this.#metadata ??= new Map();
      this.#mirror("metadata").apply(this.#metadata as Map<string, unknown>, metadata);
    }
    if (filterState !== undefined)
      this.#mirror("filterState").apply((this.#filterState ??= new Map()), filterState);
    if (connectionState !== undefined)
      this.#mirror("connectionState").apply((this.#connectionState ??= new Map()), connectionState);
  }

  #mirror(name: "metadata" | "filterState" | "connectionState"): Mirror {
    this.#mirrors ??= {
      metadata: new Mirror(),
      filterState: new Mirror(),
      connectionState: new Mirror(),
    };
    return this.#mirrors[name];
  }

  /** JSON in ASCII of what the filter has set since the chain was told; "" if nothing. */
  changes(): string {
    let text = "";
    for (const name of ["metadata", "filterState", "connectionState"] as const) {
      const map =
        name === "metadata"
          ? this.#metadata
          : name === "filterState"
            ? this.#filterState
            : this.#connectionState;
      if (map === undefined) continue;
      const changes = this.#mirror(name).changes(map);
      if (changes !== "") text += `${text === "" ? "{" : ","}"${name}":${changes}`;
    }
    return text === "" ? "" : ascii(`${text}}`);
  }
}

/** The plain values of a route. Its methods need the route's own package and throw. */
class ToldOnlyRoute implements Route {
  readonly name: string;
  readonly virtualHostName: string;
  readonly action: RouteAction | RedirectAction | DirectResponseAction;
  readonly routeMetadata: Route["routeMetadata"];
  readonly virtualHostMetadata: Route["virtualHostMetadata"];

  constructor({ name, virtualHostName, action, routeMetadata, virtualHostMetadata }: ToldRoute) {
    this.name = name;
    this.virtualHostName = virtualHostName;
    this.action = action as Route["action"];
    this.routeMetadata = routeMetadata;
    this.virtualHostMetadata = virtualHostMetadata;
  }
  editRequest(): void {
    throw new Error("route.editRequest is not available in a sandbox");
  }
  editResponse(): void {
    throw new Error("route.editResponse is not available in a sandbox");
  }
  filterConfig(): unknown {
    throw new Error("route.filterConfig is not available in a sandbox; stream.routeConfig is");
  }
  filterConfigs(): readonly unknown[] {
    throw new Error("route.filterConfigs is not available in a sandbox; stream.routeConfigs is");
  }
}

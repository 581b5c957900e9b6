// Hot path: header scripts (test/bench/cpu.ts lua).
import { type HeaderMap, type Log, RequestHeaders, ResponseHeaders } from "@tsproxy/sdk";
import {
  type Args,
  hostFunction,
  integerArgument,
  kind,
  type LuaFunction,
  type LuaTable,
  libraryError,
  NONE,
  textArgument,
  Userdata,
} from "@tsproxy/sdk/lua";

/** Framing and hop-by-hop fields are the codec's own: a filter in a sandbox cannot set them. */
const FRAMING = new Set(
  "content-length transfer-encoding connection keep-alive proxy-connection te trailer upgrade".split(
    " ",
  ),
);
const KEPT = new Set(["transfer-encoding", "connection", "upgrade"]);

/** `headers()`, `trailers()`: one block, with the pseudo headers of its kind. */
export class HeadersData extends Userdata {
  readonly map: HeaderMap;
  /** The block has not gone on. */
  readonly mayEdit: () => boolean;
  iterating = false;
  edited = false;

  constructor(metatable: LuaTable, map: HeaderMap, mayEdit: () => boolean) {
    super(metatable);
    this.map = map;
    this.mayEdit = mayEdit;
  }

  /** A name as scripts write it. */
  name(args: Args, of: string): string {
    const name = textArgument(args, 1, of).toLowerCase();
    return name === "host" && this.map instanceof RequestHeaders ? ":authority" : name;
  }

  /** All values of a name. */
  values(name: string): string[] {
    const { map } = this;
    if (name.charCodeAt(0) !== 58) return isName(name) ? map.getAll(name) : [];
    const value = pseudo(map, name);
    return value === undefined ? [] : [value];
  }

  get(name: string): string | undefined {
    const { map } = this;
    if (name.charCodeAt(0) === 58) return pseudo(map, name);
    if (!isName(name)) return undefined;
    const values = map.getAll(name);
    return values.length < 2 ? values[0] : values.join();
  }

  /** Of a pseudo header there is one, which a further value joins. */
  add(name: string, value: string): void {
    const { map } = this;
    if (name.charCodeAt(0) === 58) {
      const before = pseudo(map, name);
      this.replace(name, before === undefined ? value : `${before},${value}`);
    } else if (mayName(name) && mayCarry(value)) map.append(name, value);
  }

  replace(name: string, value: string): void {
    const { map } = this;
    if (name.charCodeAt(0) === 58) setPseudo(map, name, value);
    else if (mayName(name) && mayCarry(value)) map.set(name, value);
  }

  remove(name: string): void {
    if (name.charCodeAt(0) !== 58 && isName(name) && !KEPT.has(name)) this.map.remove(name);
  }

  /** In Envoy's order: pseudo headers, then the lines as they came. */
  *entries(): Generator<readonly [string, string]> {
    const { map } = this;
    const isRequest = map instanceof RequestHeaders;
    const names = isRequest ? REQUEST : map instanceof ResponseHeaders ? RESPONSE : NONE;
    for (const name of names) {
      const value = pseudo(map, name);
      if (value !== undefined) yield [name, value];
    }
    for (const entry of map) if (!isRequest || entry[0] !== "host") yield entry;
  }
}

const REQUEST = [":authority", ":path", ":method", ":scheme"];
const RESPONSE = [":status"];

function pseudo(map: HeaderMap, name: string): string | undefined {
  if (map instanceof RequestHeaders) {
    switch (name) {
      case ":path":
        return map.path;
      case ":method":
        return map.method;
      case ":authority":
        return map.authority;
      case ":scheme":
        return map.scheme;
    }
  } else if (map instanceof ResponseHeaders && name === ":status") return String(map.status);
  return undefined;
}

/** What the codecs could not write is refused here, where the script can see it. */
function setPseudo(map: HeaderMap, name: string, value: string): void {
  if (map instanceof RequestHeaders) {
    switch (name) {
      case ":path":
        if (!/^(?:\/[!-"$-~\x80-\xff]*|\*)$/.test(value))
          throw libraryError(`invalid :path '${value}'`);
        map.path = value;
        return;
      case ":method": {
        const isFixed = (method: string): boolean => method === "HEAD" || method === "CONNECT";
        if (!/^[!#$%&'*+.^_`|~\w-]{1,64}$/.test(value))
          throw libraryError(`invalid :method '${value}'`);
        if (value !== map.method && (isFixed(value) || isFixed(map.method)))
          throw libraryError(`:method cannot change from '${map.method}' to '${value}'`);
        map.method = value;
        return;
      }
      case ":authority":
        if (!/^[\w.~:[\]%!$&'()*+;=-]+$/.test(value))
          throw libraryError(`invalid :authority '${value}'`);
        map.authority = value;
        return;
      case ":scheme":
        // The upstream's scheme follows from its transport.
        return;
    }
  } else if (map instanceof ResponseHeaders && name === ":status") {
    const status = Number(value);
    const isBodiless = (s: number): boolean => s === 204 || s === 304;
    if (!/^[2-5]\d\d$/.test(value)) throw libraryError(`invalid :status '${value}'`);
    if (isBodiless(status) !== isBodiless(map.status))
      throw libraryError(
        `:status cannot change from ${map.status} to ${value}: one of them has no body`,
      );
    map.status = status;
    return;
  }
  throw libraryError(`unknown header '${name}'`);
}

const TOKEN = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
const known = new Set<string>();

/** Scripts name few headers, over and over. */
function isName(name: string): boolean {
  if (known.has(name)) return true;
  if (!TOKEN.test(name)) return false;
  if (known.size < 1024) known.add(name);
  return true;
}

function mayName(name: string): boolean {
  if (!isName(name)) throw libraryError(`invalid header name '${name}'`);
  // Envoy would write them and break the message; the body's length is told by whoever frames it.
  return !FRAMING.has(name);
}

function mayCarry(value: string): boolean {
  for (let k = 0; k < value.length; k++) {
    const code = value.charCodeAt(k);
    if ((code < 32 && code !== 9) || code === 127) throw libraryError("invalid header value");
  }
  return true;
}

function editable(self: HeadersData): HeadersData {
  if (self.iterating) throw libraryError("header map cannot be modified while iterating");
  if (!self.mayEdit()) throw libraryError("header map can no longer be modified");
  self.edited = true;
  return self;
}

export function headersKind(log: Log): LuaTable {
  return kind(log, HeadersData, {
    add: (self, args) => {
      const name = self.name(args, "add");
      const value = textArgument(args, 2, "add");
      editable(self).add(name, value);
      return NONE;
    },
    // What is not there is no value at all, not nil: `tostring(headers:get("x"))` is an error then, as in Envoy.
    get: (self, args) => self.get(self.name(args, "get")) ?? NONE,
    getAtIndex: (self, args) => {
      const values = self.values(self.name(args, "getAtIndex"));
      const at = integerArgument(args, 2, "getAtIndex");
      return values[at] ?? NONE;
    },
    getNumValues: (self, args) => self.values(self.name(args, "getNumValues")).length,
    remove: (self, args) => {
      const name = self.name(args, "remove");
      editable(self).remove(name);
      return NONE;
    },
    replace: (self, args) => {
      const name = self.name(args, "replace");
      const value = textArgument(args, 2, "replace");
      editable(self).replace(name, value);
      return NONE;
    },
    setHttp1ReasonPhrase: (self, args) => {
      textArgument(args, 1, "setHttp1ReasonPhrase");
      editable(self);
      return NONE;
    },
    __pairs: (self) => {
      if (self.iterating)
        throw libraryError("cannot create a second iterator before completing the first");
      const entries = self.entries();
      self.iterating = true;
      const next: LuaFunction = () => {
        const step = entries.next();
        if (step.done !== true) return [step.value[0], step.value[1]];
        self.iterating = false;
        return undefined;
      };
      return hostFunction("headers_next", next);
    },
  });
}

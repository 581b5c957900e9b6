// Hot path: header scripts (test/bench/cpu.ts lua).
import {
  type HeaderMap,
  type HeaderName,
  type HttpStream,
  headerName,
  type Log,
  RequestHeaders,
  ResponseHeaders,
  WISH,
} from "@tsproxy/sdk";
import {
  hostFunction,
  integerArgument,
  kind,
  type LuaFunction,
  type LuaTable,
  libraryError,
  NONE,
  type Scope,
  textArgument,
  textOf,
  Userdata,
} from "@tsproxy/sdk/lua";

/** What a header block needs of the run that hands it to the script. */
interface BlockLender {
  readonly script: { readonly tables: { readonly headers: LuaTable } };
  readonly scope: Scope;
}
/** What a head needs of its run, to tell whether it may still be edited. */
interface HeadOwner {
  readonly stream: HttpStream;
  readonly headersGone: boolean;
  readonly isEmpty: boolean;
  headersEdited: boolean;
}

/** Framing and hop-by-hop fields, which belong to the codec: a filter in a sandbox cannot set them. */
const FRAMING = new Set(
  "content-length transfer-encoding connection keep-alive proxy-connection te trailer upgrade".split(
    " ",
  ),
);
/** Framing fields that a script cannot remove either. */
const KEPT = new Set(["transfer-encoding", "connection", "upgrade"]);
const TOKEN = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;

/** A header name as a script spells it, with what follows from it. */
interface Spelling {
  /** In lower case. */
  readonly text: string;
  readonly isPseudo: boolean;
  /** Undefined: the text is not a valid header name, or is a pseudo header. */
  readonly name: HeaderName | undefined;
  readonly isFraming: boolean;
  readonly isKept: boolean;
}

const AUTHORITY: Spelling = spell(":authority");
const spellings = new Map<string, Spelling>();
const SPELLINGS_KEPT = 1024;

/** Looks up a name. Results are kept, since scripts use the same few names over and over. */
function spellingOf(written: string): Spelling {
  let found = spellings.get(written);
  if (found === undefined) {
    found = spell(written.toLowerCase());
    if (spellings.size < SPELLINGS_KEPT) spellings.set(written, found);
  }
  return found;
}

function spell(text: string): Spelling {
  const isPseudo = text.startsWith(":");
  const name = !isPseudo && TOKEN.test(text) ? headerName(text) : undefined;
  return { text, isPseudo, name, isFraming: FRAMING.has(text), isKept: KEPT.has(text) };
}

/** What `headers()` and `trailers()` return: one header block, with the pseudo headers of its kind. */
export class HeadersData extends Userdata {
  readonly map: HeaderMap;
  readonly #isRequest: boolean;
  /** The run whose head this is; undefined: trailers, or another run's head, which may be edited at any time. */
  readonly #owner: HeadOwner | undefined;
  iterating = false;

  constructor(map: HeaderMap, { script, scope }: BlockLender, owner?: HeadOwner) {
    super(script.tables.headers, scope);
    this.map = map;
    this.#isRequest = map instanceof RequestHeaders;
    this.#owner = owner;
  }

  /** Called before each edit. Throws LuaError if the head has been forwarded, or while the script iterates over the block. */
  beforeEdit(): void {
    if (this.iterating) throw libraryError("header map cannot be modified while iterating");
    const owner = this.#owner;
    if (owner === undefined) return;
    if (owner.headersGone) throw libraryError("header map can no longer be modified");
    owner.headersEdited = true;
  }

  spelling(written: string): Spelling {
    const spelling = spellingOf(written);
    return this.#isRequest && spelling.text === "host" ? AUTHORITY : spelling;
  }

  /** All values of a header. */
  values({ text, isPseudo, name }: Spelling): string[] {
    if (!isPseudo) return name === undefined ? [] : this.map.getAll(name);
    const value = pseudo(this.map, text);
    return value === undefined ? [] : [value];
  }

  /** All values of a header, joined with commas; undefined: there is no such header. */
  get({ text, isPseudo, name }: Spelling): string | undefined {
    const { map } = this;
    if (name === undefined) return isPseudo ? pseudo(map, text) : undefined;
    const at = map.find(name);
    const isAdded = map.lines.length > 0 || isIn(map.added, text);
    if (!isAdded && (at < 0 || map.find(name, at + 1) < 0))
      return at < 0 ? undefined : map.textAt(at);
    const values = map.getAll(name);
    return values.length === 0 ? undefined : values.join();
  }

  /** Adds a line. A pseudo header has only one, so its value is extended after a comma. */
  add(spelling: Spelling, value: string): void {
    const { map } = this;
    if (spelling.isPseudo) {
      const before = pseudo(map, spelling.text);
      this.#setPseudo(spelling.text, before === undefined ? value : `${before},${value}`);
      return;
    }
    const name = settable(spelling, value);
    if (name === undefined) return;
    if (name.joined === 0) map.added.push(name.text, value);
    else map.append(name, value);
  }

  replace(spelling: Spelling, value: string): void {
    const { map } = this;
    if (spelling.isPseudo) {
      this.#setPseudo(spelling.text, value);
      return;
    }
    const name = settable(spelling, value);
    if (name === undefined) return;
    map.remove(name);
    map.added.push(name.text, value);
  }

  #setPseudo(name: string, value: string): void {
    const { map } = this;
    if (name === ":status" && map instanceof ResponseHeaders)
      setStatus(map, value, this.#owner?.isEmpty === true);
    else setPseudo(map, name, value);
  }

  remove({ name, isKept }: Spelling): void {
    if (name !== undefined && !isKept) this.map.remove(name);
  }

  /** Sets the reason phrase of an HTTP/1 response; "" restores the usual one. Has no effect on other blocks. */
  setReason(text: string): void {
    if (this.#owner === undefined || !(this.map instanceof ResponseHeaders)) return;
    const { filterState } = this.#owner.stream;
    if (text === "") filterState.delete(WISH.REASON_PHRASE);
    else filterState.set(WISH.REASON_PHRASE, text);
  }

  /** All lines in Envoy's order: pseudo headers, then the others as they came. */
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

/** Whether `added`, names and values in turn, has that name. */
function isIn(added: readonly string[], name: string): boolean {
  for (let k = 0; k < added.length; k += 2) if (added[k] === name) return true;
  return false;
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

/** Sets a pseudo header. Throws LuaError for a value that the codecs could not write. */
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
  }
  throw libraryError(`unknown header '${name}'`);
}

/** Sets the status. Throws LuaError if 204 or 304 becomes a status with a body, unless the response has none (`isEmpty`). */
function setStatus(map: ResponseHeaders, value: string, isEmpty: boolean): void {
  const status = Number(value);
  const isBodiless = (s: number): boolean => s === 204 || s === 304;
  if (!/^[2-5]\d\d$/.test(value)) throw libraryError(`invalid :status '${value}'`);
  if (isBodiless(map.status) && !isBodiless(status) && !isEmpty)
    throw libraryError(`:status cannot change from ${map.status}, which has no body, to ${value}`);
  map.status = status;
}

/** The name under which a value may be set; undefined: the edit is ignored. Throws LuaError for an invalid name or value. */
function settable({ text, name, isFraming }: Spelling, value: string): HeaderName | undefined {
  if (name === undefined) throw libraryError(`invalid header name '${text}'`);
  for (let k = 0; k < value.length; k++) {
    const code = value.charCodeAt(k);
    if ((code < 32 && code !== 9) || code === 127) throw libraryError("invalid header value");
  }
  // Envoy would write framing fields and break the message; here only the codec, which frames the body, writes them.
  return isFraming && !(text === "te" && value === "trailers") ? undefined : name;
}

export function headersKind(log: Log): LuaTable {
  return kind(
    log,
    "HttpFilters.Lua.HeaderMapWrapper",
    HeadersData,
    {
      getAtIndex: (self, args) => {
        const values = self.values(self.spelling(textArgument(args, 1, "getAtIndex")));
        const at = integerArgument(args, 2, "getAtIndex");
        return values[at] ?? NONE;
      },
      getNumValues: (self, args) =>
        self.values(self.spelling(textArgument(args, 1, "getNumValues"))).length,
      setHttp1ReasonPhrase: (self, args) => {
        const reason = textArgument(args, 1, "setHttp1ReasonPhrase");
        self.beforeEdit();
        self.setReason(reason);
        return NONE;
      },
      __pairs: (self) => {
        if (self.iterating)
          throw libraryError("cannot create a second iterator before completing the first");
        const entries = self.entries();
        self.iterating = true;
        let isOver = false;
        const next: LuaFunction = () => {
          if (isOver || self.scope?.isOver === true)
            throw libraryError("object used outside of proper scope");
          const step = entries.next();
          if (step.done !== true) return [step.value[0], step.value[1]];
          isOver = true;
          self.iterating = false;
          return undefined;
        };
        return hostFunction("headers_next", next);
      },
    },
    {
      // A missing header returns no value at all, rather than nil: `tostring(headers:get("x"))` is then an error, as in Envoy.
      get: (self, name, _value, count) =>
        self.get(self.spelling(textOf(name, 1, count, "get"))) ?? NONE,
      add: (self, name, value, count) => {
        const spelling = self.spelling(textOf(name, 1, count, "add"));
        const text = textOf(value, 2, count, "add");
        self.beforeEdit();
        self.add(spelling, text);
        return NONE;
      },
      replace: (self, name, value, count) => {
        const spelling = self.spelling(textOf(name, 1, count, "replace"));
        const text = textOf(value, 2, count, "replace");
        self.beforeEdit();
        self.replace(spelling, text);
        return NONE;
      },
      remove: (self, name, _value, count) => {
        const spelling = self.spelling(textOf(name, 1, count, "remove"));
        self.beforeEdit();
        self.remove(spelling);
        return NONE;
      },
    },
  );
}

import fs from "node:fs";
import text from "./descriptor-additions.json" with { type: "json" };
import { violation } from "./rules.ts";

/** A protoc-gen-validate rule, as the .proto files write it. */
export type Rules = Readonly<Record<string, unknown>>;

/** A field of a protobuf message. */
export interface Field {
  /** Number on the wire. */
  readonly n: number;
  /** A scalar's protobuf name, or the full name of a message or enum. */
  readonly t: string;
  /** 1: `t` is an enum. */
  readonly e?: 1;
  /** 1: repeated. */
  readonly r?: 1;
  /** A map; the scalar type of its keys. */
  readonly k?: string;
  /** The name of its oneof. */
  readonly o?: string;
  /** 1: a scalar with presence (`optional`). */
  readonly p?: 1;
  /** 1: deprecated. */
  readonly d?: 1;
  /** Its validation rules, by type. */
  readonly v?: { readonly [type: string]: Rules };
}

/** A protobuf message of Envoy's API. */
export interface Message {
  readonly fields: { readonly [name: string]: Field };
  /** Oneofs of which one member must be set. */
  readonly required?: readonly string[];
  /** The full name of the message in v2. */
  readonly was?: string;
}

/** A field with validation rules. */
export interface RuledField {
  readonly name: string;
  readonly field: Field;
  /** The numbers of an enum's values; undefined: the field is no enum. */
  readonly values: { readonly [value: string]: number } | undefined;
  /** What the rules say if the field is absent; undefined: nothing. */
  readonly absent: string | undefined;
}

interface DescriptorFile {
  readonly messages: { readonly [name: string]: Message };
  readonly enums: { readonly [name: string]: { readonly [value: string]: number } };
  /** `envoy.filters.http.router` -> its config's message. */
  readonly extensions: { readonly [name: string]: string };
}

/** What Envoy 1.40 accepts beyond the .proto files. Field numbers are 0, since such fields are read from JSON alone. */
interface Additions extends DescriptorFile {
  /** Messages of which only the name is known. */
  readonly opaque: readonly string[];
  /** v3 names of v2 messages, where no `previous_message_type` in the .proto files gives them. */
  readonly former: Readonly<Record<string, string>>;
}
const additions = text as unknown as Additions;

const FILE = new URL("./descriptor.json", import.meta.url);
let loaded: Descriptor | undefined;

/** Envoy's v3 messages. Read once; throws if the file has not been generated. */
export function descriptor(): Descriptor {
  loaded ??= new Descriptor(read());
  return loaded;
}

function read(): DescriptorFile {
  try {
    return JSON.parse(fs.readFileSync(FILE, "utf8")) as DescriptorFile;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    throw new Error(`core/config/descriptor.json is missing; run "npm run descriptor"`);
  }
}

/** Envoy's messages, enums and extensions, by name. */
export class Descriptor {
  readonly extensions: ReadonlyMap<string, string>;
  readonly #messages = new Map<string, Message>();
  readonly #enums: DescriptorFile["enums"];
  /** v2 full name -> v3 full name. */
  readonly #former = new Map<string, string>();
  readonly #opaque = new Set<string>(additions.opaque);
  readonly #ruled = new Map<string, readonly RuledField[]>();
  readonly #byJsonName = new Map<string, ReadonlyMap<string, string>>();

  constructor(file: DescriptorFile) {
    for (const [name, message] of Object.entries(file.messages)) this.#messages.set(name, message);
    for (const [name, added] of Object.entries(additions.messages)) {
      const known = this.#messages.get(name);
      this.#messages.set(name, {
        ...known,
        ...added,
        fields: { ...known?.fields, ...added.fields },
      });
    }
    for (const [name, message] of this.#messages)
      if (message.was !== undefined && !this.#former.has(message.was))
        this.#former.set(message.was, name);
    for (const [old, now] of Object.entries(additions.former)) this.#former.set(old, now);
    this.#enums = { ...file.enums };
    for (const [name, values] of Object.entries(additions.enums))
      this.#enums = { ...this.#enums, [name]: { ...this.#enums[name], ...values } };
    this.extensions = new Map(Object.entries({ ...file.extensions, ...additions.extensions }));
  }

  message(name: string): Message | undefined {
    return this.#messages.get(name);
  }
  /** The message's fields that have rules. */
  ruled(type: string): readonly RuledField[] {
    let ruled = this.#ruled.get(type);
    if (ruled === undefined) {
      ruled = Object.entries(this.#messages.get(type)?.fields ?? {}).flatMap(([name, field]) =>
        field.v === undefined
          ? []
          : {
              name,
              field,
              values: field.e === 1 ? this.enum(field.t) : undefined,
              absent: violation(field, undefined),
            },
      );
      this.#ruled.set(type, ruled);
    }
    return ruled;
  }
  enum(name: string): { readonly [value: string]: number } | undefined {
    return this.#enums[name];
  }
  /** True if Envoy has that message; its fields may be unknown here. */
  knows(type: string): boolean {
    return this.#messages.has(type) || this.#opaque.has(type);
  }
  /** The v3 name of a v2 message; undefined if it is none. */
  successor(type: string): string | undefined {
    return this.#messages.has(type) ? undefined : this.#former.get(type);
  }
  /** Messages in the same proto package as this one. */
  siblings(type: string): string[] {
    const space = type.slice(0, type.lastIndexOf(".") + 1);
    return [...this.#messages.keys()].filter(
      (name) => name.startsWith(space) && !name.slice(space.length).includes("."),
    );
  }
  /** The name of the field that a user's key means: that name itself, or in lowerCamelCase. Undefined: there is no such field. */
  fieldName(type: string, key: string): string | undefined {
    const message = this.#messages.get(type);
    if (message === undefined) return undefined;
    if (Object.hasOwn(message.fields, key)) return key;
    let names = this.#byJsonName.get(type);
    if (names === undefined) {
      names = new Map(Object.keys(message.fields).map((name) => [camelCase(name), name]));
      this.#byJsonName.set(type, names);
    }
    return names.get(key);
  }
  /** All types, for "did you mean". */
  types(): Iterable<string> {
    return this.#messages.keys();
  }
}

/** A field's JSON name in protobuf: underscores are removed, and the letters after them become upper case. */
export function camelCase(name: string): string {
  return name.replace(/_(.?)/g, (_, letter: string) => letter.toUpperCase());
}
/** The reverse of `camelCase`. */
export function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

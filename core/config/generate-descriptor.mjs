// Builds descriptor.json: what core knows of Envoy's v3 messages (fields, types, oneofs, validate rules, former v2 names),
// read from the .proto files that @grpc/grpc-js-xds brings along. Run by `npm run descriptor`; any Node from 20 on will do.
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
// biome-ignore lint/correctness/noUndeclaredDependencies: run where the workspace is built, from the root's devDependencies.
import protobuf from "protobufjs";

const require = createRequire(import.meta.url);
const deps = path.join(path.dirname(require.resolve("@grpc/grpc-js-xds/package.json")), "deps");
const roots = [
  ...["envoy-api", "xds", "googleapis", "protoc-gen-validate"].map((d) => path.join(deps, d)),
  path.dirname(require.resolve("protobufjs/package.json")),
];
const target = new URL("./descriptor.json", import.meta.url);

// v2 is rewritten to v3 by name (previous_message_type); its own files lack the v2 core they import.
const V2 = /\/v(1|2)(alpha\d*|beta\d*)?\/|\/redis\/[^/]*$|\/previous_priorities\/[^/]*$/;

// An [#extension: …] comment stands above the first message of its file. Where the extension's config is another one:
const MAIN_MESSAGES = {
  "envoy.filters.http.fault": "envoy.extensions.filters.http.fault.v3.HTTPFault",
  "envoy.filters.http.jwt_authn": "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
  "envoy.transport_sockets.tls": "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
};

const files = protoFiles(path.join(deps, "envoy-api", "envoy")).filter(
  (file) => file.includes("/v3") && !V2.test(file.slice(deps.length)),
);

const root = new protobuf.Root();
const parsed = new Set();
for (const file of files) parse(file);
for (const space of [path.join("xds", "type"), path.join("udpa", "type")])
  for (const file of protoFiles(path.join(deps, "xds", space))) parse(file);

const messages = {};
const enums = {};
collect(root);

const extensions = {};
for (const file of files) collectExtensions(fs.readFileSync(file, "utf8"));
Object.assign(extensions, MAIN_MESSAGES);

const text = JSON.stringify({ messages, enums, extensions });
fs.writeFileSync(target, text);
console.log(
  `descriptor.json: ${Object.keys(messages).length} messages, ${Object.keys(enums).length} enums, ${Math.round(text.length / 1024)} KB`,
);

function parse(file) {
  if (parsed.has(file)) return;
  parsed.add(file);
  const { imports } = protobuf.parse(fs.readFileSync(file, "utf8"), root, { keepCase: true });
  for (const name of imports ?? []) {
    const bundled = protobuf.common.get(name);
    const found = roots.map((r) => path.join(r, name)).find((f) => fs.existsSync(f));
    if (bundled !== null) parseBundled(name, bundled);
    else if (found !== undefined) parse(found);
  }
}

function parseBundled(name, bundled) {
  if (parsed.has(name)) return;
  parsed.add(name);
  root.addJSON(bundled.nested);
}

function protoFiles(folder) {
  return fs
    .readdirSync(folder, { recursive: true })
    .filter((f) => f.endsWith(".proto"))
    .map((f) => path.join(folder, f))
    .sort();
}

function collect(space) {
  for (const child of space.nestedArray ?? []) {
    const name = child.fullName.slice(1);
    if (child instanceof protobuf.Enum) enums[name] = enumOf(child);
    else if (child instanceof protobuf.Type) messages[name] = messageOf(child);
    if (!name.startsWith("google.protobuf") && !name.startsWith("validate")) collect(child);
  }
}

function enumOf(type) {
  const values = {};
  for (const [name, number] of Object.entries(type.values)) values[name] = number;
  return values;
}

function messageOf(type) {
  const fields = {};
  for (const field of type.fieldsArray) fields[field.name] = fieldOf(field);
  const message = { fields };
  const required = type.oneofsArray.filter((o) => option(o, "(validate.required)") === true);
  if (required.length > 0) message.required = required.map((o) => o.name);
  const was = option(type, "(udpa.annotations.versioning)")?.previous_message_type;
  if (was !== undefined) message.was = was;
  return message;
}

function fieldOf(field) {
  const resolved = resolve(field);
  const out = { n: field.id, t: resolved ? resolved.fullName.slice(1) : field.type };
  if (resolved instanceof protobuf.Enum) out.e = 1;
  if (field.map) out.k = field.keyType;
  else if (field.repeated) out.r = 1;
  const oneof = field.partOf;
  // A proto3 `optional` field is the only member of a oneof made up for it.
  if (oneof && !oneof.isProto3Optional) out.o = oneof.name;
  if (field.options?.proto3_optional) out.p = 1;
  if (field.options?.deprecated === true) out.d = 1;
  const rules = option(field, "(validate.rules)");
  if (rules !== undefined) out.v = rules;
  return out;
}

/** The message or enum of a field. A few are in files that the package leaves out (opencensus): those stay names. */
function resolve(field) {
  try {
    return field.resolve().resolvedType;
  } catch {
    return null;
  }
}

/** The value of an option, its parts merged: `[(a).b = 1, (a).c = 2]` is parsed as two. */
function option(object, name) {
  let found;
  for (const parsed of object.parsedOptions ?? []) {
    if (!(name in parsed)) continue;
    found = typeof parsed[name] === "object" ? merge(found ?? {}, parsed[name]) : parsed[name];
  }
  return found ?? (typeof object.options?.[name] === "boolean" ? object.options[name] : undefined);
}

function merge(into, from) {
  for (const [key, value] of Object.entries(from))
    into[key] =
      typeof value === "object" && !Array.isArray(value) && typeof into[key] === "object"
        ? merge(into[key], value)
        : value;
  return into;
}

function collectExtensions(source) {
  const space = /^package ([\w.]+);/m.exec(source)?.[1];
  for (const mark of source.matchAll(/\[#extension: ([\w.]+)\]/g)) {
    const message = /^message (\w+)/m.exec(source.slice(mark.index))?.[1];
    if (message !== undefined) extensions[mark[1]] ??= `${space}.${message}`;
  }
}

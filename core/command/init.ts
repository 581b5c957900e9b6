import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { jsonSchema } from "../config/json-schema.ts";
import { Catalog } from "../packages/catalog.ts";
import { shortPath } from "../problem.ts";

export interface SchemaOptions {
  readonly filters: readonly string[];
  readonly trust: readonly string[];
}

/** The JSON Schema of configs, as the shipped packages and those in these directories take them. */
async function schemaText({ filters, trust }: SchemaOptions): Promise<string> {
  const catalog = await Catalog.open(trust);
  const units = await catalog.units(filters);
  catalog.dispose();
  const packages = units.flatMap((unit) => unit.next?.infos ?? []);
  return `${JSON.stringify(jsonSchema(packages))}\n`;
}

export async function printSchema(options: SchemaOptions): Promise<number> {
  process.stdout.write(await schemaText(options));
  return 0;
}

const SCHEMA = "tsproxy.schema.json";

/** Writes a config to start from, and the JSON Schema by which an editor completes and checks it. Answers the exit code. */
export async function init(file: string, options: SchemaOptions, json: boolean): Promise<number> {
  const schema = path.join(path.dirname(file), SCHEMA);
  const tell = (errors: readonly string[]) =>
    process.stdout.write(
      `${JSON.stringify({ file, schema, ok: errors.length === 0, errors }, undefined, 2)}\n`,
    );
  if (existsSync(file)) {
    const error = `${shortPath(file)} is there already; name another file`;
    if (json) tell([error]);
    else process.stderr.write(`${error}\n`);
    return 1;
  }
  await writeFile(schema, await schemaText(options));
  await writeFile(file, START);
  if (json) {
    tell([]);
    return 0;
  }
  process.stdout.write(`wrote ${shortPath(file)} and ${shortPath(schema)}
  npx tsproxy run -c ${shortPath(file)}
  curl http://localhost:8080/
  npx tsproxy schema > ${shortPath(schema)}    again when filters come or go
`);
  return 0;
}

const START = `# yaml-language-server: $schema=./${SCHEMA}
# Environment variables are not filled in, as in Envoy: envsubst < this | tsproxy run -c /dev/stdin
static_resources:
  listeners:
    - name: main
      address: { socket_address: { address: 127.0.0.1, port_value: 8080 } }
      filter_chains:
        - filters:
            - name: network/http_connection_manager
              config:
                stat_prefix: main
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: { prefix: /api/ }
                          route: { cluster: api }
                        - match: { prefix: / }
                          direct_response: { status: 200, body: { inline_string: "hello\\n" } }
                http_filters:
                  - name: http/router
                    config: {}
  clusters:
    - name: api
      type: STRICT_DNS
      connect_timeout: 1s
      load_assignment:
        cluster_name: api
        endpoints:
          - lb_endpoints:
              - endpoint: { address: { socket_address: { address: localhost, port_value: 3000 } } }
admin:
  address: { socket_address: { address: 127.0.0.1, port_value: 9901 } }
`;

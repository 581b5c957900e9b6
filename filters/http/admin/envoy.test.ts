import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { cluster, start } from "./test-admin.ts";

/** What Envoy 1.40 answered, by request. Long answers are cut after some 6,000 characters. */
const RECORDED = JSON.parse(
  readFileSync(new URL("./recorded-1.40.json", import.meta.url), "utf8"),
) as Readonly<Record<string, string>>;

function recorded(request: string): string {
  const answer = RECORDED[request];
  if (answer === undefined) throw new Error(`no recording of ${request}`);
  return answer;
}

describe("beside what Envoy 1.40 answered", () => {
  it("has the lines of /clusters", async () => {
    const world = { clusters: { clusters: [cluster("up", [10100])] } };
    const lines = (await start(world).ask("/clusters")).body.split("\n");
    const keys = (text: string[]) =>
      text.filter((line) => line !== "").map((line) => line.replace(/::[^:]*$/, ""));
    expect(keys(lines)).toEqual(
      keys(
        recorded("GET /clusters")
          .split("\n")
          .filter((line) => line.startsWith("up::")),
      ),
    );
  });

  it("has the JSON of /clusters", async () => {
    const counters = [
      ["@host|garb|127.0.0.1:10102|cx_total", 1],
      ["@host|garb|127.0.0.1:10102|rq_error", 1],
      ["@host|garb|127.0.0.1:10102|rq_total", 1],
    ] as const;
    const world = { clusters: { clusters: [cluster("garb", [10102])] }, stats: { counters } };
    const text = recorded("GET /clusters?format=json");
    const first = `${text.slice(0, text.indexOf('\n  },\n  {\n   "name": "echo"'))}\n  }\n ]\n}\n`;
    const { body } = await start(world).ask("/clusters?format=json");
    expect(JSON.parse(body)).toEqual(JSON.parse(first));
  });

  it("has the keys of /server_info", async () => {
    const text = recorded("GET /server_info");
    const head = JSON.parse(`${text.slice(0, text.indexOf(',\n "node"'))}\n}`);
    const ours = JSON.parse((await start().ask("/server_info")).body);
    expect(Object.keys(ours)).toEqual([...Object.keys(head), "node", "hot_restart_initializing"]);
    expect(Object.keys(ours.command_line_options)).toEqual(Object.keys(head.command_line_options));
    expect(ours).toMatchObject({ state: "LIVE", uptime_current_epoch: "35s" });
    expect(ours.node).toMatchObject({
      id: "n1",
      cluster: "c1",
      locality: { region: "r", zone: "", sub_zone: "" },
    });
  });

  it("prints /listeners to the byte", async () => {
    const t = start();
    const [main] = recorded("GET /listeners").split("\n");
    expect(main).toBe("main::127.0.0.1:10000");
    expect((await t.ask("/listeners")).body).toContain(`${main}\n`);
    const json = recorded("GET /listeners?format=json");
    const one = (await t.ask("/listeners?format=json")).body;
    const entry = json.slice(0, json.indexOf('\n  },\n  {\n   "name": "edge"'));
    expect(one.startsWith(entry)).toBe(true);
  });

  it("prints the stats that were recorded, as text and JSON, to the byte", async () => {
    const lines = recorded("GET /stats?filter=http.ing").split("\n");
    const scalars = lines
      .map((line) => /^(\S+): (\d+)$/.exec(line))
      .filter((match) => match !== null);
    const counters = scalars.map((match) => [match[1]!, Number(match[2])] as const);
    const { body } = await start({ stats: { counters: [...counters].reverse() } }).ask(
      "/stats?filter=http.ing",
    );
    expect(body).toBe(scalars.map((match) => `${match[0]}\n`).join(""));
    const json = recorded("GET /stats?format=json&filter=cluster.up.upstream_rq");
    const values = JSON.parse(json).stats.flatMap((s: { name?: string; value: number }) =>
      s.name === undefined ? [] : [[s.name, s.value]],
    );
    const ours = (await start({ stats: { counters: values } }).ask("/stats?format=json")).body;
    expect(ours).toBe(`${json.slice(0, json.indexOf(',{"histograms"'))}]}`);
  });

  it("prints the Prometheus lines that were recorded", async () => {
    const names = recorded("GET /stats?filter=^cluster.up\\.").split("\n");
    const counters = names
      .map((line) => /^(cluster\.up\.\S+): (\d+)$/.exec(line))
      .filter((match) => match !== null)
      .map((match) => [match[1]!, Number(match[2])] as const);
    const ours = new Set(
      (await start({ stats: { counters } }).ask("/stats/prometheus")).body.split("\n"),
    );
    // The last line of a cut answer is none.
    const lines = recorded("GET /stats/prometheus?filter=cluster.up\\.|http.ing")
      .split("\n")
      .slice(0, -1);
    expect(lines.length).toBeGreaterThan(50);
    expect(lines.filter((line) => !ours.has(line))).toEqual([]);
  });

  it("dumps a cluster as recorded", async () => {
    const text = recorded("GET /config_dump?resource=static_clusters&name_regex=^dead");
    const { "@type": _, ...dead } = JSON.parse(text).configs[0].cluster;
    const world = { bootstrap: { static_resources: { clusters: [dead, { name: "up" }] } } };
    const ours = (await start(world).ask("/config_dump?resource=static_clusters&name_regex=^dead"))
      .body;
    expect(ours).toBe(text);
  });

  it("has the commands that Envoy has, and what is our own apart", async () => {
    const paths = (text: string) =>
      [...text.matchAll(/^ {2}(\/[a-z_/]*)/gm)].map((match) => match[1]!);
    const theirs = new Set(paths(recorded("GET /help")));
    const help = (await start().ask("/help")).body;
    expect(paths(help)).toEqual([...theirs]);
    expect(help).toContain("\n    /filters: ");
  });
});

import { type Answer, html, text } from "./answer.ts";
import { certs } from "./certs.ts";
import { clusters } from "./clusters.ts";
import { configDump } from "./config-dump.ts";
import type { CoreData } from "./core-data.ts";
import { homePage } from "./home.ts";
import { listeners } from "./listeners.ts";
import { packages } from "./packages.ts";
import { prometheus } from "./prometheus.ts";
import type { Query } from "./query.ts";
import { runtime, runtimeModify } from "./runtime.ts";
import { ready, serverInfo } from "./server.ts";
import { stats } from "./stats.ts";

export interface Endpoint {
  readonly path: string;
  readonly help: string;
  /** Changes something: POST only. */
  readonly mutates?: boolean;
  readonly parameters?: readonly Parameter[];
  answer(query: Query, core: CoreData): Answer | Promise<Answer>;
}

export interface Parameter {
  readonly name: string;
  readonly help: string;
  readonly choices?: readonly string[];
}

const FORMAT: Parameter = { name: "format", help: "File format to use", choices: ["text", "json"] };
const USED_ONLY: Parameter = {
  name: "usedonly",
  help: "Only include stats that are not zero",
};
const STATS_FILTER: Parameter = {
  name: "filter",
  help: "Regular expression (RE2) that the names of stats are searched for",
};
const INVERT: Parameter = { name: "invert_filter", help: "Invert the filter regex" };

/** All that admin answers, by path. */
export const ENDPOINTS: readonly Endpoint[] = [
  { path: "/", help: "Admin home page", answer: () => html(homePage(ENDPOINTS)) },
  { path: "/certs", help: "print certs on machine", answer: certs },
  {
    path: "/clusters",
    help: "upstream cluster status",
    parameters: [
      FORMAT,
      {
        name: "filter",
        help: "Regular expression (RE2) that the names of clusters are searched for",
      },
    ],
    answer: clusters,
  },
  {
    path: "/config_dump",
    help: "dump the configuration that runs",
    parameters: [
      { name: "resource", help: "The resource to dump" },
      { name: "mask", help: "Fields to keep: of each dump, or with a resource of each element" },
      { name: "name_regex", help: "Only clusters, listeners and routes whose names match" },
      { name: "include_eds", help: "With the endpoints of clusters" },
    ],
    answer: configDump,
  },
  {
    path: "/filters",
    help: "print filter packages: generation, origin, state, last error",
    parameters: [
      FORMAT,
      {
        name: "filter",
        help: "Regular expression (RE2) that the names of packages are searched for",
      },
    ],
    answer: packages,
  },
  { path: "/help", help: "print out list of admin commands", answer: () => text(helpText()) },
  {
    path: "/hot_restart_version",
    help: "print the hot restart compatibility version",
    answer: () => text("disabled"),
  },
  { path: "/listeners", help: "print listener info", parameters: [FORMAT], answer: listeners },
  {
    path: "/quitquitquit",
    help: "exit the server",
    mutates: true,
    answer: (_query, core) => ({ ...text("OK\n"), after: () => core.quit() }),
  },
  {
    path: "/ready",
    help: "print server state, return 200 if LIVE, otherwise return 503",
    answer: ready,
  },
  {
    path: "/reset_counters",
    help: "reset all counters to zero",
    mutates: true,
    answer: async (_query, core) => {
      await core.resetCounters();
      return text("OK\n");
    },
  },
  { path: "/runtime", help: "print runtime values", answer: runtime },
  {
    path: "/runtime_modify",
    help: "Adds or modifies runtime values as passed in query parameters. To delete a previously added key, use an empty string as the value. Note that deletion only applies to overrides added via this endpoint; values loaded from disk can be modified via override but not deleted. E.g. ?key1=value1&key2=value2...",
    mutates: true,
    answer: runtimeModify,
  },
  { path: "/server_info", help: "print server version/status information", answer: serverInfo },
  {
    path: "/stats",
    help: "print server stats",
    parameters: [
      USED_ONLY,
      STATS_FILTER,
      INVERT,
      { ...FORMAT, choices: ["text", "json", "prometheus"] },
      {
        name: "type",
        help: "Stat types to include",
        choices: ["All", "Counters", "Histograms", "Gauges", "TextReadouts"],
      },
      {
        name: "histogram_buckets",
        help: "Histogram bucket display mode",
        choices: ["summary", "cumulative", "disjoint"],
      },
    ],
    answer: stats,
  },
  {
    path: "/stats/prometheus",
    help: "print server stats in prometheus format",
    parameters: [
      USED_ONLY,
      STATS_FILTER,
      INVERT,
      {
        name: "histogram_buckets",
        help: "Histogram bucket display mode",
        choices: ["cumulative", "summary"],
      },
    ],
    answer: prometheus,
  },
];

export function helpText(): string {
  let lines = "admin commands are:\n";
  for (const { path, mutates, help, parameters = [] } of ENDPOINTS) {
    lines += `  ${path}${mutates === true ? " (POST)" : ""}: ${help}\n`;
    for (const { name, help, choices } of parameters) {
      const oneOf = choices === undefined ? "" : `; One of (${choices.join(", ")})`;
      lines += `      ${name}: ${help}${oneOf}\n`;
    }
  }
  return lines;
}

import { type Answer, html, json, text } from "./answer.ts";
import { certs } from "./certs.ts";
import { clusters } from "./clusters.ts";
import { configDump } from "./config-dump.ts";
import { drainListeners, healthcheck, quit, reopenLogs, resetCounters } from "./control.ts";
import type { CoreData } from "./core-data.ts";
import { homePage } from "./home.ts";
import { listeners } from "./listeners.ts";
import { logging } from "./logging.ts";
import { packages } from "./packages.ts";
import {
  allocationProfiler,
  cpuProfiler,
  filterProfile,
  heapDump,
  unsupported,
} from "./profile.ts";
import { prometheus } from "./prometheus.ts";
import type { Query } from "./query.ts";
import { changeLookups, recentLookups } from "./recent-lookups.ts";
import { runtime, runtimeModify } from "./runtime.ts";
import { memory, ready, serverInfo } from "./server.ts";
import { stats } from "./stats.ts";

export interface Endpoint {
  readonly path: string;
  readonly help: string;
  /** Changes something: POST only. */
  readonly mutates?: boolean;
  readonly parameters?: readonly Parameter[];
  /** Not Envoy's. */
  readonly own?: boolean;
  answer(query: Query, core: CoreData): Answer | Promise<Answer>;
}

export interface Parameter {
  readonly name: string;
  readonly help: string;
  readonly choices?: readonly string[];
}

const ENABLE = (help: string): Parameter => ({ name: "enable", help, choices: ["y", "n"] });
const USED_ONLY: Parameter = {
  name: "usedonly",
  help: "Only include stats that have been written by system since restart",
};
const STATS_FILTER: Parameter = {
  name: "filter",
  help: "Regular expression (Google re2) for filtering stats",
};
const INVERT: Parameter = { name: "invert_filter", help: "Invert the filter regex" };
const FORMAT: Parameter = { name: "format", help: "File format to use", choices: ["text", "json"] };

/** All that admin answers, by path. Texts of `/help` are Envoy's, so that people find what they know. */
export const ENDPOINTS: readonly Endpoint[] = [
  { path: "/", help: "Admin home page", answer: () => html(homePage(ENDPOINTS)) },
  {
    path: "/allocprofiler",
    help: "enable/disable the allocation profiler (if supported)",
    mutates: true,
    parameters: [ENABLE("enable/disable the allocation profiler")],
    answer: allocationProfiler,
  },
  { path: "/certs", help: "print certs on machine", answer: certs },
  {
    path: "/clusters",
    help: "upstream cluster status",
    parameters: [
      {
        name: "filter",
        help: "Regular expression (Google re2) for filtering clusters by name",
      },
    ],
    answer: clusters,
  },
  {
    path: "/config_dump",
    help: "dump current Envoy configs",
    parameters: [
      { name: "resource", help: "The resource to dump" },
      {
        name: "mask",
        help: "The mask to apply. When both resource and mask are specified, the mask is applied to every element in the desired repeated field so that only a subset of fields are returned. The mask is parsed as a Protobuf::FieldMask",
      },
      {
        name: "name_regex",
        help: "Dump only the currently loaded configurations whose names match the specified regex. Can be used with both resource and mask query parameters.",
      },
      {
        name: "include_eds",
        help: "Dump currently loaded configuration including EDS. See the response definition for more information",
      },
    ],
    answer: configDump,
  },
  {
    path: "/contention",
    help: "dump current Envoy mutex contention stats (if enabled)",
    answer: () =>
      text(
        "Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing.",
      ),
  },
  {
    path: "/cpuprofiler",
    help: "enable/disable the CPU profiler",
    mutates: true,
    parameters: [ENABLE("enables the CPU profiler")],
    answer: cpuProfiler,
  },
  {
    path: "/drain_listeners",
    help: "drain listeners",
    mutates: true,
    parameters: [
      {
        name: "graceful",
        help: "When draining listeners, enter a graceful drain period prior to closing listeners. This behaviour and duration is configurable via server options or CLI",
      },
      {
        name: "skip_exit",
        help: "When draining listeners, drain the connections but never stop the listeners. The graceful parameter has no effect when this is set, since the drain period only delays stopping the listeners",
      },
      {
        name: "inboundonly",
        help: "Drains all inbound listeners. traffic_direction field in envoy_v3_api_msg_config.listener.v3.Listener is used to determine whether a listener is inbound or outbound.",
      },
    ],
    answer: drainListeners,
  },
  {
    path: "/filter_profile",
    help: "profile one filter that lives in a sandbox",
    own: true,
    mutates: true,
    parameters: [
      { name: "filter", help: "Name of the filter" },
      { name: "seconds", help: "How long, up to 60" },
      { name: "kind", help: "cpu, heap, or a snapshot of the heap" },
      { name: "thread", help: "worker_0 unless told" },
    ],
    answer: filterProfile,
  },
  {
    path: "/filters",
    help: "print filter packages: generation, origin, state, last error",
    own: true,
    parameters: [
      FORMAT,
      {
        name: "filter",
        help: "Regular expression (RE2) that the names of packages are searched for",
      },
    ],
    answer: packages,
  },
  {
    path: "/healthcheck/fail",
    help: "cause the server to fail health checks",
    mutates: true,
    answer: healthcheck(true),
  },
  {
    path: "/healthcheck/ok",
    help: "cause the server to pass health checks",
    mutates: true,
    answer: healthcheck(false),
  },
  {
    path: "/heap_dump",
    help: "dump current Envoy heap (if supported)",
    parameters: [
      { name: "thread", help: "main unless told; worker_0, control" },
      { name: "filter", help: "The isolate of this filter instead, in worker_0 unless told" },
    ],
    answer: heapDump,
  },
  {
    path: "/heapprofiler",
    help: "enable/disable the heap profiler",
    mutates: true,
    parameters: [ENABLE("enable/disable the heap profiler")],
    answer: unsupported("heap profiler"),
  },
  { path: "/help", help: "print out list of admin commands", answer: () => text(helpText()) },
  {
    path: "/hot_restart_version",
    help: "print the hot restart compatibility version",
    answer: () => text("disabled"),
  },
  {
    path: "/init_dump",
    help: "dump current Envoy init manager information (experimental)",
    parameters: [
      {
        name: "mask",
        help: "The desired component to dump unready targets. The mask is parsed as a Protobuf::FieldMask. For example, get the unready targets of all listeners with /init_dump?mask=listener`",
      },
    ],
    // Nothing serves here before all of its setup has settled, so no target is ever seen unready.
    answer: () => json({}),
  },
  { path: "/listeners", help: "print listener info", parameters: [FORMAT], answer: listeners },
  {
    path: "/logging",
    help: "query/change logging levels",
    mutates: true,
    parameters: [
      {
        name: "paths",
        help: "Change multiple logging levels by setting to <logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>. If fine grain logging is enabled, use __FILE__ or a glob experision as the logger name. For example, source/common*:warning",
      },
      {
        name: "group",
        help: "Change given logger group to desired level, set to <logger_group_name>:<desired_level>. logger_group_name must be a logger name.",
      },
      {
        name: "level",
        help: "desired logging level, this will change all loggers's level",
        choices: ["", "trace", "debug", "info", "warning", "error", "critical", "off"],
      },
    ],
    answer: logging,
  },
  { path: "/memory", help: "print current allocation/heap usage", answer: memory },
  {
    path: "/memory/tcmalloc",
    help: "print TCMalloc stats",
    answer: unsupported("TCMalloc stats"),
  },
  {
    path: "/peak_heap_dump",
    help: "dump peak Envoy heap (if supported)",
    answer: unsupported("peak heap dump"),
  },
  {
    path: "/quitquitquit",
    help: "exit the server",
    mutates: true,
    answer: quit,
  },
  {
    path: "/ready",
    help: "print server state, return 200 if LIVE, otherwise return 503",
    answer: ready,
  },
  { path: "/reopen_logs", help: "reopen access logs", mutates: true, answer: reopenLogs },
  {
    path: "/reset_counters",
    help: "reset all counters to zero",
    mutates: true,
    answer: resetCounters,
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
      {
        name: "format",
        help: "Format to use",
        choices: ["html", "active-html", "text", "json"],
      },
      {
        name: "type",
        help: "Stat types to include.",
        choices: ["All", "Counters", "Histograms", "Gauges", "TextReadouts"],
      },
      {
        name: "histogram_buckets",
        help: "Histogram bucket display mode",
        choices: ["cumulative", "disjoint", "detailed", "summary"],
      },
    ],
    answer: stats,
  },
  {
    path: "/stats/prometheus",
    help: "print server stats in prometheus format",
    parameters: [
      USED_ONLY,
      {
        name: "text_readouts",
        help: "Render text_readouts as new gaugues with value 0 (increases Prometheus data size)",
      },
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
  {
    path: "/stats/recentlookups",
    help: "Show recent stat-name lookups",
    answer: recentLookups,
  },
  {
    path: "/stats/recentlookups/clear",
    help: "clear list of stat-name lookups and counter",
    mutates: true,
    answer: changeLookups("clear"),
  },
  {
    path: "/stats/recentlookups/disable",
    help: "disable recording of reset stat-name lookup names",
    mutates: true,
    answer: changeLookups("disable"),
  },
  {
    path: "/stats/recentlookups/enable",
    help: "enable recording of reset stat-name lookup names",
    mutates: true,
    answer: changeLookups("enable"),
  },
];

/** What Envoy does not have stands apart, so that a script that reads the list finds Envoy's alone. */
export function helpText(): string {
  const envoy = ENDPOINTS.filter((endpoint) => endpoint.own !== true).map((e) => describe(e, "  "));
  const own = ENDPOINTS.filter((endpoint) => endpoint.own === true).map((e) => describe(e, "    "));
  return `admin commands are:\n${envoy.join("")}  and of this proxy's own:\n${own.join("")}`;
}

function describe({ path, mutates, help, parameters = [] }: Endpoint, indent: string): string {
  let lines = `${indent}${path}${mutates === true ? " (POST)" : ""}: ${help}\n`;
  for (const { name, help, choices } of parameters) {
    const oneOf = choices === undefined ? "" : `; One of (${choices.join(", ")})`;
    lines += `${indent}    ${name}: ${help}${oneOf}\n`;
  }
  return lines;
}

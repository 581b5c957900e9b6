import { Command } from "commander";
import { expect, test } from "vitest";
import { addRunFlags, runOptions } from "../command/flags.ts";
import { commandLineOptions } from "./command-line-options.ts";

/** What `/server_info` shows of a command line. */
function shown(...argv: string[]): Record<string, unknown> {
  const command = addRunFlags(new Command().exitOverride()).parse(argv, { from: "user" });
  return commandLineOptions(runOptions(command.opts(), []));
}

test("/server_info shows flags as Envoy does", () => {
  const flags =
    "--config-yaml {} --concurrency 3 -l warn --component-log-level http:error,main:debug --log-format %v --log-format-escaped " +
    "--service-cluster c --service-node n --service-zone z --stats-tag a:1 --stats-tag b:2 --local-address-ip-version v6 " +
    "--drain-time-s 33 --drain-strategy immediate --parent-shutdown-time-s 44 --file-flush-interval-msec 1500 " +
    "--file-flush-min-size-kb 7 --socket-mode 640 " +
    "--socket-path /run/x.sock --allow-unknown-static-fields";
  expect(shown(...flags.split(" "))).toEqual({
    concurrency: 3,
    config_path: "",
    config_yaml: "{}",
    allow_unknown_static_fields: true,
    admin_address_path: "",
    local_address_ip_version: "v6",
    log_level: "warning",
    component_log_level: "http:error,main:debug",
    log_format: "%v",
    log_format_escaped: true,
    log_path: "",
    service_cluster: "c",
    service_node: "n",
    service_zone: "z",
    stats_tag: ["a:1", "b:2"],
    drain_time: "33s",
    drain_strategy: "Immediate",
    parent_shutdown_time: "44s",
    disable_hot_restart: false,
    socket_path: "/run/x.sock",
    socket_mode: 0o640,
    mode: "Serve",
    file_flush_interval: "1.500s",
  });
  expect(shown("--config-yaml", "{}", "--disable-hot-restart")).toMatchObject({
    disable_hot_restart: true,
    socket_path: "",
    service_zone: "",
    stats_tag: [],
    drain_strategy: "Gradual",
  });
});

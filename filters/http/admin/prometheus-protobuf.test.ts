import { latin1Decode, utf8Decode } from "@tsproxy/sdk";
import { expect, it } from "vitest";
import { start } from "./test-admin.ts";

type Field = readonly [number: number, value: number | Uint8Array];

/** Reads a varint at `at`; answers its value and where it ends. */
function varint(bytes: Uint8Array, at: number): [number, number] {
  let value = 0;
  for (let k = 0; ; k++) {
    value += (bytes[at + k]! & 127) * 128 ** k;
    if (bytes[at + k]! < 128) return [value, at + k + 1];
  }
}

function fields(bytes: Uint8Array): Field[] {
  const found: Field[] = [];
  for (let at = 0; at < bytes.length; ) {
    const [key, from] = varint(bytes, at);
    const [value, end] = (key & 7) === 1 ? [0, from] : varint(bytes, from);
    if ((key & 7) === 0) found.push([key >> 3, value]);
    else if ((key & 7) === 1) {
      const view = new DataView(bytes.buffer, bytes.byteOffset + from, 8);
      found.push([key >> 3, view.getFloat64(0, true)]);
    } else found.push([key >> 3, bytes.subarray(end, end + value)]);
    at = [end, from + 8, end + value][key & 7]!;
  }
  return found;
}

const all = (list: readonly Field[], number: number) =>
  list.flatMap(([at, value]) => (at === number ? [value] : []));
const within = (list: readonly Field[], number: number) =>
  all(list, number).map((value) => fields(value as Uint8Array));
const text = (value: unknown) => utf8Decode(value as Uint8Array, 0, (value as Uint8Array).length);

/** The families of a body: each behind its size. */
function families(body: readonly number[]) {
  const bytes = Uint8Array.from(body);
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    const [size, from] = varint(bytes, at);
    const family = fields(bytes.subarray(from, from + size));
    const metrics = within(family, 4).map((metric) => ({
      labels: within(metric, 1).map((label) => label.map(([, value]) => text(value))),
      value: metric.filter(([number]) => number !== 1),
    }));
    found.push({ name: text(all(family, 1)[0]), type: all(family, 3)[0], metrics });
    at = from + size;
  }
  return found;
}

const t = { unit: "ms", count: 300, name: "cluster.a.t", interval: null };
const stats = {
  counters: [
    ["cluster.a.x", 3],
    ["cluster.ж.x", 5],
  ],
  gauges: [["server.live", 1]],
  histograms: [{ ...t, sum: 0, buckets: [[1, 300]] }],
} as const;
const path = "/stats/prometheus?prom_protobuf";

it("has families of labelled metrics as messages", async () => {
  const { headers, bytes } = await start({ stats }).ask(path);
  expect(headers["content-type"]).toBe(
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
  );
  const [counters, gauges, histograms] = families(bytes);
  expect(counters).toMatchObject({ name: "envoy_cluster_x", type: 0 });
  const [a, b] = counters!.metrics;
  expect([a!.labels, b!.labels]).toEqual([
    [["envoy_cluster_name", "a"]],
    [["envoy_cluster_name", "ж"]],
  ]);
  expect([...within(a!.value, 3), ...within(b!.value, 3)]).toEqual([[[1, 3]], [[1, 5]]]);
  expect(gauges).toMatchObject({ name: "envoy_server_live", type: 1 });
  expect(within(gauges!.metrics[0]!.value, 2)).toEqual([[[1, 1]]]);
  const [histogram] = within(histograms!.metrics[0]!.value, 7);
  expect(histograms!.type).toBe(4);
  expect(histogram!.slice(0, 2)).toEqual([
    [1, 300],
    [2, 0],
  ]);
  const buckets = within(histogram!, 3);
  expect(buckets).toHaveLength(19);
  expect(buckets[0]).toEqual([
    [1, 300],
    [2, 0.5],
  ]);
});

it("has summaries where they are asked for, and says which histograms it does not make", async () => {
  const admin = start({ stats });
  const [, , summaries] = families((await admin.ask(`${path}&histogram_buckets=summary`)).bytes);
  expect(summaries!.type).toBe(2);
  const [summary] = within(summaries!.metrics[0]!.value, 4);
  expect(within(summary!, 3).at(-1)).toEqual([
    [1, 1],
    [2, Number.NaN],
  ]);
  const native = await admin.ask(`${path}&histogram_buckets=prometheusnative`);
  expect([native.status, native.body]).toEqual([
    400,
    "native histograms are not made here; ask for histogram_buckets=cumulative",
  ]);
});

it("is what a client gets that names it before text, whatever their weights", async () => {
  const admin = start({ stats });
  const protobuf = "application/vnd.google.protobuf";
  const answers = async (accept: string) => {
    const { headers, bytes } = await admin.ask("/stats/prometheus", "GET", { accept });
    const isText = latin1Decode(Uint8Array.from(bytes), 0, 6) === "# TYPE";
    expect(headers["content-type"]!.startsWith(protobuf)).toBe(!isText);
    return isText ? "text" : "protobuf";
  };
  expect(await answers(`${protobuf};q=0.3, text/plain;q=0.7`)).toBe("protobuf");
  expect(await answers(`*/*, ${protobuf}; encoding=delimited`)).toBe("protobuf");
  expect(await answers(`text/plain;q=0.3,${protobuf};q=0.7`)).toBe("text");
  expect(await answers(`${protobuf}x`)).toBe("text");
  expect(await answers("*/*")).toBe("text");
});

import { latin1Decode, utf8Encode } from "@tsproxy/sdk";
import { countsUpTo, QUANTILES, quantiles, sumOfBuckets } from "./histogram.ts";
import type { Exposition, Family } from "./prometheus.ts";
import { unsigned } from "./selection.ts";

/** `io.prometheus.client.MetricFamily`: numbers of the fields that are written, message by message. */
const FAMILY = { NAME: 1, TYPE: 3, METRIC: 4 } as const;
const METRIC = { LABEL: 1, GAUGE: 2, COUNTER: 3, SUMMARY: 4, HISTOGRAM: 7 } as const;
const LABEL = { NAME: 1, VALUE: 2 } as const;
const SCALAR = { VALUE: 1 } as const;
/** Of both, as is the part behind: a bucket has count and bound, a quantile its share and value. */
const DISTRIBUTION = { COUNT: 1, SUM: 2, PART: 3 } as const;
const PART = { FIRST: 1, SECOND: 2 } as const;
const TYPE = { COUNTER: 0, GAUGE: 1, SUMMARY: 2, HISTOGRAM: 4 } as const;

/** Prometheus' protobuf messages, each behind its size; a character stands for a byte. */
export const prometheusProtobuf: Exposition = {
  scalars: (type, family) => {
    const isCounter = type === "counter";
    const field = isCounter ? METRIC.COUNTER : METRIC.GAUGE;
    return message(isCounter ? TYPE.COUNTER : TYPE.GAUGE, family, ([, value]) =>
      bytes(field, double(SCALAR.VALUE, Number(unsigned(value)))),
    );
  },
  histograms: (family, boundsOf) =>
    message(TYPE.HISTOGRAM, family, (histogram) => {
      const bounds = boundsOf(histogram.name);
      const buckets = countsUpTo(histogram, bounds).map((count, k) =>
        bytes(DISTRIBUTION.PART, whole(PART.FIRST, count) + double(PART.SECOND, bounds[k]!)),
      );
      return bytes(
        METRIC.HISTOGRAM,
        whole(DISTRIBUTION.COUNT, histogram.count) +
          double(DISTRIBUTION.SUM, sumOfBuckets(histogram)) +
          buckets.join(""),
      );
    }),
  summaries: (family) =>
    message(TYPE.SUMMARY, family, ({ interval }) => {
      const values = quantiles(interval);
      const shares = QUANTILES.map((percent, k) =>
        bytes(
          DISTRIBUTION.PART,
          double(PART.FIRST, Number((percent / 100).toFixed(4))) +
            double(PART.SECOND, values?.[k] ?? Number.NaN),
        ),
      );
      return bytes(
        METRIC.SUMMARY,
        whole(DISTRIBUTION.COUNT, interval?.count ?? 0) +
          double(DISTRIBUTION.SUM, sumOfBuckets(interval)) +
          shares.join(""),
      );
    }),
};

function message<T>(
  type: number,
  { metric, members }: Family<T>,
  value: (stat: T) => string,
): string {
  let body = bytes(FAMILY.NAME, metric) + whole(FAMILY.TYPE, type);
  for (const { tags, stat } of members) {
    let labels = "";
    for (const [name, text] of tags)
      labels += bytes(METRIC.LABEL, bytes(LABEL.NAME, name) + bytes(LABEL.VALUE, utf8(text)));
    body += bytes(FAMILY.METRIC, labels + value(stat));
  }
  return varint(body.length) + body;
}

function utf8(text: string): string {
  const encoded = utf8Encode(text);
  return latin1Decode(encoded, 0, encoded.length);
}

// ---- protobuf's wire format

const WIRE = { VARINT: 0, EIGHT_BYTES: 1, SIZED: 2 } as const;

const key = (field: number, wire: number): string => String.fromCharCode((field << 3) | wire);
const bytes = (field: number, body: string): string =>
  key(field, WIRE.SIZED) + varint(body.length) + body;
const whole = (field: number, value: number): string => key(field, WIRE.VARINT) + varint(value);

const scratch = new DataView(new ArrayBuffer(8));
const scratchBytes = new Uint8Array(scratch.buffer);

function double(field: number, value: number): string {
  scratch.setFloat64(0, value, true);
  return key(field, WIRE.EIGHT_BYTES) + latin1Decode(scratchBytes, 0, 8);
}

function varint(value: number): string {
  let text = "";
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128))
    text += String.fromCharCode((rest % 128) | 128);
  return text + String.fromCharCode(rest);
}

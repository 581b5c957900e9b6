import { fileURLToPath } from "node:url";
import * as grpc from "@grpc/grpc-js";
import protobuf from "protobufjs/light.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { deferred, get } from "./client.ts";
import { bootstrap, cluster, direct, http, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";

const SCHEMA = {
  nested: {
    Word: { fields: { text: { type: "string", id: 1 }, times: { type: "uint32", id: 2 } } },
  },
};
/** A filter that asks a gRPC service about each request: `/call` is answered, `/talk` is told word by word. */
const ASKER = `
import { defineHttpFilter, type GrpcMethod, grpcCall, grpcStream, reply, Type } from "@tsproxy/sdk";
import protobuf from "${fileURLToPath(import.meta.resolve("protobufjs/minimal.js"))}";

const { Reader, Writer } = protobuf;
type Message = { text: string; times: number };
const method = (name: string): GrpcMethod<Message, Message> => ({
  path: \`/echo.Echo/\${name}\`,
  encode: ({ text, times }) => Writer.create().uint32(10).string(text).uint32(16).uint32(times).finish(),
  decode: (bytes) => {
    const reader = Reader.create(bytes);
    const message = { text: "", times: 0 };
    while (reader.pos < reader.len) {
      if (reader.uint32() >>> 3 === 1) message.text = reader.string();
      else message.times = reader.uint32();
    }
    return message;
  },
});

export default defineHttpFilter({
  name: "asker",
  config: Type.Object({}),
  setup: (_config, cx) => (stream) => ({
    async onRequestHeaders(headers) {
      const [, what = "", text = ""] = headers.path.split("/");
      const options = { timeoutMs: text === "late" ? 100 : 5000, metadata: [["x-who", "asker"]] as const };
      if (what === "call") {
        const call = grpcCall(cx, "echo", method("Call"), { text, times: 2 }, options);
        return call.answer.then(
          (word) => reply(200, { body: word.text }),
          (error) => reply(500, { body: \`\${error.code} \${error.message} \${error.metadata?.get("x-why")}\` }),
        );
      }
      const heard: string[] = [];
      return new Promise((resolve) => {
        const talk = grpcStream(cx, "echo", method("Talk"), options, {
          onMessage: (word) => {
            heard.push(word.text);
            if (heard.length < 3) talk.send({ text: word.text, times: 2 });
            else talk.end();
          },
          onEnd: ({ code }) => resolve(reply(200, { body: \`\${heard} \${code}\` })),
        });
        talk.send({ text, times: 2 });
      });
    },
  }),
});
`;

const Word = protobuf.Root.fromJSON(SCHEMA).lookupType("Word");
type Message = { text: string; times: number };
const method = (name: string, streams: boolean): grpc.MethodDefinition<Message, Message> => ({
  path: `/echo.Echo/${name}`,
  requestStream: streams,
  responseStream: streams,
  requestSerialize: (word) => Buffer.from(Word.encode(word).finish()),
  requestDeserialize: (bytes) => Word.decode(bytes) as unknown as Message,
  responseSerialize: (word) => Buffer.from(Word.encode(word).finish()),
  responseDeserialize: (bytes) => Word.decode(bytes) as unknown as Message,
});
const repeated = ({ text, times }: Message): Message => ({ text: text.repeat(times), times });

let server: grpc.Server;
let port: number;
/** The server has heard that a call was cancelled. */
let cancelled = deferred<void>();

beforeAll(async () => {
  server = new grpc.Server();
  server.addService(
    { Call: method("Call", false), Talk: method("Talk", true) },
    {
      Call: (call: grpc.ServerUnaryCall<Message, Message>, answer: grpc.sendUnaryData<Message>) => {
        if (call.request.text === "late") {
          call.on("cancelled", () => cancelled.resolve());
          return;
        }
        if (call.request.text !== "bad") return answer(null, repeated(call.request));
        const metadata = new grpc.Metadata();
        metadata.set("x-why", `${call.metadata.get("x-who")}`);
        answer({ code: grpc.status.NOT_FOUND, details: "kein böses", metadata });
      },
      Talk: (call: grpc.ServerDuplexStream<Message, Message>) => {
        call.on("data", (word: Message) => call.write(repeated(word)));
        call.on("end", () => call.end());
      },
    },
  );
  port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
});
afterAll(() => server?.forceShutdown());

async function start(trusted: boolean): Promise<Proxy> {
  const filter = http([direct("/", "nobody was asked")]) as {
    typed_config: { http_filters: object[] };
  };
  filter.typed_config.http_filters.unshift({ name: "asker", config: {} });
  return Proxy.start({
    config: bootstrap(
      [listener("main", filter as never)],
      [cluster("echo", [port], { http2_protocol_options: {} })],
    ),
    files: {
      "filters/asker/filter.ts": ASKER,
      "filters/asker/package.json": JSON.stringify({ type: "module", tsproxy: { trusted } }),
    },
  });
}

describe.each([
  ["among the shipped ones", true],
  ["in a sandbox", false],
])("a filter %s", (_where, trusted) => {
  let proxy: Proxy;
  beforeAll(async () => {
    cancelled = deferred();
    proxy = await start(trusted);
  });
  afterAll(() => proxy?.stop());

  const ask = async (path: string) => {
    const { status, text } = await get(proxy.port("main"), path);
    return `${status} ${text}`;
  };

  test("calls a gRPC server, and hears its status, words and metadata", async () => {
    expect(await ask("/call/ab")).toBe("200 abab");
    expect(await ask("/call/bad")).toBe("500 5 kein böses asker");
  });

  test("ends a call at both ends by its deadline", async () => {
    expect(await ask("/call/late")).toMatch(/^500 4 /);
    await cancelled.promise;
    expect(await ask("/call/x")).toBe("200 xx");
  });

  test("sends and hears messages while a stream lasts", async () => {
    expect(await ask("/talk/a")).toBe("200 aa,aaaa,aaaaaaaa 0");
  });
});

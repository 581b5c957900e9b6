import tls from "node:tls";
import { afterAll, afterEach, expect, test } from "vitest";
import { bootstrap, direct, http, type Json, listener } from "./config.ts";
import type { Proxy } from "./proxy.ts";
import {
  a,
  ask,
  b,
  disposeAuthorities,
  downstreamTls,
  endTest,
  handshake,
  hello,
  ours,
  secure,
  sessionAt,
  source,
  start,
} from "./tls-proxy.ts";

afterEach(endTest);
afterAll(disposeAuthorities);

test.each(["with tickets", "with sessions by id"])(
  "a client of TLS 1.2 whose certificate is accepted goes on, and resumes its session %s",
  async (how) => {
    const validation_context = { trusted_ca: source(ours.root.certificate) };
    const disable_stateless_session_resumption = how !== "with tickets";
    const optional = downstreamTls(
      [a],
      { validation_context },
      { disable_stateless_session_resumption },
    );
    const proxy = await start({
      config: bootstrap([{ ...listener("may", hello), filter_chains: [secure(hello, optional)] }]),
      concurrency: 1,
    });
    const port = proxy.port("may");
    for (const identity of [{}, { key: b.keyPem, cert: b.pem }]) {
      const old = { ...identity, maxVersion: "TLSv1.2", servername: "a.test" } as const;
      expect(await ask(port, old)).toBe("200 hello\n");
      const session = await new Promise<Buffer>((resolve, reject) => {
        const socket = tls.connect({ port, host: "127.0.0.1", ca: ours.root.pem, ...old });
        socket.on("error", reject).once("secureConnect", () => {
          resolve(socket.getSession()!);
          socket.destroy();
        });
      });
      const { resumed, version } = await handshake(port, { ...old, session });
      expect([resumed, version]).toEqual([true, "TLSv1.2"]);
    }
  },
);

test("resumes sessions by ticket, on whichever worker", async () => {
  const proxy = await start({
    config: bootstrap([
      { ...listener("main", hello), filter_chains: [secure(hello, downstreamTls([a]))] },
    ]),
    concurrency: 2,
  });
  const session = await sessionAt(proxy.port("main"));
  for (let k = 0; k < 8; k++) {
    const { resumed } = await handshake(proxy.port("main"), { servername: "a.test", session });
    expect(resumed).toBe(true);
  }
});

test.each(["TLSv1.2", "TLSv1.3"] as const)(
  "a ticket of %s that another process has made begins a new session",
  async (maxVersion) => {
    const config = bootstrap([
      { ...listener("main", hello), filter_chains: [secure(hello, downstreamTls([a]))] },
    ]);
    const [before, after] = [await start({ config }), await start({ config })];
    const session = await sessionAt(before.port("main"), maxVersion);
    for (let k = 0; k < 2; k++) {
      const seen = handshake(after.port("main"), { servername: "a.test", maxVersion, session });
      expect(await seen).toMatchObject({ name: "a.test", version: maxVersion, resumed: false });
    }
  },
);

test("opens tickets with older keys, and seals new ones with the first", async () => {
  const keys = ["x", "y"].map((letter) => ({ inline_string: letter.repeat(80) }));
  const site = async (first: number) => {
    const tlsSocket = downstreamTls(
      [a],
      {},
      {
        session_ticket_keys: { keys: first === 0 ? keys : keys.toReversed() },
      },
    );
    // The rules for clients are the same, so the sessions of one are good at the other.
    return start({
      config: bootstrap([
        { ...listener("main", hello), filter_chains: [secure(hello, tlsSocket)] },
      ]),
    });
  };
  const [old, current] = [await site(1), await site(0)];
  const ticket = async (proxy: Proxy, session?: Buffer) =>
    new Promise<{ session: Buffer; name: string; resumed: boolean }>((resolve, reject) => {
      const options = { host: "127.0.0.1", ca: ours.root.pem, servername: "a.test" };
      const socket = tls.connect({
        ...options,
        port: proxy.port("main"),
        maxVersion: "TLSv1.2",
        ...(session !== undefined && { session }),
      });
      socket.on("error", reject).once("secureConnect", () => {
        const name = socket.getTLSTicket()!.toString("latin1", 0, 16);
        resolve({ session: socket.getSession()!, name, resumed: socket.isSessionReused() });
        socket.destroy();
      });
    });
  const before = await ticket(old);
  expect(before.name).toBe("y".repeat(16));
  const renewed = await ticket(current, before.session);
  expect(renewed).toMatchObject({ resumed: true, name: "x".repeat(16) });
  expect(await ticket(current, renewed.session)).toMatchObject({ resumed: true });
});

test("sessions without tickets are kept, unless the config says otherwise", async () => {
  const plain = { disable_stateless_session_resumption: true };
  const body_format = { text_format_source: { inline_string: "%DOWNSTREAM_TLS_SESSION_ID%" } };
  const named = http([direct("/", "")], { local_reply_config: { body_format } });
  const chain = (more: Json) => secure(named, downstreamTls([a], {}, more));
  const proxy = await start({
    config: bootstrap([
      { ...listener("keeps", hello), filter_chains: [chain(plain)] },
      {
        ...listener("forgets", hello),
        filter_chains: [chain({ ...plain, disable_stateful_session_resumption: true })],
      },
    ]),
    concurrency: 1,
  });
  const resumes = async (name: string) => {
    const options = {
      port: proxy.port(name),
      host: "127.0.0.1",
      ca: ours.root.pem,
      servername: "a.test",
      maxVersion: "TLSv1.2",
    } as const;
    const session = await new Promise<Buffer>((resolve, reject) => {
      const socket = tls.connect(options);
      socket.on("error", reject).once("secureConnect", () => {
        resolve(socket.getSession()!);
        socket.destroy();
      });
    });
    return (await handshake(options.port, { ...options, session })).resumed;
  };
  expect(await resumes("keeps")).toBe(true);
  expect(await resumes("forgets")).toBe(false);
  // Only a session that may be resumed has an id to tell of; those of TLS 1.3 have none.
  const old = { maxVersion: "TLSv1.2" } as const;
  expect(await ask(proxy.port("keeps"), old)).toMatch(/^200 [0-9a-f]{64}$/);
  expect(await ask(proxy.port("keeps"))).toBe("200 -");
  expect(await ask(proxy.port("forgets"), old)).toBe("200 -");
});

// What pusher-js does after each close code, in silence, and when packets are lost. With PUSHY_SOAK=1, the
// last two tests have the times of pusher-js's defaults.
import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import { patience } from "./example.mjs";
import { app, buildNodes, event, logOf, options, Pusher, soak, startNode, startProxy, until } from "./pushersite.mjs";
import { after, before, test } from "./suite.mjs";

const limit = { timeout: 5 * patience };
const heartbeat = 1000;
let node;

before(async () => {
  buildNodes();
  node = await startNode({ sockjs: { heartbeat_delay: heartbeat } });
}, limit);
after(() => node?.stop());

// through returns a client that connects through a proxy of its own, the proxy, and the client's log.
async function through(t, { to = node, key = app.key, user = "1", more = {}, request } = {}) {
  const proxy = await startProxy(to.port);
  if (request) proxy.request = request;
  const client = new Pusher(key, { ...options(proxy.port, to.sdk, user), ...more });
  t.after(() => {
    client.disconnect();
    proxy.stop();
  });
  return { client, proxy, log: logOf(client) };
}

const state = (client, wanted) => until(`the state ${wanted}`, () => client.connection.state === wanted);

// frame returns a frame of a client. Its mask is zero, so that its payload stands as it is.
function frame(opcode, payload) {
  const { length } = payload;
  const head = length < 126 ? [length] : [127, 0, 0, 0, 0, length >> 24, length >> 16, length >> 8, length];
  return Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | head[0], ...head.slice(1), 0, 0, 0, 0]), payload]);
}

for (const [code, what, bad] of [
  [1003, "a binary frame", frame(2, Buffer.from("x"))],
  [1007, "invalid UTF-8", frame(1, Buffer.from([0xff]))],
  [1009, "a message over the limit", frame(1, Buffer.alloc(65 << 10, "x"))],
]) {
  test(`${code}, after ${what}: pusher-js connects again after 1 s`, limit, async (t) => {
    const { client, proxy, log } = await through(t);
    await state(client, "connected");
    const id = client.connection.socket_id;
    log.length = 0;
    proxy.inject(bad);
    await until("another connection", () => log.at(-1) === "connected");
    assert.deepEqual(log, [`error ${code}`, "pause", "connecting", "connected"]);
    assert.notEqual(client.connection.socket_id, id);
    assert.equal(proxy.connections, 2);
  });
}

test("4001, 4005, 4007 and 4009: pusher-js stops", limit, async (t) => {
  const version = (n) => (text) => text.replace("protocol=7", `protocol=${n}`);
  const stopped = [
    [4001, await through(t, { key: "other-key" })],
    [4005, await through(t, { key: `${app.key}/x` })],
    [4007, await through(t, { request: version("4") })],
    [4007, await through(t, { request: version("8") })],
    [4007, await through(t, { request: version("x") })],
    [4009, await through(t, { user: "ended" })],
    [4009, await through(t, { user: "forger" })],
  ];
  const [[, ended], [, forger]] = stopped.slice(-2);
  for (const { client } of [ended, forger]) {
    client.signin();
    await client.user.signinDonePromise;
  }
  await node.sdk.terminateUserConnections("ended");
  forger.client.send_event("pusher:signin", { auth: `${app.key}:00`, user_data: '{"id":"ended"}' });
  for (const [, { client }] of stopped) await state(client, "disconnected");
  await pause(3000); // twice what it waits after other codes
  for (const [code, { log, proxy }] of stopped) {
    assert.deepEqual(log, [...(code === 4009 ? ["connected"] : []), `error ${code}`, "disconnected"]);
    assert.equal(proxy.connections, 1, `${code}`);
  }
});

test("4100: pusher-js connects again every second until there is a place", limit, async (t) => {
  const full = await startNode({ limits: { connections: 1 } });
  t.after(full.stop);
  const first = await through(t, { to: full });
  await state(first.client, "connected");
  const { client, proxy, log } = await through(t, { to: full });
  await until("two refusals", () => log.filter((line) => line === "error 4100").length === 2);
  first.client.disconnect();
  await state(client, "connected");
  const refusals = Array.from({ length: proxy.connections - 1 }, () => ["error 4100", "pause"]);
  assert.deepEqual(log, [...refusals.flat(), "connected"]);
});

test("4200, a shutdown: pusher-js connects at once, and is on another node", limit, async (t) => {
  const old = await startNode({ returnRate: 10 });
  const all = [];
  for (let i = 0; i < 20; i++) all.push(await through(t, { to: old }));
  for (const { client, proxy } of all) {
    await state(client, "connected");
    client.subscribe("news");
    proxy.to = node.port;
  }
  for (const { log } of all) log.length = 0;
  await old.stop();
  for (const { log } of all) await until("all are connected again", () => log.at(-1) === "connected");
  for (const { log, proxy } of all) {
    assert.deepEqual(log, ["error 4200", "connecting", "connected"], "there is no pause");
    assert.equal(proxy.connections, 2);
  }
  const got = all.map(({ client }) => event(client.channel("news"), "headline"));
  await until("all have subscribed again", () => all.every(({ client }) => client.channel("news").subscribed));
  await node.sdk.trigger("news", "headline", { n: 1 });
  assert.deepEqual(await Promise.all(got), all.map(() => ({ n: 1 })));
});

test("4201, a client that is not heard: pusher-js connects at once", limit, async (t) => {
  const { client, proxy, log } = await through(t);
  await state(client, "connected");
  log.length = 0;
  proxy.mute({ up: true });
  await until("another connection", () => log.at(-1) === "connected");
  assert.deepEqual(log, ["error 4201", "connecting", "connected"]);
  assert.equal(proxy.connections, 2);
});

test("silence: pusher-js stays connected", limit, async (t) => {
  const { client, proxy, log } = await through(t, { more: soak ? {} : { activityTimeout: 500 } });
  await state(client, "connected");
  const answers = [];
  client.connection.bind("message", ({ event }) => answers.push(event));
  await pause(soak ? 80_000 : 2000);
  await until("an answer to a ping", () => answers.length > 0);
  assert.ok(answers.every((name) => name === "pusher:pong"), `${answers}`);
  assert.deepEqual(log, ["connected"]);
  assert.equal(proxy.connections, 1);
});

test("a path that swallows everything: pusher-js is back within the two timeouts", limit, async (t) => {
  const { client, proxy, log } = await through(t, { more: soak ? {} : { activityTimeout: 500, pongTimeout: 1000 } });
  await state(client, "connected");
  log.length = 0;
  proxy.mute({ up: true, down: true });
  const began = Date.now();
  await until("another connection", () => log.at(-1) === "connected", 2 * patience);
  assert.deepEqual(log, ["connecting", "connected"]);
  const took = Date.now() - began;
  t.diagnostic(`back after ${took} ms`);
  if (soak) assert.ok(took < 62_000, `${took} ms`); // 30 s without a message, and 30 s without an answer
});

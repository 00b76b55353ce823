// The built client and servers that have too many new connections.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import WebSocket from "ws";
import { Pushy } from "../pushy.mjs";
import { client, clock } from "./fakes.js";
import { build, start } from "./server.js";

const limit = { timeout: 300_000 }; // the first one builds the server
before(build, limit);

/** Returns the states of a client until it is connected. */
const untilConnected = (pushy) => new Promise((resolve) => {
  const states = [];
  pushy.on("state", ({ state, code, transport, retryAt }) => {
    states.push({ state, code, transport, wait: retryAt && retryAt - Date.now() });
    if (state === "connected") resolve(states);
  });
  pushy.connect();
});

/** A server with one connection, which is all that it accepts in a second. */
async function full(t, flag) {
  const server = await start("127.0.0.1:0", flag, "1"), pushy = [];
  t.after(async () => {
    for (const one of pushy) one.disconnect();
    await server.stop();
  });
  const connect = (options) => {
    pushy.push(new Pushy(server.origin, undefined, { WebSocket, ...options }));
    return untilConnected(pushy.at(-1));
  };
  await connect();
  return connect;
}

// Issue 14, acceptance test 17.
test("over AcceptRate a WebSocket hears 1013, and its client comes back with a WebSocket", limit, async (t) => {
  const connect = await full(t, "-accept-rate"), states = await connect({ minDelay: 100 });
  assert.deepEqual([states[1].state, states[1].code], ["waiting", 1013]);
  assert.ok(states[1].wait > 0 && states[1].wait <= 1600, `${states[1].wait}`);
  assert.ok(states.every(({ code }) => code === undefined || code === 1013), JSON.stringify(states));
  assert.equal(states.at(-1).transport, "websocket");
});

for (const [flag, status] of [["-accept-rate", 503], ["-connect-rate", 429]]) {
  test(`over HTTP the client hears ${status}, waits for Retry-After and comes back`, limit, async (t) => {
    const connect = await full(t, flag), states = await connect({ minDelay: 100, transports: ["streaming", "polling"] });
    const { state, wait, code } = states[1];
    assert.deepEqual([state, code], ["waiting", 1006]);
    assert.ok(wait > 1000 && wait <= 10_200, `${wait}`);
    assert.equal(states.at(-1).transport, "streaming");
  });
}

test("a WebSocket that is refused with 429 looks like any other; the next transport hears Retry-After", limit, async (t) => {
  const connect = await full(t, "-connect-rate"), states = await connect({ minDelay: 100 });
  assert.ok(states[1].wait > 1000 && states[1].wait <= 1200, `${states[1].wait}`);
  assert.equal(states.at(-1).transport, "websocket");
});

test("after 1013 the waits grow from 8 to 20 s, and other transports are left alone", async (t) => {
  const turn = clock(t), waits = [];
  let asked = 0;
  const { pushy, socket, sockets } = client({ transports: ["websocket", "streaming"], fetch: async () => asked++ });
  pushy.connect();
  for (let n = 1; n <= 5; n++) {
    await turn(0);
    assert.equal(sockets.length, n);
    socket().lose(1013, "too many new connections");
    assert.equal(pushy.state, "waiting");
    waits.push(pushy.retryAt - Date.now());
    await turn(waits.at(-1));
  }
  assert.deepEqual(waits, [4250, 8250, 10_250, 10_250, 10_250]); // halfway from 0.5 s to the bound
  assert.equal(asked, 0);
  socket().connect();
  assert.ok(pushy.connected);
  pushy.disconnect();
});

// Which transport is used, on a fake clock: WebSockets, with and without compression, or those of
// sockjs-client.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Pushy } from "../src/module.js";
import { client, clock, flush } from "./fakes.js";

test("a network that breaks compressed messages: after the second one none are asked for", async (t) => {
  const turn = clock(t);
  const storage = {};
  globalThis.localStorage ??= storage;
  t.after(() => globalThis.localStorage === storage && delete globalThis.localStorage);
  delete localStorage["pushy:deflate"];
  const { pushy, sockets, socket } = client();
  const urls = [];
  // What browsers report: an error after the opening is a frame that they cannot read.
  const next = async (opened, error) => {
    await turn(60_000);
    urls.push(socket().url.split("?")[1]);
    if (opened) socket().onopen();
    if (opened) socket().connect();
    if (error) socket().onerror();
    socket().lose();
  };
  pushy.connect();
  await next(false, true); // no server
  await next(true, false); // the connection is lost
  await next(true, true);
  await next(true, true);
  await next(true, false);
  await next(true, false);
  assert.deepEqual(urls, ["v=2", "v=2", "v=2", "v=2", "v=2&deflate=0", "v=2&deflate=0"]);
  assert.equal(+localStorage["pushy:deflate"] > 1_700_000_000_000, true);
  assert.equal(sockets.length >= 6, true);
  pushy.disconnect();
  Pushy._links._unreadable = 0;
});

test("a WebSocket that is blocked is given up: at once, or after 3.5 s of nothing", async (t) => {
  const turn = clock(t);
  for (const silent of [false, true]) {
    const asked = [];
    const { pushy, sockets, socket, events } = client({
      url: `http://127.0.0.1/blocked-${silent}`,
      transports: ["websocket", "streaming", "polling"],
      fetch: async (url) => {
        asked.push(new URL(url).pathname.split("/").at(-1));
        const frames = 'o\na["{\\"event\\":\\"pushy:connect\\",\\"data\\":{\\"socketId\\":\\"s\\",\\"protocol\\":\\"xhr-streaming\\"}}"]\n';
        return new Response(new ReadableStream({ start: (to) => to.enqueue(new TextEncoder().encode(frames)) }));
      },
    });
    pushy.connect();
    await flush();
    if (silent) {
      await turn(3499);
      assert.deepEqual(asked, []);
      await turn(1);
      assert.ok(socket().closed);
    } else socket().lose();
    await flush();
    assert.deepEqual(asked, ["xhr_streaming"]);
    assert.deepEqual([pushy.state, pushy.transport], ["connected", "streaming"]);
    assert.deepEqual(events, ["connect"]);
    pushy.disconnect();

    // What got through comes first the next time, for an hour.
    pushy.connect();
    await flush();
    assert.deepEqual([sockets.length, asked.length, pushy.transport], [1, 2, "streaming"]);
    pushy.disconnect();
    await turn(3_600_001);
    pushy.connect();
    await flush();
    assert.equal(sockets.length, 2);
    pushy.disconnect();
  }
});

test("a server that is down does not make a page give up its WebSocket", async (t) => {
  const turn = clock(t);
  const asked = [];
  const { pushy, sockets, socket } = client({
    url: "http://127.0.0.1/down",
    transports: ["websocket", "streaming"],
    fetch: async (url) => {
      asked.push(url);
      throw new TypeError("refused");
    },
  });
  pushy.connect();
  await flush();
  socket().connect();
  for (const n of [1, 2]) {
    socket().lose();
    await turn(pushy.retryAt - Date.now());
    assert.deepEqual([sockets.length, asked.length], [n + 1, 0]);
  }
  socket().lose();
  await turn(pushy.retryAt - Date.now());
  assert.deepEqual([sockets.length, asked.length], [4, 0]);
  socket().lose();
  await flush();
  assert.equal(asked.length, 1, "the third time it tries all");
  pushy.disconnect();
});

test("a page's own sockjs-client is all that is used", async () => {
  const made = [];
  class SockJS {
    constructor(url) {
      this.url = url;
      made.push(this);
    }
    send(text) {
      (this.sent ??= []).push(JSON.parse(text));
    }
    close() {}
  }
  const { pushy, sockets } = client({ SockJS, url: "http://127.0.0.1/pushy?id=7" });
  pushy.connect();
  await flush();
  assert.equal(made[0].url, "http://127.0.0.1/pushy/socket?v=2&id=7");
  made[0].onmessage({ data: '{"event":"pushy:connect","data":{"socketId":"s","protocol":"xhr-polling"}}' });
  pushy.exec("move", { to: "e4" });
  assert.deepEqual(made[0].sent, [{ command: "move", data: { to: "e4" }, id: "pushy:1" }]);
  assert.deepEqual([pushy.transport, sockets.length], ["sockjs", 0]);
  pushy.disconnect();
});

/** A fetch that gets through, for as long as it is asked. */
const streaming = async () => {
  const frames = 'o\na["{\\"event\\":\\"pushy:connect\\",\\"data\\":{\\"socketId\\":\\"s\\",\\"protocol\\":\\"xhr-streaming\\"}}"]\n';
  return new Response(new ReadableStream({ start: (to) => to.enqueue(new TextEncoder().encode(frames)) }));
};

// Issue 11, number 32.
test("a WebSocket that failed once is tried again in the background", async (t) => {
  const turn = clock(t);
  const { pushy, sockets, socket, events } = client({ url: "http://127.0.0.1/once", transports: ["websocket", "streaming", "polling"], fetch: streaming });
  pushy.connect();
  await flush();
  socket().lose();
  for (let n = 0; n < 20; n++) await flush();
  assert.deepEqual([pushy.transport, sockets.length], ["streaming", 1]);
  await turn(4999);
  assert.equal(sockets.length, 1);
  await turn(1);
  assert.equal(sockets.length, 2);
  socket().lose(); // still blocked
  await turn(9999);
  assert.equal(sockets.length, 2);
  await turn(1);
  assert.equal(sockets.length, 3);
  await turn(15_000); // no answer at all
  assert.ok(socket().closed);
  pushy._alive = Date.now();
  await turn(20_000);
  assert.equal(sockets.length, 4);
  socket().connect("of the background");
  assert.ok(socket().closed, "it was only a try");
  assert.deepEqual([pushy.socketId, pushy.transport, events], ["s", "streaming", ["connect"]], "the connection is left alone");
  while (!pushy.connecting) await turn(500); // the streaming connection is silent in this test, and is given up
  assert.equal(sockets.length, 5);
  socket().connect("the next");
  assert.deepEqual([pushy.socketId, pushy.transport], ["the next", "websocket"]);
  await turn(40_000);
  assert.equal(sockets.length, 5, "no transport is better");
  pushy.disconnect();
});

// Issue 11, number 32.
test("the search for a better transport is bounded, and ends with the connection", async (t) => {
  const turn = clock(t);
  const { pushy, sockets } = client({ url: "http://127.0.0.1/never", transports: ["websocket", "polling"], fetch: streaming });
  pushy.connect();
  for (let minutes = 0; minutes < 60; minutes++) {
    for (let n = 0; n < 30; n++) {
      await turn(2000);
      for (const socket of sockets) if (!socket.closed) socket.lose();
      pushy._alive = Date.now();
    }
  }
  assert.equal(pushy.transport, "polling");
  assert.ok(sockets.length > 5 && sockets.length < 16, `${sockets.length} tries in an hour`);
  pushy.disconnect();
  const before = sockets.length;
  await turn(700_000);
  assert.equal(sockets.length, before);
});

// Connecting, losing the connection and coming back, on a fake clock.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Pushy } from "../src/module.js";
import { client, clock, flush, record } from "./fakes.js";

const states = (pushy) => {
  const told = [];
  pushy.bind("state", ({ state }) => told.push(state));
  return told;
};

test("nothing is connected before it is needed", async () => {
  const { pushy, sockets, socket, events } = client();
  await flush();
  assert.equal(sockets.length, 0);
  assert.equal(pushy.state, "idle");
  pushy.channel("news").subscribe();
  await flush();
  assert.equal(socket().url, "ws://127.0.0.1/pushy/socket/websocket?v=2");
  assert.ok(pushy.connecting);
  socket().connect("an id");
  assert.ok(pushy.connected);
  assert.deepEqual([pushy.socketId, pushy.protocol, pushy.transport], ["an id", "rawwebsocket", "websocket"]);
  assert.deepEqual(events, ["connect"]);
  pushy.disconnect();
  assert.deepEqual([pushy.state, pushy.socketId, socket().closed], ["closed", undefined, true]);
  assert.deepEqual(events, ["connect", "disconnect"]);
});

test("a URL that is none is an error at once", () => {
  assert.throws(() => new Pushy("http://"), TypeError);
});

test("a URL that is asked for before each try", async (t) => {
  const turn = clock(t);
  let n = 0;
  const { pushy, sockets } = client({
    url: async () => {
      if (++n === 1) throw new Error("not logged in");
      return `http://127.0.0.1/pushy?n=${n}`;
    },
  });
  const told = [];
  pushy.bind("state", ({ state, reason }) => told.push([state, reason]));
  pushy.connect();
  await turn(1000);
  assert.equal(sockets[0].url, "ws://127.0.0.1/pushy/socket/websocket?v=2&n=2");
  assert.deepEqual(told[1], ["waiting", "Error: not logged in"]);
  pushy.disconnect();
});

test("comes back after a random pause, longer with each failure, and says when", async (t) => {
  const turn = clock(t);
  const { pushy, sockets, socket } = client();
  const told = states(pushy);
  pushy.connect();
  await flush();
  socket().connect();
  socket().lose();
  const waits = [];
  for (let i = 0; i < 8; i++) {
    assert.equal(pushy.state, "waiting");
    const wait = pushy.retryAt - Date.now();
    waits.push(wait);
    await turn(wait - 1);
    assert.equal(sockets.length, i + 1);
    await turn(1);
    assert.equal(sockets.length, i + 2);
    assert.equal(pushy.retryAt, undefined);
    socket().lose();
  }
  assert.deepEqual(waits, [750, 1250, 2250, 4250, 8250, 10_250, 10_250, 10_250]);
  pushy.disconnect();
  await turn(60_000);
  assert.equal(sockets.length, 9);
  assert.deepEqual(told.slice(0, 5), ["connecting", "connected", "waiting", "connecting", "waiting"]);
  assert.equal(told.at(-1), "closed");
});

test("a connection that lasted begins a new count; one that did not, does not", async (t) => {
  const turn = clock(t);
  const { pushy, socket } = client();
  pushy.connect();
  const waits = [];
  for (const lasted of [0, 0, 0, 6000, 0]) {
    await turn(pushy.retryAt ? pushy.retryAt - Date.now() : 0);
    socket().connect();
    await turn(lasted);
    socket().lose();
    waits.push(pushy.retryAt - Date.now());
  }
  assert.deepEqual(waits, [750, 1250, 2250, 750, 1250]);
  pushy.disconnect();
});

test("stays away after close codes that say so, until the page connects", async (t) => {
  const turn = clock(t);
  for (const code of [1008, 1010, 3500, 3501]) {
    const { pushy, sockets, socket, events } = client();
    const told = [];
    pushy.bind("state", ({ state, code, reason }) => told.push([state, code, reason]));
    pushy.connect();
    await flush();
    socket().connect();
    const waiting = pushy.exec("silent").catch(({ code }) => code);
    socket().lose(code, "go");
    assert.deepEqual(told.at(-1), ["closed", code, "go"]);
    assert.equal(await waiting, "unknown");
    await turn(120_000);
    assert.equal(sockets.length, 1);
    await assert.rejects(pushy.exec("more"), { code: "closed" });
    pushy.channel("news").subscribe();
    assert.equal(sockets.length, 1);
    pushy.connect();
    await flush();
    socket().connect();
    assert.equal(socket().last("subscribe").data.channel, "news");
    assert.deepEqual(events, ["connect", "disconnect", "connect"]);
    pushy.disconnect();
  }
});

test("a server that refuses before it greets says so as well", async (t) => {
  const turn = clock(t);
  const { pushy, sockets, socket } = client({ transports: ["websocket", "streaming"] });
  pushy.connect();
  await flush();
  socket().lose(3501, "refused");
  assert.equal(pushy.state, "closed");
  await turn(120_000);
  assert.equal(sockets.length, 1);
});

test("comes back at once when the network or the page does", async (t) => {
  const turn = clock(t);
  t.after(() => Object.assign(globalThis, { addEventListener: undefined, removeEventListener: undefined, document: undefined }));
  const page = new EventTarget(), document = Object.assign(new EventTarget(), { hidden: false });
  Object.assign(globalThis, {
    addEventListener: page.addEventListener.bind(page), removeEventListener: page.removeEventListener.bind(page), document,
  });
  const { pushy, sockets, socket } = client();
  pushy.connect();
  await flush();
  for (const [target, event] of [[page, "online"], [page, "pageshow"], [document, "visibilitychange"]]) {
    socket().lose();
    await flush();
    const before = sockets.length;
    assert.equal(pushy.state, "waiting");
    target.dispatchEvent(new Event(event));
    await flush();
    assert.equal(sockets.length, before + 1, event);
  }
  socket().lose();
  document.hidden = true;
  document.dispatchEvent(new Event("visibilitychange"));
  page.dispatchEvent(new Event("offline"));
  await flush();
  assert.equal(pushy.state, "waiting");
  pushy.disconnect();
  const before = sockets.length;
  page.dispatchEvent(new Event("online"));
  await turn(60_000);
  assert.equal(sockets.length, before, "it listens no more");
});

test("a page that slept asks whether the server is there, and comes back if not", async (t) => {
  const turn = clock(t);
  const { pushy, sockets, socket } = client();
  pushy.connect();
  await flush();
  socket().connect();
  const first = socket();
  turn.sleep(4 * 3_600_000);
  await turn(5000);
  assert.equal(first.last("pushy:ping")?.command, "pushy:ping");
  await turn(4999);
  assert.ok(pushy.connected);
  await turn(1);
  assert.equal(pushy.state, "waiting");
  assert.ok(first.closed);
  await turn(1000);
  assert.equal(sockets.length, 2);
  pushy.disconnect();
});

// Issue 11, number 32: signs of life that lie in the future kept a dead connection.
test("a clock that is set back does not hide that the server is gone", async (t) => {
  const turn = clock(t);
  const { pushy, socket } = client();
  pushy.connect();
  await flush();
  socket().connect();
  turn.sleep(-24 * 3_600_000);
  await turn(5000);
  assert.equal(socket().last("pushy:ping")?.command, "pushy:ping");
  await turn(5000);
  assert.equal(pushy.state, "waiting");
  pushy.disconnect();
});

test("a silent connection is asked after 45 s; any word will do for an answer", async (t) => {
  const turn = clock(t);
  const { pushy, socket } = client();
  const errors = record(pushy, "pushy:error");
  pushy.connect();
  await flush();
  socket().connect();
  await turn(45_000);
  assert.equal(socket().sent.length, 0);
  await turn(5000);
  const { id } = socket().last("pushy:ping");
  socket().receive("pushy:error", { message: "Unknown command", code: "200", id });
  await turn(45_000);
  assert.equal(socket().sent.length, 1);
  await turn(5000);
  assert.equal(socket().sent.length, 2);
  socket().receive("news", {}, "elsewhere"); // late, but alive
  await turn(10_000);
  assert.ok(pushy.connected);
  assert.deepEqual(errors, [], "which is no business of the page's");
  pushy.disconnect();
});

test("a listener may disconnect, or connect, whatever it is told", async (t) => {
  const turn = clock(t);
  for (const event of ["connect", "state", "disconnect"]) {
    const { pushy, sockets, socket } = client();
    pushy.bind(event, () => pushy.disconnect());
    pushy.exec("queued").catch(() => {});
    await flush();
    socket()?.connect();
    socket()?.lose();
    await turn(60_000);
    assert.equal(pushy.state, "closed", event);
    assert.equal(sockets.length, event === "state" ? 0 : 1);
  }
  const { pushy, sockets, socket } = client();
  pushy.bind("disconnect", () => pushy.connect());
  pushy.connect();
  await flush();
  socket().connect();
  socket().lose();
  await turn(100);
  assert.deepEqual([pushy.state, sockets.length], ["connecting", 2]);
  socket().connect();
  pushy.unbind("disconnect").disconnect();
});

// Issue 11, number 32.
test("a page that is kept for the back button disconnects, and reconnects when it is shown", async (t) => {
  const turn = clock(t);
  t.after(() => Object.assign(globalThis, { addEventListener: undefined, removeEventListener: undefined }));
  const page = new EventTarget();
  Object.assign(globalThis, { addEventListener: page.addEventListener.bind(page), removeEventListener: page.removeEventListener.bind(page) });
  const leave = (persisted) => page.dispatchEvent(Object.assign(new Event("pagehide"), { persisted }));
  const { pushy, sockets, socket, events } = client();
  const codes = [];
  pushy.on("state", ({ state, code }) => code && codes.push([state, code]));
  pushy.channel("news").subscribe();
  await flush();
  socket().connect();
  socket().close = function (code) {
    this.code = code;
  };
  leave(true);
  assert.deepEqual([pushy.state, socket().code, codes], ["waiting", 4001, [["waiting", 4001]]]);
  await turn(60_000);
  assert.equal(sockets.length, 1, "nothing while it is kept");
  page.dispatchEvent(new Event("pageshow"));
  await flush();
  socket().connect();
  assert.equal(socket().last("subscribe").data.channel, "news");
  assert.deepEqual(events, ["connect", "disconnect", "connect"]);
  // While it connects, and while it waits.
  socket().lose();
  page.dispatchEvent(new Event("pageshow"));
  await flush();
  leave(true);
  assert.deepEqual([pushy.state, socket().closed, sockets.length], ["waiting", true, 3]);
  leave(true);
  await turn(60_000);
  assert.equal(sockets.length, 3);
  page.dispatchEvent(new Event("pageshow"));
  await flush();
  assert.equal(sockets.length, 4);
  pushy.disconnect();
  leave(true);
  page.dispatchEvent(new Event("pageshow"));
  await flush();
  assert.deepEqual([pushy.state, sockets.length], ["closed", 4]);
});

// Issue 11, number 34.
test("a connection that fails is written to the console, once, unless somebody listens", async (t) => {
  const turn = clock(t), warned = [];
  t.mock.method(console, "warn", (...what) => warned.push(what.join(" ")));
  const { pushy, socket } = client({ transports: ["websocket", "streaming"], fetch: async () => new Response("origin not allowed", { status: 403 }), url: "http://127.0.0.1/warned" });
  pushy.connect();
  await flush();
  socket().lose();
  for (let n = 0; n < 20; n++) await flush();
  assert.deepEqual(warned.splice(0), ["pushy: closed 403 HTTP 403 origin not allowed"]);

  const down = client({ url: "http://127.0.0.1/down-and-warned" });
  down.pushy.connect();
  await flush();
  for (let n = 0; n < 5; n++) {
    down.socket().lose();
    await turn(down.pushy.retryAt - Date.now());
  }
  assert.deepEqual(warned.splice(0), ["pushy: no connection 1006"]);
  down.pushy.on("state", () => {});
  down.socket().lose(1006, "another reason");
  assert.deepEqual(warned, []);
  down.pushy.disconnect();
});

// Issue 11, numbers 29 and 33.
test("close codes that mean: come back", async (t) => {
  const turn = clock(t);
  for (const code of [1000, 1001, 1005, 1006, 1009, 1011, 1012, 1013, 1014, 1015, 3000, 3001, 3008, 3499, 4000, 4001, 4999]) {
    const { pushy, sockets, socket } = client();
    pushy.connect();
    await flush();
    socket().connect();
    socket().lose(code, "bye");
    assert.equal(pushy.state, "waiting", `${code}`);
    await turn(code === 1013 ? 4250 : 1000);
    assert.equal(sockets.length, 2, `${code}`);
    pushy.disconnect();
  }
});

// Connecting, losing the connection and coming back, on a fake clock.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Pushy } from "../src/pushy.js";
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
  assert.equal(socket().url, "ws://127.0.0.1/pushy/socket/websocket");
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
  assert.equal(sockets[0].url, "ws://127.0.0.1/pushy/socket/websocket?n=2");
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
  for (const code of [1008, 1009, 3500, 3501]) {
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
  const page = new EventTarget(), document = Object.assign(new EventTarget(), { visibilityState: "visible" });
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
  document.visibilityState = "hidden";
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
  assert.equal(made[0].url, "http://127.0.0.1/pushy/socket?id=7");
  made[0].onmessage({ data: '{"event":"pushy:connect","data":{"socketId":"s","protocol":"xhr-polling"}}' });
  pushy.exec("move", { to: "e4" });
  assert.deepEqual(made[0].sent, [{ command: "move", data: { to: "e4" }, id: "pushy:1" }]);
  assert.deepEqual([pushy.transport, sockets.length], ["sockjs", 0]);
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

// Commands and their answers, and SockJS over fetch.
import assert from "node:assert/strict";
import { test } from "node:test";
import { client, clock, flush, record } from "./fakes.js";

const outcome = (promise) => promise.then((data) => ["done", data], ({ name, code, message }) => [name, code, message]);

test("an answer is a reply, an error or the first direct message with the id", async () => {
  const { pushy, socket } = client();
  const told = record(pushy, "pushy:error", "moved");
  const all = ["typed", "move", "plain", "wrong"].map((name) => outcome(pushy.exec(name, { to: name })));
  const nothing = outcome(pushy.exec("nothing"));
  await flush();
  socket().connect();
  assert.deepEqual(socket().sent[0], { command: "typed", data: { to: "typed" }, id: "pushy:1" });
  assert.deepEqual(socket().sent[4], { command: "nothing", id: "pushy:5" });
  socket().receive("pushy:error", { message: "No such move", code: "bad-move", id: "pushy:4" });
  socket().receive("moved", { to: "e4", id: "pushy:2" });
  socket().receive("moved", { to: "a card of the host's own", id: 1 });
  socket().receive("pushy:reply", { id: "pushy:1", data: [1, null] });
  socket().receive("pushy:reply", { id: "pushy:3", data: null });
  socket().receive("pushy:reply", { id: "pushy:5" });
  socket().receive("pushy:reply", { id: "pushy:5", data: "late" });
  socket().receive("moved", { to: "e5", id: "pushy:2" });
  socket().receive("pushy:error", { message: "Of nobody's", code: "100" });
  socket().receive("pushy:error", { message: "Of somebody's own id", code: "100", id: "__proto__" });
  assert.deepEqual(await Promise.all(all), [
    ["done", [1, null]], ["done", { to: "e4", id: "pushy:2" }], ["done", null], ["PushyError", "bad-move", "No such move"],
  ]);
  assert.deepEqual(await nothing, ["done", undefined]);
  assert.deepEqual(told, ["pushy:error", "moved", "moved", "moved", "pushy:error", "pushy:error"]);
  assert.equal(pushy._requests.size, 0);
  pushy.disconnect();
});

test("what is in flight when the connection goes has an unknown outcome, and is not sent again", async (t) => {
  const turn = clock(t);
  const { pushy, socket } = client();
  const first = outcome(pushy.exec("pay"));
  await flush();
  socket().connect();
  assert.equal(socket().sent.length, 1);
  socket().lose();
  const second = outcome(pushy.exec("wait"));
  const third = outcome(pushy.exec("now or never", undefined, { offline: "reject" }));
  assert.deepEqual((await first).slice(0, 2), ["PushyError", "unknown"]);
  assert.deepEqual((await third).slice(0, 2), ["PushyError", "offline"]);
  await turn(1000);
  socket().connect();
  assert.deepEqual(socket().sent.map(({ command }) => command), ["wait"]);
  socket().receive("pushy:reply", { id: socket().sent[0].id, data: 1 });
  assert.deepEqual(await second, ["done", 1]);
  pushy.disconnect();
});

test("the caller chooses for all commands, too; a bounded number waits", async (t) => {
  const turn = clock(t);
  const strict = client({ offline: "reject" });
  assert.equal((await outcome(strict.pushy.exec("a")))[1], "offline");
  await flush();
  strict.socket().connect(); // it was asked for a connection all the same
  strict.pushy.exec("b");
  assert.equal(strict.socket().sent.length, 1);
  strict.socket().lose();
  const patient = outcome(strict.pushy.exec("c", undefined, { offline: "wait" }));
  strict.pushy.disconnect();
  assert.equal((await patient)[1], "closed");

  const { pushy, socket } = client();
  for (let n = 0; n < 100; n++) pushy.exec("n", n);
  assert.equal((await outcome(pushy.exec("n", 100)))[1], "full");
  await turn(0);
  socket().connect();
  assert.deepEqual(socket().sent.map(({ data }) => data), [...Array(100).keys()]);
  pushy.disconnect();
});

test("a command that is never answered leaves nothing, and bothers nobody who does not ask", async (t) => {
  const turn = clock(t);
  const unhandled = [];
  const listen = (error) => unhandled.push(error);
  process.on("unhandledRejection", listen);
  t.after(() => process.off("unhandledRejection", listen));
  const { pushy, socket } = client({ timeout: 1000 });
  pushy.exec("wave");
  const asked = outcome(pushy.exec("wave"));
  const patient = outcome(pushy.exec("think", undefined, { timeout: 0 }));
  await flush();
  socket().connect();
  await turn(999);
  assert.equal(pushy._requests.size, 3);
  await turn(1);
  assert.equal(pushy._requests.size, 1);
  assert.deepEqual(await asked, ["PushyError", "timeout", "No answer to wave in 1000 ms"]);
  await turn(20_000);
  pushy.disconnect();
  assert.equal((await patient)[1], "unknown");
  assert.equal(pushy._requests.size, 0);
  await flush();
  assert.deepEqual(unhandled, []);
});

/** SockJS's other end, for one session: the test writes its frames, and answers what is sent. */
function sockjs() {
  const bodies = [], receivers = [];
  let answer = () => new Response(null, { status: 204 });
  return {
    bodies, receivers,
    answers: (how) => (answer = how),
    fetch: async (url, { body, signal }) => {
      const { pathname } = new URL(url);
      if (pathname.endsWith("/xhr_send")) {
        bodies.push(JSON.parse(body));
        return answer();
      }
      const stream = new TransformStream();
      const writer = stream.writable.getWriter();
      writer.closed.catch(() => {});
      signal.addEventListener("abort", () => writer.abort(signal.reason).catch(() => {}));
      receivers.push({ url, signal, write: (text) => writer.write(new TextEncoder().encode(text)).catch(() => {}), end: () => writer.close().catch(() => {}) });
      return new Response(stream.readable);
    },
  };
}

/** Long enough for streams, which have no timers. */
const soon = async () => {
  for (let n = 0; n < 100; n++) await flush();
};

const hello = 'a["{\\"event\\":\\"pushy:connect\\",\\"data\\":{\\"socketId\\":\\"s\\",\\"protocol\\":\\"xhr-streaming\\"}}"]\n';
const frame = (...messages) => `a${JSON.stringify(messages.map((message) => JSON.stringify(message)))}\n`;

test("streaming: frames in any pieces, one response after another", async () => {
  const server = sockjs();
  const { pushy } = client({ transports: ["streaming"], fetch: server.fetch, url: "http://127.0.0.1/pushy?id=7" });
  const heard = [];
  pushy.bind("news", (data) => heard.push(data)).connect();
  await flush();
  const { url, write, end } = server.receivers[0];
  assert.match(url, /^http:\/\/127\.0\.0\.1\/pushy\/socket\/c\/[0-9-]{7,43}\/xhr_streaming\?v=2&id=7$/);
  const text = `${"h".repeat(2048)}\no\n${hello}h\n${frame({ event: "news", data: "é\n☃" }, { event: "news", data: "[h" })}`;
  write(text.slice(0, 2060));
  for (const character of text.slice(2060)) write(character);
  await flush();
  end();
  await soon();
  assert.deepEqual(heard, ["é\n☃", "[h"]);
  assert.equal(server.receivers.length, 2, "the next");
  server.receivers[1].write(frame({ event: "news", data: 3 }) + 'c[3500,"removed"]\n' + frame({ event: "news", data: 4 }));
  await soon();
  assert.deepEqual(heard, ["é\n☃", "[h", 3]);
  assert.equal(pushy.state, "closed");
  assert.ok(server.receivers[1].signal.aborted);
});

test("streaming: what is sent meanwhile shares a request, in order and in bounds", async () => {
  const server = sockjs();
  const { pushy } = client({ transports: ["streaming"], fetch: server.fetch });
  pushy.connect();
  await flush();
  server.receivers[0].write(hello);
  await soon();
  const free = [];
  server.answers(() => new Promise((resolve) => free.push(() => resolve(new Response(null, { status: 204 })))));
  for (let n = 0; n < 20; n++) pushy.exec("n", { n, pad: "x".repeat(1000) });
  pushy.exec("n", { n: 20, pad: "x".repeat(40_000) });
  pushy.exec("n", { n: 21 });
  await flush();
  assert.equal(server.bodies.length, 1, "one at a time");
  while (free.length) {
    free.shift()();
    await flush();
  }
  assert.deepEqual(server.bodies.flat().map((text) => JSON.parse(text).data.n), [...Array(22).keys()]);
  assert.deepEqual(server.bodies.map((body) => body.length), [1, 15, 4, 1, 1]);
  pushy.disconnect();
});

test("streaming: what ends it", async (t) => {
  const turn = clock(t);
  for (const [name, act, code, reason] of [
    ["a send that fails", (server, pushy) => { server.answers(() => Promise.reject(new TypeError("network"))); pushy.exec("a"); }, 1006, "TypeError: network"],
    ["a session that is gone", (server, pushy) => { server.answers(() => new Response("", { status: 404 })); pushy.exec("a"); }, 1006, "HTTP 404"],
    ["a send that something else answers", (server, pushy) => { server.answers(() => new Response("<html>", { status: 200 })); pushy.exec("a"); }, 1006, "HTTP 200"],
    ["a login that has ended", (server, pushy) => { server.answers(() => new Response("", { status: 401 })); pushy.exec("a"); }, 1006, "HTTP 401"],
    ["a goodbye", (server) => server.receivers[0].write('c[3001,"later"]\n'), 3001, "later"],
    ["a new session in its place", (server) => server.receivers[0].end().then(soon).then(() => server.receivers[1].write("o\n" + hello)), 1006, ""],
    ["a frame that is none", (server) => server.receivers[0].write("a[\n"), 1006, "SyntaxError: Unexpected end of JSON input"],
  ]) {
    const server = sockjs();
    const { pushy } = client({ transports: ["streaming"], fetch: server.fetch });
    let last;
    pushy.bind("state", (state) => (last = state)).connect();
    await flush();
    server.receivers[0].write("o\n" + hello);
    await turn(0);
    await flush();
    assert.ok(pushy.connected, name);
    await act(server, pushy);
    await soon();
    assert.deepEqual([last.state, last.code, last.reason], ["waiting", code, reason], name);
    assert.ok(server.receivers.at(-1).signal.aborted, name);
    pushy.disconnect();
  }
});

// Issue 11, number 33.
test("a server that refuses for good is asked once, and says with what", async (t) => {
  const turn = clock(t);
  for (const status of [401, 403]) {
    let asked = 0;
    const { pushy, socket, sockets } = client({
      transports: ["websocket", "streaming", "polling"],
      fetch: async () => {
        asked++;
        return new Response("log in", { status });
      },
    });
    let last;
    pushy.bind("state", (state) => (last = state)).channel("news").subscribe();
    await flush();
    socket().lose(); // which is all that a browser hears of a refused WebSocket
    await soon();
    assert.deepEqual([last.state, last.code, last.reason, last.body], ["closed", status, `HTTP ${status}`, "log in"]);
    await assert.rejects(pushy.exec("more"), { code: "closed" });
    await turn(120_000);
    assert.deepEqual([asked, sockets.length], [1, 1]);
    pushy.connect(); // logged in
    await flush();
    socket().connect();
    assert.equal(socket().last("subscribe").data.channel, "news");
    pushy.disconnect();
  }
});

// Issue 11, number 33.
test("a refusal whose body cannot be read is final all the same", async (t) => {
  const turn = clock(t);
  let asked = 0;
  const broken = () => new ReadableStream({ pull: (controller) => controller.error(new TypeError("not gzip")) });
  const { pushy } = client({
    transports: ["streaming", "polling"],
    fetch: async () => {
      asked++;
      return new Response(broken(), { status: 403 });
    },
  });
  let last;
  pushy.bind("state", (state) => (last = state)).connect();
  await soon();
  await turn(60_000);
  assert.deepEqual([last.state, last.code, last.body, asked], ["closed", 403, "", 1]);
});

// Issue 11, number 33.
test("a busy server is asked again when it says, not sooner for a page that wakes", async (t) => {
  const turn = clock(t);
  for (const [header, wait] of [[() => "30", 30_750], [() => new Date(Date.now() + 60_000).toUTCString(), 60_750]]) {
    let asked = 0;
    const { pushy } = client({
      transports: ["streaming", "polling"],
      fetch: async () => {
        asked++;
        return new Response("no more connections now", { status: 503, headers: { "Retry-After": header() } });
      },
    });
    pushy.connect();
    await turn(0);
    assert.deepEqual([pushy.state, asked], ["waiting", 1]);
    assert.ok(pushy.retryAt - Date.now() <= wait && pushy.retryAt - Date.now() > wait - 2000, `${pushy.retryAt - Date.now()}`);
    pushy._look("woke");
    await turn(20_000);
    assert.equal(asked, 1);
    await turn(wait - 20_000);
    assert.equal(asked, 2);
    pushy.disconnect();
    await flush();
  }
});

// Issue 11, number 13.
test("a message too large fails alone; what shared its request is delivered", async () => {
  const server = sockjs();
  const { pushy } = client({ transports: ["streaming"], fetch: server.fetch });
  pushy.connect();
  await flush();
  server.receivers[0].write("o\n" + hello);
  await soon();
  const delivered = [];
  server.answers(() => {
    const body = server.bodies.at(-1);
    if (JSON.stringify(body).length > 3000) return new Response("message too large", { status: 413 });
    delivered.push(...body.map((text) => JSON.parse(text)));
    return new Response(null, { status: 204 });
  });
  const large = outcome(pushy.exec("large", "x".repeat(20_000)));
  for (let n = 0; n < 10; n++) pushy.exec("n", { n, pad: "x".repeat(1000) });
  const quoted = outcome(pushy.exec("quoted", '"'.repeat(2000)));
  await soon();
  const [name, code, message] = await large;
  assert.deepEqual([name, code], ["PushyError", "too-large"]);
  assert.match(message, /Too large: 20\d{3} characters \(413\)/);
  assert.equal((await quoted)[1], "too-large");
  assert.deepEqual(delivered.map(({ data }) => data.n), [...Array(10).keys()]);
  assert.ok(pushy.connected);
  assert.equal(server.receivers.length, 1);
  pushy.disconnect();
});

// Issue 11, number 13.
test("after a close for a message's size the client reconnects, and sends none of them again", async (t) => {
  const turn = clock(t);
  const { pushy, socket, sockets } = client();
  pushy.connect();
  await flush();
  socket().connect();
  pushy.channel("news").subscribe();
  socket().welcome("news");
  const small = outcome(pushy.exec("small", 1)), large = outcome(pushy.exec("large", "x".repeat(70_000)));
  socket().lose(1009, "message too large");
  assert.equal((await large)[1], "too-large");
  assert.equal((await small)[1], "unknown");
  await turn(1000);
  assert.equal(sockets.length, 2);
  socket().connect();
  assert.deepEqual(socket().sent.map(({ command }) => command), ["subscribe"]);
  pushy.disconnect();
});

// Issue 11, number 27.
test("the id of an answer is the message's own, or its data's", async () => {
  const { pushy, socket } = client();
  pushy.connect();
  await flush();
  socket().connect();
  const all = ["list", "object", "old", "text", "none", "wrong"].map((name) => outcome(pushy.exec(name)));
  const answer = (event, data, id) => socket().onmessage({ data: JSON.stringify({ event, data, id }) });
  answer("listed", [1, 2], "pushy:1");
  answer("made", { id: 7, of: "the host's own" }, "pushy:2");
  answer("made", { n: 3, id: "pushy:3" });
  answer("said", "hello", "pushy:4");
  answer("done", null, "pushy:5");
  answer("pushy:error", { message: "No", code: "no", id: "a thing" }, "pushy:6");
  assert.deepEqual(await Promise.all(all), [
    ["done", [1, 2]], ["done", { id: 7, of: "the host's own" }], ["done", { n: 3, id: "pushy:3" }], ["done", "hello"], ["done", null],
    ["PushyError", "no", "No"],
  ]);
  pushy.disconnect();
});

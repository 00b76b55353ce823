// Channels: subscribing, tokens, members, events.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Pushy } from "../src/pushy.js";
import { client, clock, flush, record } from "./fakes.js";

const told = (channel) =>
  record(channel, "subscribe", "unsubscribe", "subscribe-error", "auth-error", "pushy:member-added", "pushy:member-quit", "pushy:presence-sync");

/** A client that is connected. */
async function connected(options) {
  const all = client(options);
  all.pushy.connect();
  await flush();
  all.socket().connect("first");
  return all;
}

/** An auth endpoint that gives the answers in turn, the last one for ever. */
function endpoint(...answers) {
  const asked = [];
  return {
    asked,
    fetch: async (url, { body, headers, method, credentials }) => {
      asked.push({ url, method, credentials, headers, ...Object.fromEntries(body) });
      const answer = answers.length > 1 ? answers.shift() : answers[0];
      if (answer instanceof Error) throw answer;
      const [status, text] = typeof answer === "number" ? [answer, "no"] : [200, answer];
      return new Response(text, { status });
    },
  };
}

test("a name in any case is one channel", async () => {
  const { pushy, socket } = await connected();
  const lobby = pushy.channel("Lobby"), heard = [];
  assert.equal(pushy.channel("LOBBY"), lobby);
  assert.equal(lobby.name, "Lobby");
  assert.equal(lobby.subscribe(), lobby);
  assert.deepEqual(socket().last("subscribe").data, { channel: "Lobby" });
  socket().welcome("lobby");
  lobby.bind("news", (data) => heard.push(data));
  socket().receive("news", { n: 1 }, "lobby");
  socket().receive("news", null, "lobby");
  socket().receive("pushy:resync", undefined, "lobby");
  assert.deepEqual(heard, [{ n: 1 }, null]);
  assert.ok(lobby.subscribed);
  assert.equal(lobby.memberId, "me");
  pushy.disconnect();
});

test("channels of Object's own names", async () => {
  const { pushy, socket } = await connected();
  for (const name of ["__proto__", "constructor", "length"]) {
    const channel = pushy.channel(name), all = told(channel);
    channel.bind("__proto__", () => all.push("event"));
    socket().receive("__proto__", {}, name); // nothing before it is in
    channel.subscribe();
    socket().welcome(name);
    socket().receive("__proto__", {}, name);
    assert.deepEqual(all, ["subscribe", "event"]);
  }
  socket().receive("news", {}, "nobody's");
  pushy.disconnect();
});

test("subscribes again after a reconnect, and no more when unsubscribed", async (t) => {
  const turn = clock(t);
  const { pushy, socket } = await connected();
  const a = pushy.channel("a").subscribe(), b = pushy.channel("b").subscribe(), tellsA = told(a), tellsB = told(b);
  a.subscribe();
  assert.equal(socket().sent.length, 2, "asked for once");
  socket().welcome("a");
  socket().welcome("b");
  a.subscribe();
  b.unsubscribe();
  assert.deepEqual(socket().last("unsubscribe").data, { channel: "b" });
  b.unsubscribe();
  socket().receive("pushy:subscription-end", { channel: "b" });
  assert.equal(b.subscribed, false);
  assert.equal(socket().sent.length, 3);
  socket().lose();
  assert.deepEqual([a.subscribed, a.memberId], [false, undefined]);
  await turn(1000);
  socket().connect("second");
  assert.deepEqual(socket().sent.map(({ data }) => data.channel), ["a"]);
  socket().welcome("a");
  assert.deepEqual(tellsA, ["subscribe", "unsubscribe ", "subscribe"]);
  assert.deepEqual(tellsB, ["subscribe", "unsubscribe"]);
  pushy.disconnect();
});

test("a listener of connect may subscribe, too", async () => {
  const { pushy, socket } = client();
  const channel = pushy.channel("a");
  pushy.bind("connect", () => channel.subscribe());
  pushy.channel("b").subscribe();
  await flush();
  socket().connect();
  assert.deepEqual(socket().sent.map(({ data }) => data.channel), ["a", "b"]);
  pushy.disconnect();
});

test("who changes their mind gets what they wanted last", async (t) => {
  const turn = clock(t);
  const { pushy, socket } = await connected();
  const a = pushy.channel("a").subscribe(), all = told(a);
  a.unsubscribe(); // before the answer
  assert.deepEqual(socket().sent.map(({ command }) => command), ["subscribe", "unsubscribe"]);
  a.subscribe(); // before that one's
  socket().welcome("a");
  assert.deepEqual(all, [], "an old wish");
  socket().receive("pushy:subscription-end", { channel: "a", id: socket().last("unsubscribe").id });
  assert.equal(socket().sent.length, 3);
  socket().welcome("a");
  assert.deepEqual(all, ["unsubscribe", "subscribe"]);
  a.unsubscribe();
  socket().receive("pushy:error", { message: "Channel not found", code: "404", id: socket().last("unsubscribe").id });
  assert.equal(a.subscribed, false, "the host was faster");
  a.subscribe();
  socket().welcome("a");
  all.splice(0);
  a.unsubscribe();
  a.subscribe();
  socket().lose(); // before the answer
  await turn(1000);
  socket().connect("second");
  assert.deepEqual(socket().sent.map(({ command, data }) => [command, data.channel]), [["subscribe", "a"]]);
  socket().welcome("a");
  assert.deepEqual(all, ["unsubscribe ", "subscribe"]);
  pushy.disconnect();
});

test("taken out by the host: stays out until the page subscribes", async (t) => {
  const turn = clock(t);
  const { pushy, socket } = await connected();
  const a = pushy.channel("a").subscribe(), all = told(a);
  socket().welcome("a");
  socket().receive("pushy:subscription-end", { channel: "a", reason: "banned" });
  socket().lose();
  await turn(1000);
  socket().connect();
  assert.equal(socket().sent.length, 0);
  a.subscribe();
  assert.equal(socket().sent.length, 1);
  assert.deepEqual(all, ["subscribe", "unsubscribe banned"]);
  pushy.disconnect();
});

test("put in by the host: told, and not asked for after a reconnect", async (t) => {
  const turn = clock(t);
  const { pushy, socket } = await connected();
  const hall = pushy.channel("Hall"), all = told(hall), heard = [];
  hall.on("news", () => heard.push(1));
  socket().receive("pushy:subscription-success", { channel: "hall", memberId: "m" });
  socket().receive("news", {}, "hall");
  assert.ok(pushy.channel("hall").subscribed);
  socket().lose();
  await turn(1000);
  socket().connect();
  assert.equal(socket().sent.length, 0);
  assert.deepEqual([all, heard], [["subscribe", "unsubscribe "], [1]]);
  pushy.disconnect();
});

test("members follow the server through everything", async (t) => {
  const turn = clock(t);
  const { pushy, socket } = await connected({ authHandler: () => ({ auth: "t" }) });
  const room = pushy.channel("private-room").subscribe(), all = told(room);
  await flush();
  const ann = { memberId: "a", name: "Ann" }, bob = { memberId: "b", name: "Bob" }, eve = { memberId: "__proto__", name: "Eve" };
  socket().welcome("private-room", [ann]);
  assert.deepEqual([...room.members.values()], [ann]);
  const before = room.members;
  socket().receive("pushy:presence-add", { member: bob }, "private-room");
  socket().receive("pushy:presence-add", { member: eve }, "private-room");
  assert.deepEqual([...room.members.keys()], ["a", "b", "__proto__"]);
  assert.deepEqual([...before.keys()], ["a"]);
  socket().receive("pushy:presence-quit", { member: ann }, "private-room");
  assert.deepEqual([...room.members.values()], [bob, eve]);
  socket().receive("pushy:presence-sync", { presence: [bob, ann] }, "private-room");
  assert.deepEqual([...room.members.values()], [bob, ann]);
  socket().lose();
  assert.equal(room.members.size, 2, "as they were, while nobody knows");
  await turn(1000);
  socket().connect("second");
  await flush();
  socket().welcome("private-room", [ann]);
  assert.deepEqual([...room.members.values()], [ann]);
  room.unsubscribe();
  socket().receive("pushy:subscription-end", { channel: "private-room" });
  assert.equal(room.members.size, 0);
  assert.deepEqual(all, [
    "subscribe", "pushy:member-added", "pushy:member-added", "pushy:member-quit", "pushy:presence-sync",
    "unsubscribe ", "subscribe", "unsubscribe",
  ]);
  pushy.disconnect();
});

test("a private channel brings a token made for this connection", async (t) => {
  const turn = clock(t);
  const auth = endpoint('{"auth":"one","data":{"name":"Ann"}}', '{"auth":"two","data":"{\\"name\\":\\"Ann\\"}"}');
  const { pushy, socket } = await connected({ ...auth, authHandler: "/auth", headers: async () => ({ "X-CSRF": "7" }) });
  pushy.channel("Private-Room").subscribe();
  await flush();
  assert.deepEqual(auth.asked[0], {
    url: "/auth", method: "POST", credentials: "include", headers: { "X-CSRF": "7" }, channel: "private-room", connection_id: "first",
  });
  assert.deepEqual(socket().last("subscribe").data, { channel: "Private-Room", auth: "one", data: { name: "Ann" } });
  socket().welcome("private-room", []);
  socket().lose();
  await turn(1000);
  socket().connect("second");
  await flush();
  assert.equal(auth.asked[1].connection_id, "second");
  assert.deepEqual(socket().last("subscribe").data, { channel: "Private-Room", auth: "two", data: '{"name":"Ann"}' });
  pushy.disconnect();
});

test("a token that comes too late is not used", async (t) => {
  const turn = clock(t);
  const answers = [];
  const { pushy, socket } = await connected({ authHandler: () => new Promise((resolve) => answers.push(resolve)) });
  const room = pushy.channel("private-room").subscribe();
  await flush();
  socket().lose();
  await turn(1000);
  socket().connect("second");
  answers[0]({ auth: "for the first" });
  await flush();
  assert.equal(socket().sent.length, 0);
  answers[1]({ auth: "for the second" });
  await flush();
  assert.deepEqual(socket().sent.map(({ data }) => data.auth), ["for the second"]);
  socket().welcome("private-room");
  room.unsubscribe();
  socket().receive("pushy:subscription-end", { channel: "private-room" });
  room.subscribe();
  await flush();
  room.unsubscribe();
  answers[2]({ auth: "nobody's" });
  await flush();
  assert.equal(socket().sent.length, 2);
  pushy.disconnect();
});

test("without an auth handler the server says whether it wants a token", async () => {
  const auth = endpoint('{"auth":"t"}');
  const { pushy, socket } = await connected(auth);
  const room = pushy.channel("private-room").subscribe(), all = told(room);
  assert.deepEqual([socket().last("subscribe").data, auth.asked.length], [{ channel: "private-room" }, 0]);
  socket().receive("pushy:subscription-needauth", { channel: "private-room", id: socket().last("subscribe").id });
  await flush();
  assert.equal(auth.asked[0].url, "http://127.0.0.1/pushy/auth");
  assert.equal(socket().last("subscribe").data.auth, "t");
  // It does not ask again and again.
  socket().receive("pushy:subscription-needauth", { channel: "private-room", id: socket().last("subscribe").id });
  await flush();
  assert.deepEqual([all, auth.asked.length], [["subscribe-error Authorization needed"], 1]);
  pushy.disconnect();
});

test("a refusal is told with its status and body, and is final", async (t) => {
  const turn = clock(t);
  for (const [authHandler, answer, status, body] of [
    ["/auth", 403, 403, "no"],
    ["/auth", 404, 404, "no"],
    ["/auth", "<h1>Log in</h1>", 200, "<h1>Log in</h1>"],
    [() => Promise.reject({ status: 403, body: "no" }), 0, 403, "no"],
  ]) {
    const auth = endpoint(answer, '{"auth":"t"}');
    const { pushy, socket } = await connected({ ...auth, authHandler });
    const asks = () => socket().sent.filter(({ command }) => command === "subscribe").length;
    const room = pushy.channel("private-room"), details = [];
    for (const emitter of [room, pushy]) emitter.bind("auth-error", (detail) => details.push(detail));
    const all = told(room.subscribe());
    await flush();
    const detail = { channel: "private-room", status, body, retryAt: undefined };
    assert.deepEqual(details, [detail, detail]);
    assert.deepEqual(all, ["auth-error", `subscribe-error Authorization failed (${status})${status === 200 ? ': not JSON, it begins with "<h1>Log in</h1>"' : ""}`]);
    socket().lose();
    await turn(1000);
    socket().connect("second");
    await turn(40_000);
    assert.equal(asks(), 0);
    if (typeof authHandler === "string") {
      room.subscribe(); // logged in again
      await flush();
      assert.equal(socket().last("subscribe").data.auth, "t");
    }
    pushy.disconnect();
  }
});

test("a failure is tried again, later and later, until it works", async (t) => {
  const turn = clock(t);
  const auth = endpoint(503, new TypeError("Failed to fetch"), 500, '{"auth":"t"}');
  const { pushy, socket } = await connected({ ...auth, authHandler: "/auth" });
  const details = [];
  const room = pushy.channel("private-room").bind("auth-error", ({ status, body, retryAt }) => details.push([status, body, retryAt - Date.now()])).subscribe();
  const all = told(room);
  await turn(749);
  assert.equal(auth.asked.length, 1);
  await turn(1);
  assert.equal(auth.asked.length, 2);
  await turn(1250);
  assert.equal(auth.asked.length, 3);
  room.subscribe(); // at once
  await flush();
  assert.deepEqual(details, [[503, "no", 750], [0, "Failed to fetch", 1250], [500, "no", 2250]]);
  assert.equal(socket().last("subscribe").data.auth, "t");
  socket().welcome("private-room");
  await turn(40_000);
  assert.equal(auth.asked.length, 4);
  assert.deepEqual(all, ["auth-error", "auth-error", "auth-error", "subscribe"]);
  pushy.disconnect();
});

test("what the server refuses is final; what it cannot do now is not", async (t) => {
  const turn = clock(t);
  const { pushy, socket } = await connected();
  const asks = () => socket().sent.filter(({ command }) => command === "subscribe").length;
  const a = pushy.channel("a"), all = told(a);
  const fail = (reason) => socket().receive("pushy:subscription-failed", { channel: "a", reason, id: socket().last("subscribe").id });
  const error = (message, code) => socket().receive("pushy:error", { message, code, id: socket().last("subscribe").id });
  a.subscribe();
  fail("Invalid credentials");
  a.subscribe();
  error("Too many channels", "302");
  await turn(40_000);
  assert.deepEqual([asks(), all.splice(0)], [2, ["subscribe-error Invalid credentials", "subscribe-error Too many channels"]]);
  a.subscribe();
  fail("Temporarily unavailable");
  await turn(750);
  error("Too many requests", "429");
  await turn(1250);
  assert.deepEqual([asks(), all], [5, []]);
  socket().welcome("a");
  assert.deepEqual(all, ["subscribe"]);
  pushy.disconnect();
});

test("for await gives all events, across reconnects, until unsubscribe", async (t) => {
  const turn = clock(t);
  const { pushy, socket } = await connected();
  const a = pushy.channel("a").subscribe(), got = [];
  const reading = (async () => {
    for await (const { event, data } of a) got.push(data?.n ?? event);
  })();
  socket().welcome("a");
  socket().receive("news", { n: 1 }, "a");
  socket().receive("news", { n: 2 }, "a");
  await flush();
  socket().lose();
  await turn(1000);
  socket().connect();
  socket().welcome("a");
  socket().receive("pushy:resync", undefined, "a");
  socket().receive("news", { n: 3 }, "a");
  a.unsubscribe();
  await reading;
  assert.deepEqual(got, ["subscribe", 1, 2, "unsubscribe", "subscribe", "pushy:resync", 3]);
  assert.equal(a._readers.size, 0);
  pushy.disconnect();
});

test("a for await that is left, or too slow", async () => {
  const { pushy, socket } = await connected();
  const a = pushy.channel("a").subscribe();
  const first = (async () => {
    for await (const { event } of a) return event;
  })();
  socket().welcome("a");
  assert.equal(await first, "subscribe");
  assert.equal(a._readers.size, 0);
  const slow = a[Symbol.asyncIterator](), next = slow.next();
  const receive = (count) => {
    for (let n = 0; n < count; n++) socket().receive("news", { n }, "a");
  };
  receive(10_000);
  assert.deepEqual((await next).value.data, { n: 0 });
  receive(1);
  assert.deepEqual((await slow.next()).value.data, { n: 1 });
  receive(2);
  await assert.rejects(slow.next(), /10000 events of a wait/);
  assert.equal(a._readers.size, 0);
  pushy.disconnect();
});

// Issue 11, number 31.
test("a token that the page gives is used, whenever the subscription is sent", async () => {
  const auth = endpoint('{"auth":"from the endpoint"}');
  const { pushy, socket } = await connected({ ...auth, authHandler: "/auth" });
  const room = pushy.channel("private-room"), given = { auth: "given", data: { name: "Ann" } };
  const end = () => socket().receive("pushy:subscription-end", { channel: "private-room", id: socket().last("unsubscribe").id });
  room.subscribe(given);
  await flush();
  assert.equal(socket().last("subscribe").data.auth, "given");
  socket().welcome("private-room", []);
  room.unsubscribe();
  room.subscribe({ auth: "again" }); // before the answer
  end();
  await flush();
  assert.equal(socket().last("subscribe").data.auth, "again");
  room.unsubscribe();
  room.subscribe({ auth: "never" });
  room.unsubscribe();
  room.subscribe();
  socket().welcome("private-room", []);
  end();
  await flush();
  assert.equal(socket().last("subscribe").data.auth, "from the endpoint");
  // While another subscription is not answered yet.
  room.subscribe({ auth: "better" });
  socket().receive("pushy:subscription-failed", { channel: "private-room", reason: "Invalid credentials", id: socket().last("subscribe").id });
  await flush();
  assert.equal(socket().last("subscribe").data.auth, "better");
  socket().welcome("private-room", []);
  room.subscribe({ auth: "not now" });
  assert.equal(socket().last("subscribe").data.auth, "better");
  pushy.disconnect();
});

// Issue 11, number 31.
test("a token is given before there is a connection, and does not outlive one", async (t) => {
  const turn = clock(t);
  const auth = endpoint('{"auth":"from the endpoint"}');
  const { pushy, socket } = client({ ...auth, authHandler: "/auth" });
  pushy.channel("private-room").subscribe({ auth: "given" });
  await flush();
  socket().connect("first");
  await flush();
  assert.equal(socket().last("subscribe").data.auth, "given");
  socket().welcome("private-room", []);
  pushy.channel("private-room").unsubscribe();
  pushy.channel("private-room").subscribe({ auth: "for the first" });
  socket().lose();
  await turn(1000);
  socket().connect("second");
  await flush();
  assert.equal(socket().last("subscribe").data.auth, "from the endpoint");
  pushy.disconnect();
});

// Issue 11, number 33.
test("what is published never calls the listeners of the client's own events", async () => {
  const { pushy, socket } = await connected();
  const names = ["subscribe", "unsubscribe", "subscribe-error", "auth-error", "pushy:member-added", "pushy:member-quit", "pushy:presence-sync"];
  const a = pushy.channel("a").subscribe();
  socket().welcome("a");
  const own = told(a), published = [], data = [], got = [];
  for (const name of [...names, "news", "state", "connect"]) {
    a.events.on(name, (value) => published.push([name, value]));
    if (!names.includes(name)) a.on(name, (value) => data.push([name, value]));
  }
  const reading = (async () => {
    for await (const { event, data, published } of a) got.push([event, published, data]);
  })();
  await flush();
  const sent = [...names, "news", "state", "connect"].filter((name) => !name.startsWith("pushy:"));
  for (const name of sent) socket().receive(name, name.length, "a");
  for (const name of ["pushy:member-added", "pushy:member-quit"]) socket().receive(name, { name: "Eve" }, "a");
  assert.deepEqual(own, []);
  assert.deepEqual(published.filter(([name]) => !name.startsWith("pushy:")), sent.map((name) => [name, name.length]));
  assert.deepEqual(data, [["news", 4], ["state", 5], ["connect", 7]]);
  assert.ok(a.subscribed);
  a.unsubscribe();
  await reading;
  socket().receive("pushy:subscription-end", { channel: "a", id: socket().last("unsubscribe").id });
  assert.deepEqual(got.slice(0, sent.length), sent.map((name) => [name, true, name.length]));
  assert.deepEqual(own, ["unsubscribe"]);

  // The same of direct messages.
  const direct = ["connect", "disconnect", "state", "auth-error", "internal-msg"], all = record(pushy, "connect", "disconnect", "state", "auth-error"), replies = [];
  for (const name of direct) pushy.events.on(name, (value) => replies.push(value));
  for (const name of direct) socket().receive(name, { as: name });
  assert.deepEqual([all, replies.map(({ as }) => as)], [[], direct]);
  const answer = pushy.exec("state");
  socket().receive("state", { n: 1, id: socket().last("state").id });
  assert.equal((await answer).n, 1);
  assert.deepEqual(all, []);
  pushy.disconnect();
});

/** What is written to the console meanwhile. */
function warnings(t) {
  const all = [];
  t.mock.method(console, "warn", (...what) => all.push(what.join(" ")));
  return all;
}

// Decision 35.
test("a channel whose auth endpoint fails ten times is given up, with one warning", async (t) => {
  const turn = clock(t), warned = warnings(t);
  for (const answer of [500, 503, new TypeError("Failed to fetch")]) {
    const auth = endpoint(answer);
    const { pushy, socket } = await connected({ ...auth, authHandler: "/auth", url: `http://127.0.0.1/${answer}` });
    const room = pushy.channel("private-room").subscribe(), details = [];
    room.on("auth-error", (detail) => details.push(detail));
    for (let seconds = 0; seconds < 300; seconds += 30) {
      await turn(30_000);
      socket().receive("news", {}, "elsewhere"); // the server is there
    }
    assert.equal(auth.asked.length, 10);
    assert.deepEqual(details.map(({ retryAt }) => !!retryAt), [...Array(9).fill(true), false]);
    const status = typeof answer === "number" ? answer : 0;
    assert.deepEqual(warned.splice(0), [`pushy: private-room is given up: Authorization failed (${status})`]);
    room.subscribe(); // which counts anew
    await turn(2000);
    assert.ok(auth.asked.length > 11);
    socket().lose();
    pushy.disconnect();
  }
});

// Issue 11, number 34.
test("errors that nobody listens to are written to the console, once", async (t) => {
  const warned = warnings(t);
  const auth = endpoint(403);
  const { pushy, socket } = await connected({ ...auth, authHandler: "/auth" });
  pushy.channel("private-room").subscribe();
  await flush();
  assert.deepEqual(warned.splice(0), ["pushy: private-room: Authorization failed (403)"]);
  pushy.channel("private-room").subscribe();
  await flush();
  assert.deepEqual(warned, []);
  for (const listen of [(room) => room.on("subscribe-error", () => {}), (room) => room.on("auth-error", () => {}), (room) => room[Symbol.asyncIterator]().next()]) {
    listen(pushy.channel(`private-${warned.length}${listen}`.slice(0, 50)).subscribe());
    await flush();
    assert.deepEqual(warned, [], `${listen}`);
  }
  const fail = (message, code, name) => socket().receive("pushy:error", { message, code, id: name && socket().last(name).id });
  pushy.exec("ignored");
  fail("Unknown command", "200", "ignored");
  const awaited = pushy.exec("awaited").catch(({ code }) => code);
  fail("Unknown command", "200", "awaited");
  assert.equal(await awaited, "200");
  const later = (async () => {
    try {
      await pushy.exec("awaited");
    } catch ({ code }) {
      return code;
    }
  })();
  fail("Unknown command", "200", "awaited");
  assert.equal(await later, "200");
  fail("Too many requests", "429");
  fail("Too many requests", "429");
  await flush();
  assert.deepEqual(warned.splice(0), ["pushy: ignored: Unknown command (200)", "pushy: Too many requests (429)"]);
  pushy.on("pushy:error", () => {});
  pushy.exec("listened");
  fail("Unknown command", "200", "listened");
  await flush();
  pushy.off("disconnect");
  socket().lose(3500, "removed");
  assert.deepEqual(warned.splice(0), ["pushy: closed 3500 removed"]);
  pushy.exec("closed");
  await flush();
  assert.equal(warned.length, 0, "pushy:error is listened to");
  assert.equal(await pushy.exec("closed").catch(({ code }) => code), "closed");
});

// Issue 11, number 30: no loop without a pause, of any kind.
test("an auth endpoint that answers JSON without a token is asked once", async (t) => {
  const warned = warnings(t);
  for (const answer of ["false", "null", "0", '""', "[]", "{}", '"text"', '{"auth":""}', '{"error":"no"}']) {
    for (const authHandler of ["/auth", undefined, async () => JSON.parse(answer)]) {
      const auth = endpoint(answer);
      const { pushy, socket } = await connected({ ...auth, authHandler, url: `http://127.0.0.1/${encodeURIComponent(answer)}` });
      const all = told(pushy.channel("private-room").subscribe());
      for (let n = 0; n < 10; n++) {
        await flush();
        socket().receive("pushy:subscription-needauth", { channel: "private-room", id: socket().last("subscribe").id });
      }
      assert.deepEqual(all, ["subscribe-error Authorization needed"], answer);
      assert.ok(auth.asked.length <= 1, `asked ${auth.asked.length} times for ${answer}`);
      assert.ok(socket().sent.length <= 2);
      pushy.disconnect();
    }
  }
  assert.deepEqual(warned, []);
});

// Issue 11, number 34.
test("debug writes each step, and no token", async (t) => {
  const lines = [];
  t.mock.method(console, "log", (...what) => lines.push(what.map((part) => (typeof part === "string" ? part : JSON.stringify(part))).join(" ")));
  const { pushy, socket } = await connected({ debug: true, url: "http://127.0.0.1/pushy?login=secret", authHandler: () => ({ auth: 'se"cret' }) });
  pushy.channel("private-room").subscribe();
  await flush();
  socket().receive("pushy:subscription-failed", { channel: "private-room", reason: "Invalid credentials" });
  pushy.disconnect();
  const all = lines.join("\n");
  for (const part of ["connecting", "tries websocket http://127.0.0.1/pushy/socket", "connected", "needs a token private-room", '"auth":"…"', "Invalid credentials", "closed"]) {
    assert.ok(all.includes(part), `${part} in ${all}`);
  }
  assert.ok(!all.includes("cret"), all);
});

// Issue 11, number 34.
test("options as one object, or after the auth endpoint", async () => {
  for (const args of [[{ auth: "/a" }], ["/a"], ["/a", {}], [undefined, { auth: "/a" }], [null, { auth: "/a" }]]) {
    const auth = endpoint('{"auth":"t"}');
    const sockets = [];
    const rest = { ...auth, transports: ["websocket"], WebSocket: class { constructor() { sockets.push(this); } send() {} close() {} } };
    const pushy = typeof args[0] === "object" && args[0] ? new Pushy("http://h", { ...args[0], ...rest }) : new Pushy("http://h", args[0], { ...args[1], ...rest });
    pushy.channel("private-room").subscribe();
    await flush();
    sockets[0].onmessage({ data: '{"event":"pushy:connect","data":{"socketId":"s","protocol":"rawwebsocket"}}' });
    await flush();
    assert.equal(auth.asked[0].url, "/a", JSON.stringify(args));
    pushy.disconnect();
  }
});

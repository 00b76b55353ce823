// Channels: subscribing, members, events.
import assert from "node:assert/strict";
import { test } from "node:test";
import { client, clock, connected, flush, record, told } from "./fakes.js";

test("a name in any case is one channel", async () => {
  const { pushy, socket } = await connected();
  const lobby = pushy.channel("Lobby"), heard = [];
  assert.equal(pushy.channel("LOBBY"), lobby);
  assert.equal(lobby.name, "Lobby");
  assert.equal(lobby.subscribe(), lobby);
  assert.deepEqual(socket().asked(), { channel: "Lobby" });
  socket().welcome("lobby");
  lobby.bind("news", (data) => heard.push(data));
  socket().receive("news", { n: 1 }, "lobby");
  socket().receive("news", null, "lobby");
  socket().receive("pushy:resync", undefined, "lobby");
  assert.deepEqual(heard, [{ n: 1 }, null]);
  lobby.on("pushy:dropped", ({ count }) => heard.push(count));
  socket().receive("pushy:dropped", { count: 17 }, "lobby");
  assert.equal(heard[2], 17);
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
  const [ann, bob, eve] = [["a", "Ann"], ["b", "Bob"], ["__proto__", "Eve"]].map(([memberId, name]) => ({ memberId, name, subscribed: 1 }));
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
  assert.deepEqual(got, ["subscribe", 1, 2, "unsubscribe", "subscribe", "pushy:gap", "pushy:resync", "pushy:gap", 3]);
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
  await assert.rejects(slow.next(), /10000 events of a are queued/);
  assert.equal(a._readers.size, 0);
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

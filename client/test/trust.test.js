// Tokens for many channels in one request, tokens that end, and events from clients.
import assert from "node:assert/strict";
import { test } from "node:test";
import { client, clock, connected, flush, told, warnings } from "./fakes.js";

const hour = 3600;
const encode = (claims) => `v2.80756b1b.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.${"0".repeat(64)}`;
/** A token that is issued now; ahead is by how many seconds the server's clock is. */
const sign = (channel, { life = hour, ahead = 0, user, conn = user ? undefined : "first" } = {}) => {
  const iat = Math.floor(Date.now() / 1000) + ahead;
  return { auth: encode({ sub: [channel], user, conn, iat, exp: iat + life }), expires: (iat + life) * 1000 };
};
const rooms = (count) => Array.from({ length: count }, (_, n) => `private-${n}`);

/**
 * An auth endpoint. decide returns the answer for a channel: a token, or an error with a status;
 * batch is what the endpoint says, 0 for one in another language, which sees the last channel.
 */
function endpoint({ batch = 100, decide = (channel) => sign(channel), refuses = () => ({}), whole = () => undefined } = {}) {
  const asked = [];
  return {
    asked,
    fetch: async (url, { body }) => {
      const channels = body.getAll("channel"), form = { channels, id: body.get("connection_id"), v: body.get("v") };
      asked.push(form);
      const status = await whole(form);
      if (status) return new Response("no", { status });
      const answers = channels.map((channel) => [channel, decide(channel)]);
      if (batch && channels.length > 1) return Response.json({ channels: Object.fromEntries(answers) });
      const answer = answers.at(-1)[1];
      if (answer.error) return Response.json({ error: { code: answer.code, message: answer.error }, ...refuses() }, { status: answer.status });
      return Response.json({ ...answer, ...(batch && { batch }) });
    },
  };
}

const denied = { error: "not authorized", code: "403", status: 403 };
const subscribes = (socket) => socket.sent.filter(({ command }) => command === "subscribe");
/** Answers the subscribe commands that were not answered yet. */
const welcome = (socket, { ahead = 0 } = {}) => {
  for (const { id, data } of subscribes(socket)) {
    if (socket.answered?.has(id)) continue;
    (socket.answered ??= new Set()).add(id);
    const { exp } = data.auth?.startsWith("v2.") ? JSON.parse(Buffer.from(data.auth.split(".")[2], "base64url")) : {};
    socket.receive("pushy:subscription-success", { channel: data.channel, memberId: "me", expires: exp && exp * 1000, id });
  }
};

test("40 private channels: at most two requests; after that one", async (t) => {
  const turn = clock(t), auth = endpoint();
  const { pushy, socket } = await connected({ ...auth, authHandler: "/auth" });
  const names = rooms(40);
  for (const name of names) pushy.channel(name).subscribe();
  assert.equal(auth.asked.length, 1);
  await turn(100);
  assert.deepEqual(auth.asked, [{ channels: names.slice(0, 1), id: "first", v: null }, { channels: names.slice(1), id: "first", v: "2" }]);
  assert.deepEqual(subscribes(socket()).map(({ data }) => data.channel), names);
  welcome(socket());
  socket().lose();
  await turn(1000);
  socket().connect("second");
  await turn(100);
  assert.deepEqual(auth.asked.slice(2), [{ channels: names, id: "second", v: "2" }]);
  pushy.disconnect();
});

test("more channels than an endpoint allows in a request", async (t) => {
  const turn = clock(t), auth = endpoint();
  const { pushy, socket } = await connected({ ...auth, authHandler: "/auth" });
  for (const name of rooms(200)) pushy.channel(name).subscribe();
  await turn(100);
  assert.deepEqual(auth.asked.map(({ channels }) => channels.length), [1, 100, 99]);
  assert.equal(subscribes(socket()).length, 200);
  pushy.disconnect();
});

test("an endpoint that does not batch sees one request for each channel, the others at once after the first", async (t) => {
  const turn = clock(t), auth = endpoint({ batch: 0, decide: () => ({ auth: "0".repeat(64) }) });
  const { pushy, socket } = await connected({ ...auth, authHandler: "/auth" });
  const names = rooms(40);
  for (const name of names) pushy.channel(name).subscribe();
  assert.equal(auth.asked.length, 1);
  await flush();
  assert.deepEqual(auth.asked.map(({ channels }) => channels), names.map((name) => [name]));
  assert.ok(auth.asked.every(({ v }) => v === null));
  assert.equal(subscribes(socket()).length, 40);
  pushy.channel("private-more").subscribe(); // which is not held
  pushy.channel("private-most").subscribe();
  assert.equal(auth.asked.length, 42);
  await turn(100);
  pushy.disconnect();
});

test("one of 40 is refused: 39 are subscribed, in at most two requests, whichever it is", async (t) => {
  const turn = clock(t);
  for (const [refused, most, refuses] of [["private-0", 2, () => ({ batch: 100 })], ["private-0", 3], ["private-17", 2], ["private-39", 2]]) {
    const auth = endpoint({ refuses, decide: (channel) => (channel === refused ? denied : sign(channel)) });
    const { pushy, socket } = await connected({ ...auth, authHandler: "/auth" });
    const all = told(pushy.channel(refused)), details = [];
    pushy.on("auth-error", (detail) => details.push(detail));
    for (const name of rooms(40)) pushy.channel(name).subscribe();
    await turn(100);
    assert.ok(auth.asked.length <= most, `${auth.asked.length} requests`);
    assert.deepEqual(subscribes(socket()).map(({ data }) => data.channel).sort(), rooms(40).filter((name) => name !== refused).sort());
    assert.deepEqual(all, ["auth-error", "subscribe-error Authorization failed (403)"]);
    const [{ body, status, retryAt }] = details;
    assert.deepEqual([JSON.parse(body).error, status, retryAt], [{ code: "403", message: "not authorized" }, 403, undefined]);
    pushy.disconnect();
  }
});

test("channels that were refused together are tried again together; ten failures end it with a warning each", async (t) => {
  const turn = clock(t), warned = warnings(t);
  for (const how of [{ whole: ({ channels }) => (channels.length > 1 ? 503 : 0) }, { decide: (channel) => (channel === "private-0" ? sign(channel) : { error: "Internal error", code: "500", status: 500 }) }]) {
    const auth = endpoint(how);
    const { pushy, socket } = await connected({ ...auth, authHandler: "/auth" });
    for (const name of rooms(5)) pushy.channel(name).subscribe();
    for (let seconds = 0; seconds < 300; seconds += 30) {
      await turn(30_000);
      socket().receive("news", {}, "elsewhere"); // the server is there
    }
    assert.deepEqual(auth.asked.map(({ channels }) => channels.length), [1, ...Array(10).fill(4)]);
    assert.deepEqual(warned.splice(0).length, 4);
    pushy.disconnect();
  }
});

test("a first request that fails does not hold the others for long, and one of an old connection not at all", async (t) => {
  const turn = clock(t);
  let hang = false;
  const auth = endpoint({ batch: 0, whole: () => (hang ? new Promise(() => {}) : 500) });
  const { pushy, socket } = await connected({ ...auth, authHandler: "/auth" });
  for (const name of rooms(5)) pushy.channel(name).subscribe();
  await flush();
  assert.equal(auth.asked.length, 5);
  hang = true;
  await turn(2000);
  const before = auth.asked.length;
  socket().lose();
  await turn(1000);
  socket().connect("second");
  await flush();
  assert.equal(auth.asked[before]?.id, "second");
  pushy.disconnect();
});

test("another program answers at the same address: each channel has a request of its own again", async (t) => {
  const turn = clock(t), now = endpoint(), then = endpoint({ batch: 0, decide: () => ({ auth: "0".repeat(64) }) });
  let used = now;
  const { pushy, socket } = await connected({ fetch: (...args) => used.fetch(...args), authHandler: "/auth" });
  for (const name of rooms(3)) pushy.channel(name).subscribe();
  await turn(100);
  welcome(socket());
  used = then;
  socket().lose();
  await turn(1000);
  socket().connect("second");
  await turn(100);
  assert.deepEqual(then.asked.map(({ channels }) => channels.length), [3, 1, 1, 1]);
  assert.deepEqual(subscribes(socket()).map(({ data }) => data.auth), Array(3).fill("0".repeat(64)));
  pushy.disconnect();
});

test("a channel that was left meanwhile is not asked for", async (t) => {
  const turn = clock(t), auth = endpoint();
  const { pushy } = await connected({ ...auth, authHandler: "/auth" });
  for (const name of rooms(4)) pushy.channel(name).subscribe();
  pushy.channel("private-2").unsubscribe();
  await turn(100);
  assert.deepEqual(auth.asked.map(({ channels }) => channels), [["private-0"], ["private-1", "private-3"]]);
  pushy.disconnect();
});

/** A client whose channels are subscribed with tokens that end. */
async function subscribed(how, names = rooms(3)) {
  const auth = endpoint(how), all = await connected({ ...auth, authHandler: "/auth" });
  for (const name of names) all.pushy.channel(name).subscribe();
  await flush();
  return { ...all, auth, names };
}

/** Lets time pass in which the server answers. */
const pass = async (turn, socket, seconds) => {
  for (; seconds > 0; seconds -= 20) {
    await turn(Math.min(seconds, 20) * 1000);
    socket().receive("news", {}, "elsewhere");
  }
};
const refreshes = (socket) => socket.sent.filter(({ command }) => command === "pushy:refresh");

for (const ahead of [0, -7200, 7200]) {
  test(`tokens are renewed at 75 to 90 % of their life, together; the server's clock is ${ahead} s ahead`, async (t) => {
    const turn = clock(t);
    const { pushy, socket, auth, names } = await subscribed({ decide: (channel) => sign(channel, { ahead }) });
    await turn(100);
    welcome(socket());
    const gone = names.map((name) => told(pushy.channel(name)));
    await pass(turn, socket, 0.75 * hour - 20);
    assert.equal(auth.asked.length, 2);
    await pass(turn, socket, 0.15 * hour + 20);
    assert.deepEqual(auth.asked.slice(2), [{ channels: names, id: "first", v: "2" }]);
    assert.deepEqual(refreshes(socket()).map(({ data }) => data.channel), names);
    assert.ok(refreshes(socket()).every(({ data, id }) => data.auth.startsWith("v2.") && id));
    for (const { id, data } of refreshes(socket())) {
      const { exp } = JSON.parse(Buffer.from(data.auth.split(".")[2], "base64url"));
      socket().receive("pushy:reply", { id, data: { expires: exp * 1000 } });
    }
    await pass(turn, socket, 0.7 * hour);
    assert.equal(auth.asked.length, 3);
    await pass(turn, socket, 0.2 * hour);
    assert.equal(auth.asked.length, 4);
    assert.deepEqual([subscribes(socket()).length, gone.flat()], [3, []], "no gap, no second subscription");
    pushy.disconnect();
  });
}

test("a client that slept past the end asks once, and never sends the old token", async (t) => {
  const turn = clock(t);
  const { pushy, socket, auth, sockets, names } = await subscribed({});
  await turn(100);
  welcome(socket());
  const old = subscribes(socket()).map(({ data }) => data.auth);
  turn.sleep(2 * hour * 1000);
  await turn(12_000); // the check of the connection fails
  assert.equal(sockets.length, 2);
  socket().connect("second");
  await turn(100);
  assert.deepEqual(auth.asked.slice(2), [{ channels: names, id: "second", v: "2" }]);
  assert.equal(subscribes(socket()).length, 3);
  for (const each of sockets) assert.equal(refreshes(each).length, 0);
  assert.ok(subscribes(socket()).every(({ data }) => !old.includes(data.auth)));
  pushy.disconnect();
});

test("the server ends a subscription whose token expired: the client subscribes anew, with a new token", async (t) => {
  const turn = clock(t);
  const { pushy, socket, auth, names } = await subscribed({});
  await turn(100);
  welcome(socket());
  for (const channel of names) socket().receive("pushy:subscription-end", { channel, reason: "Expired", again: true });
  await turn(100);
  assert.deepEqual(auth.asked.slice(2).map(({ channels }) => channels), [names]);
  assert.equal(subscribes(socket()).length, 6);
  pushy.disconnect();
});

test("a renewal that is refused is final when the server ends the subscription; subscribe() tries again", async (t) => {
  const turn = clock(t);
  let allowed = true;
  const { pushy, socket, auth } = await subscribed({ decide: (channel) => (allowed ? sign(channel) : denied) }, ["private-0"]);
  await turn(100);
  welcome(socket());
  const room = pushy.channel("private-0"), all = told(room);
  allowed = false;
  await pass(turn, socket, hour);
  assert.equal(auth.asked.length, 2);
  assert.deepEqual([all, room.subscribed], [["auth-error", "subscribe-error Authorization failed (403)"], true]);
  allowed = true;
  room.subscribe(); // logged in again
  await turn(100);
  assert.equal(refreshes(socket()).length, 1);
  socket().receive("pushy:error", { id: refreshes(socket())[0].id, code: "403", message: "Invalid credentials" });
  assert.deepEqual(all.slice(2), ["subscribe-error Invalid credentials"]);
  socket().receive("pushy:subscription-end", { channel: "private-0", reason: "Expired", again: true });
  await turn(5000);
  assert.deepEqual([all.slice(3), subscribes(socket()).length], [["unsubscribe Expired"], 1]);
  pushy.disconnect();
});

test("a renewal that fails is tried again in the rest of the token's life, ten times, with one warning", async (t) => {
  const turn = clock(t), warned = warnings(t);
  let status = 0;
  const { pushy, socket, auth } = await subscribed({ whole: () => status }, ["private-0"]);
  await turn(100);
  welcome(socket());
  status = 503;
  const room = pushy.channel("private-0"), details = [];
  room.on("auth-error", ({ retryAt }) => details.push(!!retryAt));
  await pass(turn, socket, 0.9 * hour);
  assert.ok(auth.asked.length > 2 && auth.asked.length < 10, `${auth.asked.length} requests`);
  await pass(turn, socket, hour);
  assert.deepEqual(details, [...Array(9).fill(true), false]);
  assert.deepEqual([auth.asked.length, room.subscribed], [11, true]);
  assert.deepEqual(warned, ["pushy: private-0 is given up: Authorization failed (503)"]);
  pushy.disconnect();
});

test("a renewal that the server cannot decide now is tried again", async (t) => {
  const turn = clock(t);
  const { pushy, socket } = await subscribed({}, ["private-0"]);
  await turn(100);
  welcome(socket());
  const all = told(pushy.channel("private-0"));
  await pass(turn, socket, 0.9 * hour);
  assert.equal(refreshes(socket()).length, 1);
  socket().receive("pushy:error", { id: refreshes(socket())[0].id, code: "503", message: "Temporarily unavailable" });
  await pass(turn, socket, 120);
  assert.deepEqual([refreshes(socket()).length, all], [2, []]);
  pushy.disconnect();
});

test("a user's token in the page works on each connection without the endpoint, until it expires", async (t) => {
  const turn = clock(t), auth = endpoint();
  const { pushy, socket } = client({ ...auth, authHandler: "/auth" });
  const given = { ...sign("private-0", { user: "42" }), data: { name: "Ann" } };
  pushy.channel("private-0").subscribe(given);
  await flush();
  for (const id of ["first", "second", "third"]) {
    socket().connect(id);
    await turn(100);
    assert.deepEqual(socket().asked(), { channel: "private-0", auth: given.auth, data: { name: "Ann" } });
    welcome(socket());
    socket().lose();
    await turn(1000);
  }
  assert.equal(auth.asked.length, 0);
  turn.sleep(hour * 1000);
  socket().connect("fourth");
  await turn(100);
  assert.equal(auth.asked.length, 1);
  assert.notEqual(socket().asked().auth, given.auth);
  pushy.disconnect();
});

test("a user's token that is old, or that the server refuses, is replaced by one of the endpoint", async (t) => {
  const turn = clock(t), auth = endpoint();
  const old = sign("private-0", { user: "42" });
  turn.sleep(hour * 1000 + 1000);
  const { pushy, socket } = await connected({ ...auth, authHandler: "/auth" });
  pushy.channel("private-0").subscribe(old);
  await turn(100);
  assert.equal(auth.asked.length, 1);
  assert.notEqual(socket().asked().auth, old.auth);
  const given = sign("private-1", { user: "42" });
  const room = pushy.channel("private-1").subscribe(given), all = told(room);
  assert.equal(socket().asked().auth, given.auth);
  for (const event of ["failed", "needauth"]) {
    socket().receive(`pushy:subscription-${event}`, { channel: "private-1", reason: event === "failed" ? "Invalid credentials" : "Expired", id: socket().last("subscribe").id });
    await turn(100);
    assert.notEqual(socket().asked().auth, given.auth);
  }
  assert.deepEqual([auth.asked.length, all], [2, ["subscribe-error Expired"]]);
  pushy.disconnect();
});

test("a function that returns tokens is called for each channel, and for each renewal", async (t) => {
  const turn = clock(t), calls = [];
  const { pushy, socket } = await connected({ authHandler: async (channel, id) => (calls.push([channel, id]), sign(channel)) });
  for (const name of rooms(3)) pushy.channel(name).subscribe();
  await turn(100);
  assert.equal(calls.length, 3);
  welcome(socket());
  await pass(turn, socket, 0.9 * hour);
  assert.equal(calls.length, 6);
  assert.equal(refreshes(socket()).length, 3);
  // A page can also renew with a token of its own.
  const own = sign("private-0");
  pushy.channel("private-0").subscribe(own);
  assert.equal(refreshes(socket()).at(-1).data.auth, own.auth);
  pushy.disconnect();
});

test("a token that only the host can read: the client goes by its own clock, and not too often", async (t) => {
  const turn = clock(t), calls = [];
  const { pushy, socket } = await connected({ authHandler: async (channel) => (calls.push(channel), { auth: "opaque" }) });
  pushy.channel("private-0").subscribe();
  await turn(100);
  socket().receive("pushy:subscription-success", { channel: "private-0", memberId: "me", expires: Date.now() - 1000, id: socket().last("subscribe").id });
  await pass(turn, socket, 40);
  assert.equal(calls.length, 1);
  await pass(turn, socket, 20);
  assert.equal(calls.length, 2);
  pushy.disconnect();
});

test("client events: sent while subscribed; others receive them with the sender's id outside the data", async () => {
  const { pushy, socket } = await connected();
  const room = pushy.channel("private-room"), typed = [];
  assert.equal(room.send("client-typing", { on: true }), false);
  room.subscribe();
  socket().welcome("private-room", []);
  room.on("client-typing", (data, { from }) => typed.push([data, from]));
  assert.equal(room.send("client-typing", { on: true }), true);
  assert.equal(room.send("client-seen"), true);
  assert.deepEqual(socket().sent.slice(-2), [{ event: "client-typing", channel: "private-room", data: { on: true } }, { event: "client-seen", channel: "private-room" }]);
  const events = room[Symbol.asyncIterator](), next = events.next();
  socket().onmessage({ data: JSON.stringify({ event: "client-typing", channel: "private-room", from: "ann", data: { on: true, from: "eve" } }) });
  assert.deepEqual(typed, [[{ on: true, from: "eve" }, "ann"]]);
  assert.deepEqual((await next).value, { event: "client-typing", data: { on: true, from: "eve" }, published: true, offset: undefined, from: "ann" });
  socket().lose();
  assert.equal(room.send("client-typing"), false);
  pushy.disconnect();
});

test("a kick is final, and the page and the console have its reason", async (t) => {
  const turn = clock(t), warned = warnings(t);
  const { pushy, socket, sockets } = await connected();
  pushy.unbind("disconnect"); // with a listener the page has the reason
  socket().lose(3500, "Banned");
  await turn(60_000);
  assert.deepEqual([pushy.state, sockets.length, warned], ["closed", 1, ["pushy: closed 3500 Banned"]]);
  const states = [];
  pushy.on("state", ({ state, code, reason }) => states.push([state, code, reason]));
  pushy.connect();
  await flush();
  socket().connect("second");
  socket().lose(3500, "Banned until tomorrow");
  assert.deepEqual(states.at(-1), ["closed", 3500, "Banned until tomorrow"]);
});

// What a client gets back after its connection was lost: missed events, its membership, the
// changes of the members.
import assert from "node:assert/strict";
import { test } from "node:test";
import { clock, client, connected, flush, record } from "./fakes.js";

const place = (epoch, offset, more) => ({ epoch, offset, ...more });

/** A subscribed client, and what its channel has told. */
async function subscribed(t, answer, options) {
  const turn = clock(t);
  const all = await connected();
  const news = all.pushy.channel("news", options), got = [];
  news.on("said", ({ n }, { offset }) => got.push([n, offset]));
  news.on("pushy:gap", (gap) => got.push(["gap", gap.reason]));
  news.on("subscribe", (members, { recovered, replay }) => got.push(["subscribe", recovered, replay]));
  news.subscribe();
  all.socket().welcome("news", undefined, answer);
  const said = (n, offset) => all.socket().receive("said", { n }, "news", offset);
  let ids = 0;
  const blink = async () => {
    all.socket().lose();
    all.pushy.connect();
    await flush();
    all.socket().connect(`again-${++ids}`);
    await flush();
  };
  return { ...all, turn, news, got, said, blink, clear: () => got.splice(0) };
}

test("a client names its version, its position and its earlier connections", async (t) => {
  const { socket, said, blink, pushy } = await subscribed(t, place("e", 7));
  assert.match(socket().url, /\?v=2$/);
  assert.deepEqual(socket().asked(), { channel: "news" });
  await blink();
  assert.deepEqual(socket().asked(), { channel: "news", since: place("e", 7), was: ["first", "again-1"] });
  socket().welcome("news", undefined, place("e", 7, { recovered: true, replay: 0 }));
  said("a", 8);
  said("b", 10);
  for (let n = 0; n < 9; n++) {
    await blink();
    socket().welcome("news", undefined, place("e", 10, { recovered: true, replay: 0 }));
  }
  assert.deepEqual(socket().asked().since, place("e", 10));
  assert.equal(socket().asked().was.length, 8);
  pushy.disconnect();
});

test("a replay is delivered like live events, whatever their offsets; after that nothing is delivered twice", async (t) => {
  const { socket, said, blink, got, clear, pushy } = await subscribed(t, place("e", 2));
  said(3, 3);
  said(3, 3);
  said(2, 2);
  assert.deepEqual(clear(), [["subscribe", undefined, undefined], [3, 3]]);
  await blink();
  socket().welcome("news", undefined, place("e", 6, { recovered: true, replay: 2 }));
  said(4, 4);
  said(6, 6);
  said(6, 6);
  said(7, 7);
  said("not kept");
  assert.deepEqual(got, [["subscribe", true, 2], [4, 4], [6, 6], [7, 7], ["not kept", undefined]]);
  pushy.disconnect();
});

test("a connection that is lost during a replay: the position is that of the last event", async (t) => {
  for (let cut = 0; cut <= 3; cut++) {
    const { socket, said, blink, pushy } = await subscribed(t, place("e", 0));
    await blink();
    socket().welcome("news", undefined, place("e", 9, { recovered: true, replay: 3 }));
    for (let n = 1; n <= cut; n++) said(n, n * 2);
    await blink();
    assert.deepEqual(socket().asked().since, place("e", cut === 3 ? 9 : cut * 2), `after ${cut}`);
    pushy.disconnect();
    t.mock.restoreAll();
    t.mock.timers.reset();
  }
});

test("a rewind or a partial replay that is interrupted keeps the old position, or none", async (t) => {
  const { socket, said, blink, clear, pushy } = await subscribed(t, place("e", 9, { replay: 2 }), { rewind: 2, partial: true });
  assert.deepEqual(socket().asked(), { channel: "news", rewind: 2, partial: true });
  said(8, 8);
  await blink();
  assert.deepEqual(socket().asked(), { channel: "news", rewind: 2, partial: true }, "no position");
  socket().welcome("news", undefined, place("e", 9, { replay: 2 }));
  said(8, 8);
  said(9, 9);
  await blink();
  clear();
  socket().welcome("news", undefined, place("e", 500, { recovered: false, reason: "trimmed", replay: 2, first: 480 }));
  said(499, 499);
  assert.deepEqual(clear(), [["subscribe", false, 2], ["gap", "trimmed"], [499, 499]]);
  await blink();
  assert.deepEqual(socket().asked().since, place("e", 9), "the old position");
  socket().welcome("news", undefined, place("f", 3, { recovered: false, reason: "ahead", replay: 1 }));
  said(3, 3);
  said(3, 3);
  await blink();
  assert.deepEqual(socket().asked().since, place("f", 3));
  pushy.disconnect();
});

test("a gap has its reason; those that all clients have at once are spread over 5 s", async (t) => {
  const { socket, blink, clear, turn, pushy, news } = await subscribed(t, place("e", 1));
  clear();
  for (const reason of ["trimmed", "expired", "ahead", "large", "off", "denied", "unavailable"]) {
    await blink();
    socket().welcome("news", undefined, place("e", 2, { recovered: false, reason, replay: 0 }));
    assert.deepEqual(clear(), [["subscribe", false, 0], ["gap", reason]]);
  }
  for (const reason of ["epoch", "restarted"]) {
    await blink();
    socket().welcome("news", undefined, place("g", 2, { recovered: false, reason, replay: 0 }));
    assert.deepEqual(clear(), [["subscribe", false, 0]]);
    await turn(2000);
    assert.deepEqual(clear(), []);
    await turn(1000);
    assert.deepEqual(clear(), [["gap", reason]]);
  }
  const heard = record(news, "pushy:resync");
  socket().receive("pushy:resync", { reason: "restarted", ...place("h", 40) }, "news");
  socket().receive("said", { n: 41 }, "news", 41);
  assert.deepEqual(clear(), [[41, 41]]);
  await turn(3000);
  assert.deepEqual([clear(), heard], [[["gap", "restarted"]], ["pushy:resync"]]);
  await blink();
  assert.deepEqual(socket().asked().since, place("h", 41));
  pushy.disconnect();
});

test("an older server, or a channel that keeps nothing: every reconnect is a gap, and so is resync", async (t) => {
  const { socket, blink, clear, pushy, news } = await subscribed(t, {});
  assert.deepEqual(clear(), [["subscribe", undefined, undefined]]);
  socket().receive("pushy:resync", {}, "news");
  assert.deepEqual(clear(), [["gap", undefined]]);
  await blink();
  assert.deepEqual(socket().asked(), { channel: "news" });
  socket().welcome("news");
  assert.deepEqual(clear(), [["subscribe", undefined, undefined], ["gap", undefined]]);
  news.unsubscribe();
  socket().receive("pushy:subscription-end", { channel: "news", id: socket().last("unsubscribe").id });
  news.subscribe();
  socket().welcome("news");
  assert.deepEqual(clear(), [["subscribe", undefined, undefined]], "the page has begun anew");
  pushy.disconnect();
});

test("a position from the page; unsubscribe forgets it", async (t) => {
  const { socket, clear, pushy, news } = await subscribed(t, place("k3Xa9Q", 1044, { recovered: true, replay: 0 }), { since: "k3Xa9Q.1042", rewind: 5 });
  assert.deepEqual(socket().asked(), { channel: "news", rewind: 5, since: place("k3Xa9Q", 1042), was: ["first"] });
  pushy.channel("news", { since: "k3Xa9Q.7", rewind: 6 });
  socket().receive("said", { n: 9 }, "news", 9);
  assert.deepEqual(clear(), [["subscribe", true, 0]], "the newer position stands");
  news.unsubscribe();
  socket().receive("pushy:subscription-end", { channel: "news", id: socket().last("unsubscribe").id });
  news.subscribe();
  assert.deepEqual(socket().asked(), { channel: "news", rewind: 6 });
  pushy.disconnect();
});

test("for await has the offsets, and the gap", async (t) => {
  const { socket, said, news, pushy, blink } = await subscribed(t, place("e", 1));
  const reader = news[Symbol.asyncIterator](), next = async () => (await reader.next()).value;
  const first = next();
  said(2, 2);
  assert.deepEqual(await first, { event: "said", data: { n: 2 }, published: true, offset: 2 });
  await blink();
  socket().welcome("news", undefined, place("e", 9, { recovered: false, reason: "large", replay: 0 }));
  assert.deepEqual([(await next()).event, (await next()).event, (await next()).data.reason], ["unsubscribe", "subscribe", "large"]);
  pushy.disconnect();
});

test("a membership is held, taken over with its key, and given up by unsubscribe", async (t) => {
  const { socket, blink, pushy, news } = await subscribed(t, { key: "k1" });
  assert.equal(socket().last("subscribe").data.hold, true);
  await blink();
  assert.deepEqual(socket().asked().member, { id: "me", key: "k1" });
  socket().welcome("news", undefined, { memberId: "other", key: "k2", resumed: false });
  assert.equal(news.memberId, "other");
  await blink();
  assert.deepEqual(socket().asked().member, { id: "other", key: "k2" });
  socket().welcome("news", undefined, {});
  await blink();
  assert.equal(socket().asked().member, undefined, "the server has given no key");
  socket().welcome("news", undefined, { key: "k3" });
  news.unsubscribe();
  socket().receive("pushy:subscription-end", { channel: "news", id: socket().last("unsubscribe").id });
  news.subscribe();
  assert.equal(socket().asked().member, undefined);
  pushy.channel("news", { hold: false });
  news.unsubscribe();
  socket().receive("pushy:subscription-end", { channel: "news", id: socket().last("unsubscribe").id });
  news.subscribe();
  assert.equal(socket().last("subscribe").data.hold, false);
  pushy.disconnect();
});

test("an end with again is no removal: the client returns as a new member, where it was in the events", async (t) => {
  const { socket, got, pushy, news, said, clear } = await subscribed(t, place("e", 1, { key: "k1" }));
  said(2, 2);
  clear();
  socket().sent.length = 0;
  socket().receive("pushy:subscription-end", { channel: "news", reason: "Resumed elsewhere", again: true });
  await flush();
  assert.deepEqual(socket().asked(), { channel: "news", since: place("e", 2), was: ["first"] });
  socket().welcome("news", undefined, place("e", 2, { memberId: "new", key: "k2", recovered: true, replay: 0 }));
  assert.deepEqual([news.memberId, got], ["new", [["subscribe", true, 0]]]);
  socket().sent.length = 0;
  socket().receive("pushy:subscription-end", { channel: "news", reason: "Removed" });
  await flush();
  assert.deepEqual([socket().sent, news.subscribed], [[], false], "without it the end is final");
  pushy.disconnect();
});

test("the page has left the channel: an end with again does not bring it back", async (t) => {
  const { socket, pushy, news } = await subscribed(t, place("e", 1, { key: "k1" }));
  news.unsubscribe();
  const { id } = socket().last("unsubscribe");
  socket().sent.length = 0;
  socket().receive("pushy:subscription-end", { channel: "news", reason: "Resumed elsewhere", again: true });
  socket().receive("pushy:error", { code: "404", message: "Channel not found", id });
  await flush();
  assert.deepEqual([socket().sent, news.subscribed], [[], false]);
  pushy.disconnect();
});

test("subscribe, unsubscribe, subscribe at once: the page begins with the second subscription", async (t) => {
  const { socket, pushy, news, got, clear, said, blink } = await subscribed(t, place("e", 3), { rewind: 2 });
  news.unsubscribe().subscribe();
  said(4, 4);
  assert.deepEqual(clear(), [["subscribe", undefined, undefined]], "what is under way is not for the page any more");
  socket().receive("pushy:subscription-end", { channel: "news", id: socket().last("unsubscribe").id });
  await flush();
  assert.deepEqual(socket().asked(), { channel: "news", rewind: 2 }, "no position");
  news.unsubscribe().subscribe();
  socket().welcome("news", undefined, place("e", 4, { replay: 2 }));
  for (const n of [3, 4]) said(n, n);
  socket().receive("pushy:subscription-end", { channel: "news", id: socket().last("unsubscribe").id });
  await flush();
  assert.deepEqual([socket().asked(), got.filter(([what]) => what !== "unsubscribe")], [{ channel: "news", rewind: 2 }, []]);
  socket().welcome("news", undefined, place("e", 4, { replay: 2 }));
  for (const n of [3, 4]) said(n, n);
  assert.deepEqual(got, [["subscribe", undefined, 2], [3, 3], [4, 4]], "no gap");
  news.unsubscribe().subscribe();
  socket().receive("pushy:subscription-end", { channel: "news", id: socket().last("unsubscribe").id });
  news.unsubscribe().subscribe();
  socket().welcome("news", undefined, place("e", 4, { replay: 0, key: "k1" }));
  await blink();
  assert.deepEqual(socket().asked(), { channel: "news", rewind: 2 }, "lost while it was leaving");
  pushy.disconnect();
});

test("the first attempt after a connection follows what the server has said; the next ones are as always", async (t) => {
  const turn = clock(t);
  const { pushy, sockets, socket } = await connected({ minDelay: 500 });
  const wait = () => pushy.retryAt - Date.now();
  const cases = [
    [10_000, 1012, 5000], [10_000, 1006, 2500], [3000, 1006, 1500], [1e9, 1012, 30_000], [1e9, 1006, 2500], [-1, 1012, 500], [0, 3001, 500],
    ["x", 1012, 750], ["9000", 1012, 750], [null, 1012, 750], [undefined, 1012, 750], [{}, 1012, 750], [[9000], 1012, 750], [true, 1012, 750],
  ];
  for (const [returnWithin, code, wanted] of cases) {
    pushy.disconnect().connect();
    await flush();
    socket().receive("pushy:connect", { socketId: "me", protocol: "rawwebsocket", returnWithin });
    socket().lose(code);
    assert.equal(wait(), wanted, `${JSON.stringify(returnWithin)} after ${code}`);
  }
  pushy.disconnect().connect();
  await flush();
  socket().receive("pushy:connect", { socketId: "me", protocol: "rawwebsocket", returnWithin: 60_000 });
  await turn(6000);
  socket().lose(1012);
  assert.equal(wait(), 30_000);
  const before = sockets.length;
  await turn(29_500);
  assert.equal(sockets.length, before);
  await turn(1000);
  assert.equal(sockets.length, before + 1);
  for (const wanted of [1250, 2250]) {
    socket().lose();
    assert.equal(wait(), wanted, "the attempt has failed");
    await turn(wanted);
  }
  pushy.connect();
  await flush();
  assert.equal(pushy.state, "connecting", "at once if the page asks");
  pushy.disconnect();
});

test("over all of the time, and not before or after it", async (t) => {
  const { pushy, socket } = await connected();
  const waits = [];
  for (let n = 0; n < 2000; n++) {
    pushy.disconnect().connect();
    await flush();
    socket().receive("pushy:connect", { socketId: "me", protocol: "rawwebsocket", returnWithin: 40_000 });
    const now = Date.now();
    socket().lose(1012);
    waits.push(pushy.retryAt - now);
  }
  pushy.disconnect();
  // Each quarter has 500 of 2,000; 400 is 5.2 standard deviations away.
  for (let n = 0; n < 4; n++) {
    const share = waits.filter((wait) => wait >= n * 10_000 && wait <= (n + 1) * 10_000 + 50).length;
    assert.ok(share > 400 && share < 600, `${share} of 2,000 in quarter ${n}`);
  }
});

/** Storage and the events of a page, as a browser's tab has them. */
function tab(t) {
  const page = new EventTarget(), storage = new Map();
  Object.assign(globalThis, {
    addEventListener: page.addEventListener.bind(page),
    sessionStorage: { getItem: (key) => storage.get(key) ?? null, setItem: (key, text) => storage.set(key, text), removeItem: (key) => storage.delete(key) },
  });
  t.after(() => Object.assign(globalThis, { addEventListener: undefined, sessionStorage: undefined }));
  return { storage, leave: () => page.dispatchEvent(Object.assign(new Event("pagehide"), { persisted: false })) };
}

test("keys are in the tab's storage between two pages, and only then", async (t) => {
  const { storage, leave } = tab(t);
  const { socket, pushy } = await subscribed(t, { key: "k1" });
  assert.equal(storage.size, 0);
  let code;
  socket().close = (c) => (code = c);
  leave();
  assert.equal(code, 4001);
  assert.deepEqual([...storage.keys()], ["pushy:http://127.0.0.1/pushy"]);
  const other = client({ url: "http://127.0.0.1/other" });
  other.pushy.channel("news").subscribe();
  await flush();
  other.socket().connect("other");
  assert.equal(other.socket().asked().member, undefined, "another server does not receive it");
  other.pushy.disconnect();
  const next = client();
  next.pushy.channel("NEWS").subscribe();
  await flush();
  next.socket().connect("next");
  await flush();
  assert.equal(storage.size, 0, "a duplicate of the tab has no keys");
  assert.deepEqual(next.socket().asked(), { channel: "NEWS", member: { id: "me", key: "k1" } });
  pushy.disconnect();
  next.pushy.disconnect();
});

const ann = { memberId: "a", name: "Ann", subscribed: 1, idle: false }, bob = { memberId: "b", name: "Bob", subscribed: 2, idle: false };
const eve = JSON.parse('{"memberId":"__proto__","subscribed":3,"idle":false,"__proto__":{"admin":true}}');

async function room(t, options) {
  const all = await subscribed(t, { members: { mode: "diff", count: 2, revision: "r.5", list: [ann, bob], next: null } }, options);
  const heard = [];
  for (const event of ["member-added", "member-quit", "member-updated"]) {
    all.news.on(`pushy:${event}`, ({ memberId, state }) => heard.push([event, memberId, state, all.news.members.size]));
  }
  all.news.on("pushy:presence-sync", (members) => heard.push(members.map(({ memberId }) => memberId)));
  return { ...all, heard, diff: (data) => all.socket().receive("pushy:presence-diff", data, "news") };
}

test("members from diffs: the same Map and the same events as from a list", async (t) => {
  const { news, heard, diff, pushy, socket, blink } = await room(t);
  assert.deepEqual(socket().last("subscribe").data.presence, { limit: 500, mode: "diff" });
  const before = news.members;
  assert.deepEqual([[...before.keys()], news.count], [["a", "b"], 2]);
  diff({ revision: "r.6", count: 2, add: [eve], quit: ["b", "nobody"], update: [{ memberId: "a", state: { typing: true } }, { memberId: "unknown", idle: true }] });
  assert.deepEqual(heard.splice(0), [
    ["member-added", "__proto__", undefined, 2], ["member-updated", "a", { typing: true }, 2], ["member-quit", "b", undefined, 2],
  ]);
  assert.deepEqual([[...news.members.keys()], [...before.keys()], news.count], [["a", "__proto__"], ["a", "b"], 2]);
  assert.deepEqual(news.members.get("a"), { ...ann, state: { typing: true } });
  assert.equal({}.admin ?? news.members.get("__proto__").admin, undefined);
  socket().receive("pushy:presence-update", { member: { memberId: "a", idle: true } }, "news");
  assert.equal(news.members.get("a").idle, true);
  await blink();
  assert.deepEqual(socket().last("subscribe").data.presence, { limit: 500, since: "r.6", mode: "diff" });
  heard.length = 0;
  socket().welcome("news", undefined, { members: { mode: "diff", count: 2, revision: "r.9", since: "r.6", add: [bob], quit: ["a"] } });
  assert.deepEqual([[...news.members.keys()], heard], [["__proto__", "b"], []]);
  await blink();
  assert.equal(socket().last("subscribe").data.presence.since, "r.9");
  pushy.disconnect();
});

test("a whole member replaces the one that was known, so what it has not any more is removed", async (t) => {
  const { news, diff, pushy, socket } = await room(t);
  for (const again of [
    () => diff({ revision: "r.7", count: 2, add: [ann] }),
    () => diff({ revision: "r.8", count: 2, update: [ann] }),
    () => socket().receive("pushy:presence-add", { member: ann }, "news"),
    () => socket().receive("pushy:presence-update", { member: ann }, "news"),
  ]) {
    diff({ revision: "r.6", count: 2, update: [{ memberId: "a", state: { typing: true } }] });
    assert.deepEqual(news.members.get("a"), { ...ann, state: { typing: true } });
    again();
    assert.deepEqual(news.members.get("a"), ann);
  }
  const cyd = { memberId: "c", subscribed: 0, idle: false };
  diff({ revision: "r.9", count: 3, update: [cyd] });
  assert.deepEqual(news.members.get("c"), cyd, "a whole member of which the client has nothing");
  pushy.disconnect();
});

test("more members than fit come in pages, among changes of the members; until then there is no revision", async (t) => {
  const { news, heard, diff, pushy, socket, blink } = await room(t);
  await blink();
  const member = (memberId) => ({ memberId, subscribed: 1, idle: false });
  socket().welcome("news", undefined, { members: { mode: "diff", count: 5, revision: "s.1", list: [member("a")], next: "s.c1" } });
  const page = (after, list, next) => {
    const { id, data } = socket().last("pushy:members");
    assert.deepEqual(data, { channel: "news", after, limit: 500 });
    socket().receive("pushy:reply", { id, data: { revision: "s.7", count: 4, list: list.map(member), next } });
  };
  page("s.c1", ["b", "c"], "s.c2");
  diff({ revision: "s.8", count: 4, quit: ["b"] });
  assert.deepEqual(heard.splice(0), [["member-quit", "b", undefined, 2]]);
  await blink();
  assert.equal(socket().last("subscribe").data.presence.since, undefined);
  socket().welcome("news", undefined, { members: { mode: "diff", count: 3, revision: "s.9", list: [member("a")], next: "s.c1" } });
  page("s.c1", ["c", "d"], null);
  assert.deepEqual(heard.splice(0), [["a", "c", "d"]]);
  assert.deepEqual([...news.members.keys()], ["a", "c", "d"]);
  await blink();
  assert.equal(socket().last("subscribe").data.presence.since, "s.7", "its members are those of the last page");
  pushy.disconnect();
});

test("modes of presence: a list, a number", async (t) => {
  const { news, socket, pushy, diff } = await room(t, { presence: "count" });
  assert.equal(socket().last("subscribe").data.presence.mode, "count");
  diff({ revision: "r.6", count: 9812 });
  assert.equal(news.count, 9812);
  pushy.disconnect();
});

test("a server that was restarted does not know its members yet: they stay until it has", async (t) => {
  const { news, heard, socket, pushy, blink, turn, diff } = await room(t);
  await blink();
  socket().welcome("news", [eve], { settling: 12_000, resumed: true });
  assert.deepEqual([[...news.members.keys()], news.count], [["a", "b", "__proto__"], 3]);
  await turn(5000);
  diff({ revision: "s.2", count: 2, add: [{ ...ann, subscribed: 9 }] });
  assert.deepEqual(heard.splice(0), [["member-updated", "a", undefined, 3]], "she has not left");
  await turn(6000);
  assert.deepEqual(heard, []);
  await turn(1000);
  assert.deepEqual([heard.splice(0), [...news.members.keys()]], [[["member-quit", "b", undefined, 2]], ["a", "__proto__"]]);

  // It is restarted twice: the second one counts.
  await blink();
  socket().welcome("news", [], { settling: 12_000, resumed: true });
  await turn(10_000);
  await blink();
  socket().welcome("news", [ann], { settling: 12_000, resumed: true });
  await turn(11_000);
  assert.deepEqual([heard, [...news.members.keys()]], [[], ["a", "__proto__"]]);
  await turn(1000);
  assert.deepEqual([...news.members.keys()], ["a"]);

  // It has another secret, so nobody has the memberId of before.
  await blink();
  socket().welcome("news", [bob], { settling: 12_000, resumed: false });
  assert.deepEqual([...news.members.keys()], ["b"]);
  pushy.disconnect();
});

test("per user: memberId is that of the list", async (t) => {
  const { news, socket, pushy, blink } = await subscribed(t, { memberId: "m1", self: "u1", key: "k1" });
  assert.equal(news.memberId, "u1");
  await blink();
  assert.deepEqual(socket().asked().member, { id: "m1", key: "k1" });
  pushy.disconnect();
});

test("idle: after a time without input, at most once in 10 s, again on the next connection", async (t) => {
  const turn = clock(t), page = new EventTarget();
  Object.assign(globalThis, { addEventListener: page.addEventListener.bind(page) });
  t.after(() => Object.assign(globalThis, { addEventListener: undefined }));
  const { pushy, socket } = await connected();
  const said = () => socket().sent.filter(({ command }) => command === "pushy:idle").map(({ data }) => data.idle);
  const end = pushy.idle({ after: 20_000 });
  const input = () => page.dispatchEvent(new Event("pointermove"));
  await turn(19_000);
  assert.deepEqual(said(), []);
  await turn(1000);
  assert.deepEqual(said(), [true]);
  input();
  await turn(9000);
  assert.deepEqual(said(), [true]);
  await turn(1000);
  assert.deepEqual(said(), [true, false]);
  await turn(10_000);
  assert.deepEqual(said(), [true, false, true]);
  socket().lose();
  await turn(1000);
  socket().connect("second");
  assert.deepEqual(said(), [true], "a new connection is not idle until the server is told so");
  await turn(11_000);
  end();
  assert.deepEqual(said(), [true, false]);
  await turn(25_000);
  assert.deepEqual(said(), [true, false]);
  pushy.disconnect();
});

test("history, members by user, and the state are commands", async () => {
  const { pushy, socket, news = pushy.channel("news") } = await connected();
  const page = news.history({ before: 9, limit: 2 });
  assert.deepEqual(socket().last("pushy:history").data, { before: 9, limit: 2, channel: "news" });
  socket().receive("pushy:reply", { id: socket().last("pushy:history").id, data: { epoch: "e", events: [], more: false } });
  assert.deepEqual(await page, { epoch: "e", events: [], more: false });
  const found = news.find(["u1"]);
  assert.deepEqual(socket().last("pushy:members").data, { channel: "news", users: ["u1"] });
  socket().receive("pushy:reply", { id: socket().last("pushy:members").id, data: { revision: "r.1", count: 1, users: { u1: [ann] } } });
  assert.deepEqual(await found, { u1: [ann] });
  news.update({ typing: true });
  assert.deepEqual(socket().last("pushy:update").data, { channel: "news", state: { typing: true } });
  pushy.disconnect();
});

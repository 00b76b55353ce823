// The members of a channel: from lists, diffs, counts and pages.
import assert from "node:assert/strict";
import { test } from "node:test";
import { clock, connected, subscribed } from "./fakes.js";

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
  const counts = [];
  news.on("pushy:count", (count) => counts.push(count));
  for (const count of [9812, 9812, 9811]) diff({ revision: "r.6", count });
  assert.deepEqual([news.count, counts], [9811, [9812, 9811]]);
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
  assert.deepEqual(said(), [true], "a new connection is not idle until the server is notified");
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

// Memberships that outlive a connection: the client returns as the same member, or as a new one.
import assert from "node:assert/strict";
import { test } from "node:test";
import { client, flush, place, subscribed } from "./fakes.js";

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

// What a client gets back after its connection was lost: missed events, or the reason for a gap.
import assert from "node:assert/strict";
import { test } from "node:test";
import { place, record, subscribed } from "./fakes.js";

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

// What a page gets back in Chromium: missed events after a blink, its membership after a reload.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, patience } from "./example.mjs";
import { buildServer, client, startServer } from "./page.mjs";

const limit = { timeout: 2 * patience };
let browser, server;

before(async () => {
  buildServer();
  browser = await launch();
  server = await startServer();
}, limit);
after(async () => {
  await browser?.close();
  await server?.stop();
});

const publish = (from, count) => server.control("publish", { channel: "kept-news", event: "news", from, count });
const numbers = (lines) => lines.filter((line) => /^kept-news \d+$/.test(line)).map((line) => Number(line.split(" ")[1]));
const me = (page, room) => page.evaluate((room) => pushy.channel(room).memberId, room);

test("events that were published while the page was away arrive once, in order", limit, async (t) => {
  const ann = await client(browser, server, { options: { minDelay: 1000, maxDelay: 1000 } });
  t.after(() => ann.context().close());
  await ann.room("kept-news");
  await ann.subscribed("kept-news");
  await ann.evaluate(() => pushy.channel("kept-news").on("pushy:gap", ({ reason }) => told.push(`gap ${reason}`)));
  await publish(0, 3);
  await ann.hears("kept-news 2");
  await server.control("cut");
  await ann.state("waiting");
  await publish(3, 20);
  await ann.hears("kept-news 22");
  await publish(23, 2);
  await ann.hears("kept-news 24");
  const lines = await ann.told();
  assert.deepEqual(numbers(lines), Array.from({ length: 25 }, (_, n) => n));
  assert.deepEqual(lines.filter((line) => line.startsWith("gap")), []);
});

test("a reload: the others notice nothing, and the memberId stays; disconnect is a leave at once", limit, async (t) => {
  const ann = await client(browser, server), bob = await client(browser, server, { name: "Bob" });
  t.after(() => Promise.all([ann, bob].map((page) => page.context().close())));
  for (const page of [ann, bob]) {
    await page.room("private-reload");
    await page.subscribed("private-reload");
  }
  await bob.has("private-reload", "Ann", "Bob");
  await bob.told();
  const id = await me(ann, "private-reload"), { unsubscribed } = await server.control("stats");
  for (let n = 0; n < 2; n++) {
    await ann.reload();
    await ann.setUp();
    await ann.room("private-reload");
    await ann.subscribed("private-reload");
    assert.equal(await me(ann, "private-reload"), id);
    assert.equal(await ann.evaluate(() => sessionStorage.length), 0, "a duplicate of the tab has no key");
  }
  await bob.evaluate(() => pushy.exec("echo")); // answered after what was sent before
  assert.deepEqual((await bob.told()).filter((line) => line.includes("member")), []);
  assert.equal((await server.control("stats")).unsubscribed, unsubscribed, "no Unsubscribe hook");
  await ann.evaluate(() => pushy.disconnect());
  await bob.hears("private-reload pushy:member-quit Ann");
});

test("two tabs with the same key: one keeps the membership, the other becomes a new member", limit, async (t) => {
  const ann = await client(browser, server);
  t.after(() => ann.context().close());
  await ann.room("private-twice");
  await ann.subscribed("private-twice");
  const id = await me(ann, "private-twice");
  // What a browser copies if a tab is duplicated while its key is in the storage.
  const keys = await ann.evaluate(() => {
    dispatchEvent(new Event("pagehide"));
    const kept = sessionStorage.getItem("pushy:keys");
    dispatchEvent(new Event("pageshow"));
    return kept;
  });
  await ann.subscribed("private-twice");
  assert.equal(await me(ann, "private-twice"), id);
  const twin = await client(browser, server, {
    context: ann.context(),
    before: (page) => page.addInitScript((keys) => sessionStorage.setItem("pushy:keys", keys), keys),
  });
  await twin.room("private-twice");
  await twin.subscribed("private-twice");
  assert.equal(await me(twin, "private-twice"), id);
  await ann.waitForFunction((id) => {
    const { subscribed, memberId } = pushy.channel("private-twice");
    return subscribed && memberId !== id;
  }, id);
  for (const page of [ann, twin]) await page.has("private-twice", "Ann", "Ann");
  assert.equal(await me(twin, "private-twice"), id, "it is stable");
});

test("the others see that a user is idle", limit, async (t) => {
  const ann = await client(browser, server), bob = await client(browser, server, { name: "Bob" });
  t.after(() => Promise.all([ann, bob].map((page) => page.context().close())));
  for (const page of [ann, bob]) {
    await page.room("private-idle");
    await page.subscribed("private-idle");
  }
  await ann.addScriptTag({ url: "/pushy/more.js" });
  await ann.evaluate(() => pushy.idle({ after: 1000 }));
  await bob.waitForFunction(() => [...pushy.channel("private-idle").members.values()].some(({ name, idle }) => name === "Ann" && idle));
});

// Tokens in Chromium: one request for many channels, and a page that slept past their end.
import assert from "node:assert/strict";
import { launch, patience } from "./example.mjs";
import { buildServer, client, startServer } from "./page.mjs";
import { after, before, test } from "./suite.mjs";

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

const asked = async () => (await server.control("stats")).asked;

// Issue 14, acceptance test 12.
test("40 private channels: at most two requests; one that is refused does not concern the others", limit, async (t) => {
  const ann = await client(browser, server);
  t.after(() => ann.context().close());
  const names = Array.from({ length: 39 }, (_, n) => `private-many-${n}`), before = await asked();
  await ann.evaluate((names) => names.forEach((name) => room(name)), [...names, "private-denied-1"]);
  await ann.subscribed(...names);
  await ann.hears("private-denied-1 subscribe-error Authorization failed (403)");
  assert.equal(await asked(), before + 2);
  assert.equal(await ann.evaluate(() => [...pushy.channels.values()].filter(({ subscribed }) => subscribed).length), 39);
  await server.control("cut");
  await ann.hears("disconnect");
  await ann.subscribed(...names);
  assert.equal(await asked(), before + 3);
});

// Issue 14, acceptance test 9, second half.
test("a page that slept past the end of its tokens asks once, and sends none of the old ones", limit, async (t) => {
  const sent = [];
  const ann = await client(browser, server, {
    clock: true,
    before: (page) => page.on("websocket", (socket) => socket.on("framesent", ({ payload }) => sent.push(JSON.parse(payload)))),
  });
  t.after(() => ann.context().close());
  const names = Array.from({ length: 5 }, (_, n) => `private-sleep-${n}`);
  const subscribes = () => sent.filter(({ command }) => command === "subscribe").map(({ data }) => data.auth);
  for (const name of names) await ann.room(name);
  await ann.subscribed(...names);
  const old = subscribes(), before = await asked();
  assert.equal(old.length, 5);
  // Asleep: no timer runs, and the connection is lost.
  await server.control("cut");
  await ann.clock.fastForward(2 * 3600 * 1000);
  await ann.hears("disconnect");
  await ann.subscribed(...names);
  assert.equal(await asked(), before + 1);
  const renewed = subscribes().slice(5);
  assert.equal(renewed.length, 5);
  assert.deepEqual(renewed.filter((auth) => !auth || old.includes(auth)), []);
});

test("a client event reaches the other members, with its sender", limit, async (t) => {
  const ann = await client(browser, server), bob = await client(browser, server, { name: "Bob" });
  t.after(() => Promise.all([ann, bob].map((page) => page.context().close())));
  for (const page of [ann, bob]) {
    await page.room("private-talk-1");
    await page.subscribed("private-talk-1");
  }
  await bob.evaluate(() => pushy.channel("private-talk-1").on("client-typing", (data, { from }) => told.push(`${data.key} ${from}`)));
  assert.equal(await ann.evaluate(() => pushy.channel("private-talk-1").send("client-typing", { key: "a", from: "nobody" })), true);
  await bob.hears(`a ${await ann.evaluate(() => pushy.channel("private-talk-1").memberId)}`);
});

// What a page gets back in Chromium: missed events after a blink, its membership after a reload.
// The original's client gets what it always got.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { launch, patience } from "./example.mjs";
import { buildServer, client, startServer } from "./page.mjs";
import { after, before, test } from "./suite.mjs";

const recordings = JSON.parse(readFileSync(new URL("../../testdata/golden/transcripts.json", import.meta.url), "utf8"));
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

const publishTo = (channel, from, count) => server.control("publish", { channel, event: "news", from, count });
const publish = (from, count) => publishTo("kept-news", from, count);
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
  await ann.hears("waiting");
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
    const kept = sessionStorage.getItem(`pushy:${origin}/pushy`);
    dispatchEvent(new Event("pageshow"));
    return kept;
  });
  await ann.subscribed("private-twice");
  assert.equal(await me(ann, "private-twice"), id);
  const twin = await client(browser, server, {
    context: ann.context(),
    before: (page) => page.addInitScript((keys) => sessionStorage.setItem(`pushy:${origin}/pushy`, keys), keys),
  });
  await twin.room("private-twice");
  await twin.subscribed("private-twice");
  assert.equal(await me(twin, "private-twice"), id);
  await ann.waitForFunction((id) => {
    const { subscribed, memberId } = pushy.channel("private-twice");
    return subscribed && memberId !== id;
  }, id);
  for (const page of [ann, twin]) await page.has("private-twice", "Ann", "Ann");
  const other = await me(ann, "private-twice"), count = (lines) => lines.filter((line) => line.startsWith("private-twice unsubscribe")).length;
  // Two more answers each, after which an exchange that went on would be seen.
  for (let n = 0; n < 2; n++) for (const page of [ann, twin]) await page.evaluate(() => pushy.exec("echo"));
  assert.deepEqual([await me(ann, "private-twice"), await me(twin, "private-twice")], [other, id], "it is stable");
  // Once for the dispatched pagehide, once for the other tab.
  assert.deepEqual([count(await ann.told()), count(await twin.told())], [2, 0], "after one exchange");
  // Each has a key of its own now.
  for (const page of [ann, twin]) {
    await page.reload();
    await page.setUp();
    await page.room("private-twice");
    await page.subscribed("private-twice");
  }
  assert.deepEqual([await me(ann, "private-twice"), await me(twin, "private-twice")], [other, id]);
});

test("a tab that is closed: its member leaves after the grace period", limit, async (t) => {
  const own = await startServer(undefined, "-grace", "3s");
  t.after(() => own.stop());
  const ann = await client(browser, own), bob = await client(browser, own, { name: "Bob" });
  t.after(() => Promise.all([ann, bob].map((page) => page.context().close())));
  for (const page of [ann, bob]) {
    await page.room("private-closed");
    await page.subscribed("private-closed");
  }
  await bob.has("private-closed", "Ann", "Bob");
  const began = Date.now();
  await ann.close();
  await bob.hears("private-closed pushy:member-quit Ann");
  const took = Date.now() - began;
  assert.ok(took > 2500, `${took} ms`);
  assert.equal((await own.control("stats")).unsubscribed, 1);
});

test("a reload begins with the newest events, not at a position that the page before had", limit, async (t) => {
  const ann = await client(browser, server);
  t.after(() => ann.context().close());
  const enter = async () => {
    await ann.evaluate(() => {
      window.got = [];
      pushy.channel("kept-reload", { rewind: 3 }).on("news", ({ n }) => got.push(n)).on("subscribe", (_, { recovered, replay }) => got.push([recovered, replay])).subscribe();
    });
    await ann.subscribed("kept-reload");
  };
  const has = async (...wanted) => {
    await ann.waitForFunction((length) => got.length === length, wanted.length);
    assert.deepEqual(await ann.evaluate(() => got), wanted);
  };
  await publishTo("kept-reload", 0, 5);
  await enter();
  await has([undefined, 3], 2, 3, 4);
  await publishTo("kept-reload", 5, 2);
  await has([undefined, 3], 2, 3, 4, 5, 6);
  await ann.reload();
  await ann.setUp();
  await enter();
  await has([undefined, 3], 4, 5, 6);
});

// The recordings of the original's browser client with sockjs-client, and of the original server's
// answers. In a channel that keeps events, "offset" is new and everything else stays.
for (const transport of ["websocket", "xhr-streaming", "xhr-polling"]) {
  test(`the original's browser client over ${transport}, in channels that keep events and in others`, limit, async (t) => {
    const page = await (await browser.newContext()).newPage();
    t.after(() => page.context().close());
    await page.goto(server.origin);
    await page.addScriptTag({ path: path.join(import.meta.dirname, "node_modules/sockjs-client/dist/sockjs.min.js") });
    for (const [recording, channel] of [["browser-client-hello", "hello"], ["browser-client-private-room", "private-room"]]) {
      const { steps } = recordings.find(({ name }) => name === recording);
      const messages = steps.filter(({ conn, message }) => conn === "A" && message);
      for (const kept of [false, true]) {
        const name = kept ? channel.replace(/(private-)?/, "$1kept-") + transport : channel + transport;
        const own = (text) => text.replaceAll(`"${channel}"`, `"${name}"`);
        await page.evaluate((transport) => {
          window.got = [];
          window.sock = new SockJS(`${origin}/pushy/socket`, null, { transports: transport, timeout: 30_000 });
          sock.onmessage = ({ data }) => got.push(data);
        }, transport);
        let id;
        for (const { dir, message } of messages) {
          if (dir === "send") {
            const command = JSON.parse(own(message));
            if (command.data.auth) {
              // The PHP SDK sends the data as a string; the token of this server covers the object.
              Object.assign(command.data, await page.evaluate(async ([channel, connection_id]) => (await fetch("/auth?name=ann", {
                method: "POST", body: new URLSearchParams({ channel, connection_id }),
              })).json(), [name, id]));
            }
            await page.evaluate((text) => sock.send(text), JSON.stringify(command));
            continue;
          }
          const event = message.startsWith('{"event":"ev"');
          if (event) await server.control("publish", { channel: name, event: "ev", from: 1 });
          await page.waitForFunction(() => got.length);
          const text = await page.evaluate(() => got.shift());
          if (text.includes('"pushy:connect"')) id = JSON.parse(text).data.socketId;
          // What the recording has placeholders for, and the data, which another publisher has sent.
          const plain = (text) => own(text)
            .replace(/"(socketId|memberId)":"[^"]*"/g, '"$1":""').replace(/"subscribed":(\d+|<ms>)/g, '"subscribed":0')
            .replace(/"protocol":"[^"]*"/, '"protocol":""').replace('{"username":', '{"name":').replace(/"data":\{"(a|n)":1\}/, '"data":{}');
          const offset = kept && event ? ',"offset":1}' : "}";
          assert.equal(plain(text), plain(message).replace(/\}$/, offset));
        }
        await page.evaluate(() => sock.close());
      }
    }
  });
}

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

// Chromium with a client and a server of different ages: both work as before history, grace and the
// modes of presence.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { launch, patience } from "./example.mjs";
import { buildOld, buildServer, client, startServer } from "./page.mjs";
import { after, before, test } from "./suite.mjs";

const limit = { timeout: 2 * patience };
let browser, old;

before(async () => {
  buildServer();
  old = buildOld();
  browser = await launch();
}, { timeout: 4 * patience });
after(() => browser?.close());

const ages = {
  "a new client with an old server": { start: () => old.startOld(), script: () => readFileSync(new URL("../../client/pushy.js", import.meta.url), "utf8") },
  "an old client with a new server": { start: startServer, script: () => old.script },
};

for (const [what, { start, script }] of Object.entries(ages)) {
  for (const transports of [["websocket"], ["streaming"]]) {
    test(`${what}, over ${transports}`, limit, async (t) => {
      const server = await start();
      t.after(() => server.stop());
      const visit = (name) => client(browser, server, {
        name, options: { transports },
        before: (page) => page.route("**/pushy/pushy.js", (route) => route.fulfill({ contentType: "text/javascript", body: script() })),
      });
      const ann = await visit("Ann"), bob = await visit("Bob");
      t.after(() => Promise.all([ann, bob].map((page) => page.context().close())));
      const rooms = ["kept-lobby", "private-room"];
      for (const page of [ann, bob]) {
        for (const room of rooms) await page.room(room);
        await page.subscribed(...rooms);
      }
      for (const page of [ann, bob]) await page.has("private-room", "Ann", "Bob");
      await ann.hears("private-room pushy:member-added Bob");
      const id = await ann.evaluate(() => pushy.channel("private-room").memberId);
      for (const page of [ann, bob]) {
        await page.told();
        await page.evaluate((rooms) => {
          for (const room of rooms) pushy.channel(room).on("pushy:gap", ({ reason }) => told.push(`${room} gap ${reason}`));
        }, rooms);
      }
      for (const channel of rooms) await server.control("publish", { channel, event: "news", count: 100 });
      for (const page of [ann, bob]) {
        for (const room of rooms) await page.hears(`${room} 99`);
        assert.deepEqual(await page.told(), rooms.flatMap((room) => Array.from({ length: 100 }, (_, n) => `${room} ${n}`)));
      }
      assert.equal(await ann.evaluate(async () => (await pushy.exec("echo", 5)).said), 5);

      // Without the new keys on both sides, a reconnect is a leave and a join, and nothing is replayed.
      await server.control("cut");
      for (const page of [ann, bob]) await page.hears("disconnect");
      for (const page of [ann, bob]) {
        await page.subscribed(...rooms);
        await page.has("private-room", "Ann", "Bob");
      }
      assert.notEqual(await ann.evaluate(() => pushy.channel("private-room").memberId), id);
      await server.control("publish", { channel: "kept-lobby", event: "news", from: 100 });
      await ann.hears("kept-lobby 100");
      const lines = await ann.told();
      assert.deepEqual(lines.filter((line) => /^kept-lobby \d+$/.test(line)), ["kept-lobby 100"]);
      const gaps = what.startsWith("a new") ? rooms.map((room) => `${room} gap undefined`) : [];
      assert.deepEqual(lines.filter((line) => line.includes("gap")).sort(), gaps.sort(), "a page of the new client fetches the state");
      await bob.told();
      await ann.evaluate(() => void pushy.channel("private-room").unsubscribe());
      await bob.hears("private-room pushy:member-quit Ann");
      await ann.evaluate(() => void pushy.channel("private-room").subscribe());
      await bob.hears("private-room pushy:member-added Ann");
      await ann.close();
      await bob.hears("private-room pushy:member-quit Ann");
    });
  }
}

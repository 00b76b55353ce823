// Eight tabs of one browser, each with a stream, over HTTP/1.1 and HTTP/2.
import assert from "node:assert/strict";
import { patience } from "./example.mjs";
import { browser, pause, site, until, useSite } from "./ssesite.mjs";
import { test } from "./suite.mjs";

const limit = { timeout: 5 * patience };
useSite(limit);

// open opens eight tabs, and then a stream in each of them.
async function open(origin, t) {
  const url = new URL(await site.page(t, ""));
  const own = await browser.newContext({ ignoreHTTPSErrors: true });
  const tabs = [];
  for (let i = 0; i < 8; i++) {
    const tab = await own.newPage();
    await tab.goto(origin + url.pathname);
    tabs.push(tab);
  }
  for (const tab of tabs) {
    await tab.evaluate((t) => { window.got = []; new EventSource(`/pushy/events?channel=tabs&t=${t}`).addEventListener("n", (e) => got.push(e.data)); }, t);
  }
  return { tabs, own };
}

test("over HTTP/1.1 the seventh tab and the eighth wait until others are closed", limit, async () => {
  const { tabs, own } = await open(site.origin, "one");
  await until(() => site.requests("one"), "the streams do not open", (all) => all.length === 6);
  await pause(2000);
  assert.equal((await site.requests("one")).length, 6);
  await tabs[0].close();
  await until(() => site.requests("one"), "the seventh stream does not open", (all) => all.length === 7);
  await own.close();
});

test("over HTTP/2 all eight are open, with one connection", limit, async () => {
  const { tabs, own } = await open(await site.secure(), "two");
  await until(() => site.requests("two"), "the streams do not open", (all) => all.length === 8 && all.every(({ status }) => status === 200));
  await until(() => site.members("tabs"), "they are not subscribed", (n) => n >= 8);
  await site.publish("tabs", "n", 1);
  for (const tab of tabs) await until(() => tab.evaluate(() => got), "no event", (all) => all[0] === "1");
  await own.close();
});

// htmx 2 and htmx 4 on the streams of a server that is deployed, or refuses them.
import assert from "node:assert/strict";
import { patience } from "./example.mjs";
import { browser, pause, site, until, useSite } from "./ssesite.mjs";
import { test } from "./suite.mjs";

const limit = { timeout: 5 * patience };
useSite(limit);

const htmx2 = `<script src="/files/node_modules/htmx2/dist/htmx.min.js"></script><script src="/files/node_modules/htmx-ext-sse/dist/sse.min.js"></script>`;
const htmx4 = `<script src="/files/node_modules/htmx.org/dist/htmx.min.js"></script><script src="/files/node_modules/htmx.org/dist/ext/hx-sse.min.js"></script>`;

// open opens a page, and counts what it fetches at /page/rows, which is a row.
async function open(name, html) {
  await site.page("rows", "<li>all rows</li>");
  const page = await (await browser.newContext()).newPage();
  page.fetched = 0;
  page.on("request", (request) => { if (request.url().endsWith("/page/rows")) page.fetched++; });
  await page.goto(await site.page(name, html));
  page.shows = (selector, text) => page.locator(selector).getByText(text, { exact: true }).waitFor({ timeout: patience });
  await until(() => site.requests(name), `${name} does not connect`, (all) => all.length > 0 && all[0].status === 200);
  return page;
}

// deploy deploys with 5 s in which the server refuses requests, and checks those of the page.
async function deploy(name) {
  const before = (await site.requests(name)).length;
  await site.act("deploy", { pause: 5000 });
  const requests = await until(() => site.requests(name), `${name} does not return`, (all) => all.length > before && all.at(-1).at > Date.now() - 500, 30_000)
    .catch(() => site.requests(name));
  assert.ok(requests.length > before, `${name} does not return`);
  return requests;
}

test("htmx 2 swaps by event and by channel, fetches after a gap, and stops at the end", limit, async () => {
  const page = await open("two", `${htmx2}
    <div hx-ext="sse" sse-connect="/pushy/events?channel=kept&channel=other&t=two" sse-close="pushy:end">
      <ul id="by" sse-swap="text"></ul>
      <ul id="all" hx-get="/page/rows" hx-trigger="sse:pushy:gap"></ul>
    </div>`);
  const byChannel = await open("channel", `${htmx2}
    <div hx-ext="sse" sse-connect="/pushy/events?channel=kept&names=channel&t=channel" sse-close="pushy:end"><ul id="by" sse-swap="kept"></ul></div>`);
  await pause(500);
  await site.publish("kept", "text", "<li>one</li>");
  await page.shows("#by li", "one");
  await byChannel.shows("#by li", "one");
  assert.equal(page.fetched, 0);
  const requests = await deploy("two");
  await page.shows("#all li", "all rows"); // the channel other keeps nothing
  await site.publish("kept", "text", "<li>two</li>");
  await page.shows("#by li", "two");
  await byChannel.shows("#by li", "two");
  for (const { lastId } of requests.slice(1)) assert.match(lastId, /^[\w-]+\.\d+,-$/, "htmx 2 has forgotten its position");
  await site.act("remove", { channel: "kept" });
  await pause(3500);
  const ended = (await site.requests("two")).length;
  await pause(3500);
  assert.equal((await site.requests("two")).length, ended, "it comes back after pushy:end");
  await page.close();
  await byChannel.close();
});

test("htmx 4 swaps messages without a name, also those while its tab was hidden", limit, async () => {
  const page = await open("four", `${htmx4}
    <ul id="list" hx-sse:connect="/pushy/events?channel=few&names=none&t=four" hx-sse:close="pushy:end" hx-swap="beforeend"><li>first</li></ul>
    <div id="all" hx-get="/page/rows" hx-trigger="pushy:gap from:#list"></div>`);
  await page.evaluate(() => {
    window.ids = [];
    document.querySelector("#list").addEventListener("pushy:open", (e) => window.ids.push(e.detail.id));
  });
  const texts = () => page.locator("#list > li").allTextContents();
  const hide = (hidden) => page.evaluate((hidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
  await pause(500);
  await site.publish("few", "text", "<li>one</li>");
  await until(texts, "no event", (all) => all.at(-1) === "one");
  await hide(true);
  await pause(500);
  for (const n of ["two", "three", "four"]) await site.publish("few", "text", `<li>${n}</li>`);
  await pause(500);
  assert.deepEqual(await texts(), ["first", "one"], "a hidden tab has a stream");
  await hide(false);
  assert.deepEqual(await until(texts, "it does not return", (all) => all.at(-1) === "four"), ["first", "one", "two", "three", "four"]);
  assert.equal(page.fetched, 0);

  // Away for longer than the channel keeps events: one gap, and the page fetches.
  await hide(true);
  await pause(500);
  await site.act("many", { channel: "few", event: "text", from: 1, to: 9 });
  await hide(false);
  await page.shows("#all li", "all rows");
  assert.equal(page.fetched, 1);

  // A deploy, and a refusal, which changes nothing.
  const requests = await deploy("four");
  for (const { lastId } of requests.slice(1)) assert.match(lastId, /^[\w-]+\.\d+$/);
  await site.publish("few", "text", "<li>after</li>");
  await until(texts, "nothing after the deploy", (all) => all.at(-1) === "after");
  const shown = await texts();
  await site.act("refuse", { on: true });
  await site.act("cut");
  await until(() => site.requests("four"), "no request is refused", (all) => all.at(-1).status === 403);
  await pause(500);
  assert.deepEqual(await texts(), shown);
  await site.act("refuse", { on: false });
  await site.publish("few", "text", "<li>again</li>");
  await until(texts, "it does not return after the refusal", (all) => all.at(-1) === "again");
  await page.close();
});

test("a first request that is refused leaves the page of htmx 4 as it was", limit, async () => {
  await site.act("refuse", { on: true });
  const page = await (await browser.newContext()).newPage();
  await page.goto(await site.page("refused", `${htmx4}<ul id="list" hx-sse:connect="/pushy/events?channel=few&names=none&t=refused"><li>first</li></ul>`));
  await until(() => site.requests("refused"), "no request", (all) => all.at(-1)?.status === 403);
  await pause(1000);
  assert.equal(await page.locator("#list").innerHTML(), "<li>first</li>");
  await site.act("refuse", { on: false });
  await page.close();
});

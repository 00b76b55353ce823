// Datastar on pushy's streams. No registry has Datastar 1.0, so this is not part of make test. It runs with
// a file of its repository:
// DATASTAR=…/bundles/datastar.js node --test datastar.mjs
import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { launch, patience } from "./example.mjs";
import { buildSite, pause, startSite, until } from "./ssesite.mjs";
import { after, before, test } from "./suite.mjs";

const limit = { timeout: 5 * patience };
const files = mkdtempSync(path.join(tmpdir(), "pushy-datastar-"));
let browser, site;

before(async () => {
  assert.ok(process.env.DATASTAR, "set DATASTAR to the path of datastar.js");
  copyFileSync(process.env.DATASTAR, path.join(files, "datastar.js"));
  buildSite();
  site = await startSite(files);
  browser = await launch();
}, limit);
after(async () => {
  await browser?.close();
  await site?.stop();
  rmSync(files, { recursive: true, force: true, maxRetries: 20, retryDelay: 250 });
});

// open opens a page of Datastar. data-init is the attribute of version 1.0, and data-on-load that of RC.5.
// The page fetches /page/rows at a gap.
async function open(name, query, html, more = "") {
  await site.page("rows", `<ul id="rows"><li>all rows</li></ul>`);
  const page = await (await browser.newContext()).newPage();
  page.fetched = 0;
  page.on("request", (request) => { if (new URL(request.url()).pathname.endsWith("/page/rows")) page.fetched++; });
  const get = `@get('/pushy/events?names=datastar&t=${name}&${query}', {retry: 'always', retryMaxCount: Infinity${more}})`;
  await page.goto(await site.page(name, `<script type="module" src="/files/datastar.js"></script>
    <div data-signals="{open: 1, kind: 'all', _pushy: {gap: {at: 0}}}"></div>
    <div data-on-load="${get}" data-init="${get}"></div>
    <div data-effect="$_pushy.gap.at && @get('/page/rows')"></div>
    <p id="open" data-text="$open"></p><p id="kind" data-text="$kind"></p>${html}`));
  await until(() => site.requests(name), `${name} does not connect`, (all) => all.length > 0 && all[0].status === 200);
  page.html = (selector) => page.locator(selector).evaluate((e) => e.outerHTML.replaceAll(/\s+/g, " "));
  page.has = (selector, html) => until(() => page.html(selector), `${selector} is not ${html}`, (now) => now === html);
  page.hide = (hidden) => page.evaluate((hidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
  return page;
}

const lines = (name, text) => text.split("\n").map((line) => `${name} ${line}`);
// patch publishes datastar-patch-elements.
const patch = (channel, html, ...more) => site.publish(channel, "datastar-patch-elements", [...more, ...(html ? lines("elements", html) : [])].join("\n"));

test("elements in all modes, with several lines, and signals", limit, async () => {
  const page = await open("modes", "channel=kept", `<ul id="list"><li id="a">a</li></ul>`);
  await pause(300);
  await patch("kept", `<li id="a">\n  outer\n</li>`);
  await page.has("#list", `<ul id="list"><li id="a"> outer </li></ul>`);
  await patch("kept", "<b>in</b>\n<i>ner</i>", "selector #a", "mode inner");
  await page.has("#a", `<li id="a"><b>in</b> <i>ner</i></li>`);
  await patch("kept", `<li id="a"\nclass="r">replaced</li>`, "mode replace");
  await page.has("#list", `<ul id="list"><li id="a" class="r">replaced</li></ul>`);
  for (const [mode, selector] of [["prepend", "#list"], ["append", "#list"], ["before", "#a"], ["after", "#a"]]) {
    await patch("kept", `<li>\n${mode}</li>`, `selector ${selector}`, `mode ${mode}`);
  }
  await page.has("#list", `<ul id="list"><li> prepend</li><li> before</li><li id="a" class="r">replaced</li><li> after</li><li> append</li></ul>`);
  await patch("kept", "", "selector #list li:not(#a)", "mode remove");
  await page.has("#list", `<ul id="list"><li id="a" class="r">replaced</li></ul>`);
  await site.publish("kept", "datastar-patch-signals", `signals {"open": 3,\nsignals "kind": "some"}`);
  await page.has("#open", `<p id="open" data-text="$open">3</p>`);
  await page.has("#kind", `<p id="kind" data-text="$kind">some</p>`);
  await site.publish("kept", "datastar-patch-signals", `onlyIfMissing true\nsignals {"open": 4, "other": 1}`);
  await site.publish("kept", "datastar-patch-signals", `signals {"kind": "last"}`);
  await page.has("#kind", `<p id="kind" data-text="$kind">last</p>`);
  await page.has("#open", `<p id="open" data-text="$open">3</p>`);
  assert.equal(page.fetched, 0);
  const [request] = await site.requests("modes");
  assert.match(request.query, /datastar=/);
  assert.ok(!request.query.includes("_pushy"), "the signal is sent back");
  await page.close();
});

test("a tab that is hidden for 10 s lacks nothing, and one that is away for too long fetches once", limit, async () => {
  const page = await open("hidden", "channel=kept&channel=few", `<ul id="list"></ul><ul id="rows"></ul>`);
  await pause(300);
  await patch("kept", "<li>0</li>", "selector #list", "mode append");
  await page.has("#list", `<ul id="list"><li>0</li></ul>`);
  await page.hide(true);
  await pause(300);
  for (let i = 1; i <= 50; i++) {
    await patch("kept", `<li>${i}</li>`, "selector #list", "mode append");
    await pause(200);
  }
  await page.has("#list", `<ul id="list"><li>0</li></ul>`);
  await page.hide(false);
  await page.has("#list", `<ul id="list">${Array.from({ length: 51 }, (_, i) => `<li>${i}</li>`).join("")}</ul>`);
  assert.equal(page.fetched, 0);
  for (let i = 1; i <= 2; i++) {
    await page.hide(true);
    await pause(300);
    await site.act("many", { channel: "few", event: "n", from: 1, to: 9 });
    await page.hide(false);
    await until(async () => page.fetched, "no fetch", (n) => n === i);
  }
  await page.has("#rows", `<ul id="rows"><li>all rows</li></ul>`);
  await pause(500);
  assert.equal(page.fetched, 2);
  await page.close();
});

test("a deploy, a break and a refusal", limit, async () => {
  const page = await open("deploy", "channel=kept", `<ul id="list"></ul>`);
  await pause(300);
  const shows = async (n) => {
    await patch("kept", `<li>${n}</li>`, "selector #list", "mode append");
    await page.has("#list", `<ul id="list">${Array.from({ length: n }, (_, i) => `<li>${i + 1}</li>`).join("")}</ul>`);
  };
  await shows(1);
  await site.act("cut");
  await shows(2);
  await site.act("deploy", { pause: 5000 });
  await shows(3);
  const requests = await site.requests("deploy");
  for (const { lastId } of requests.slice(1)) assert.match(lastId, /^[\w-]+\.\d+$/);
  const pauses = requests.slice(1).map(({ at }, i) => at - requests[i].at);
  console.log("pauses between requests, ms:", pauses.join(" "));
  assert.ok(pauses.every((ms) => ms > 900), `requests after ${pauses} ms`);
  const before = await page.html("body");
  await site.act("refuse", { on: true });
  await site.act("cut");
  await until(() => site.requests("deploy"), "no request is refused", (all) => all.at(-1).status === 403);
  await pause(1000);
  assert.equal(await page.html("body"), before);
  await site.act("refuse", { on: false });
  await page.close();
});

test("a first request that is refused leaves the page as it was", limit, async () => {
  await site.act("refuse", { on: true });
  const page = await (await browser.newContext()).newPage();
  const get = `@get('/pushy/events?names=datastar&channel=kept&t=refused', {retry: 'never'})`;
  await page.goto(await site.page("refused", `<script type="module" src="/files/datastar.js"></script><ul id="list" data-on-load="${get}" data-init="${get}"><li>first</li></ul>`));
  await until(() => site.requests("refused"), "no request", (all) => all.at(-1)?.status === 403);
  await pause(1000);
  assert.equal(await page.locator("#list").innerHTML(), "<li>first</li>");
  await site.act("refuse", { on: false });
  await page.close();
});

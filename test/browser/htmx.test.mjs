// The order board of examples/htmx in Chromium, with a deploy while its pages are open.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { build, desktop, launch, look, open, patience, phone, start } from "./example.mjs";
import { after, before, test } from "./suite.mjs";

const limit = { timeout: 5 * patience };
const own = mkdtempSync(path.join(tmpdir(), "pushy-orders-"));
let browser;

before(async () => {
  build("./examples/htmx");
  browser = await launch();
}, limit);
after(async () => {
  await browser?.close();
  rmSync(own, { recursive: true, force: true, maxRetries: 20, retryDelay: 250 });
});

const state = (page, text) => page.locator("#state").getByText(text, { exact: true }).waitFor();
const shows = (page, id, status) => page.locator(`#order-${id}.${status}`).waitFor();
const rows = (page) => page.locator("#orders > *").evaluateAll((all) => all.map((row) => `${row.tagName} ${row.id} ${row.cells?.[1].textContent}`));

// watch notes everything that is ever in the table and is not a row.
const watch = (page) => page.evaluate(() => {
  window.odd = [];
  const table = document.querySelector("#orders");
  new MutationObserver(() => {
    for (const node of table.childNodes) {
      if (node.nodeType === 3 ? node.textContent.trim() : node.tagName !== "TR") window.odd.push(node.textContent);
    }
  }).observe(table, { childList: true, subtree: true, characterData: true });
});

test("rows change on all pages, and a deploy is survived", limit, async (t) => {
  const data = path.join(own, "orders.json");
  const first = await start(undefined, "-data", data);
  let running = first;
  t.after(() => running?.stop());
  const ann = await open(browser, first.origin, desktop);
  const bob = await open(browser, first.origin, phone);
  for (const page of [ann, bob]) {
    await state(page, "live");
    await watch(page);
  }
  const before = ["TR order-3 Six cups", "TR order-2 A box of tea", "TR order-1 Two teapots"];
  assert.deepEqual(await rows(ann), before);
  assert.deepEqual(await rows(bob), before);

  // One row changes in its place, on both pages.
  await ann.locator("#order-2").evaluate((row) => (row.mark = true));
  await ann.locator("#order-3 button").click();
  for (const page of [ann, bob]) await shows(page, 3, "packed");
  assert.ok(await ann.locator("#order-2").evaluate((row) => row.mark), "another row was replaced, too");
  await bob.locator("#order-3 button").tap();
  for (const page of [ann, bob]) await shows(page, 3, "shipped");
  await ann.getByLabel("Item").fill("A <b>samovar</b>");
  await ann.getByLabel("Customer").fill("Dana");
  await ann.getByRole("button", { name: "Add order" }).click();
  for (const page of [ann, bob]) await shows(page, 4, "new");
  const all = ["TR order-4 A <b>samovar</b>", ...before];
  assert.deepEqual(await rows(ann), all);
  assert.deepEqual(await rows(bob), all);
  assert.equal(await ann.getByLabel("Item").inputValue(), "");
  await look({ desktop: ann, phone: bob }, "htmx-board");

  // A deploy: the server stops, refuses connections for 5 s, and starts again. A change that another
  // program makes meanwhile is on the pages afterwards.
  running = null;
  await first.stop();
  await state(ann, "connecting");
  await ann.waitForTimeout(5000);
  const second = await start(new URL(first.origin).host, "-data", data);
  running = second;
  await fetch(`${second.origin}/orders/4/next`, { method: "POST" });
  for (const page of [ann, bob]) {
    await state(page, "live");
    await shows(page, 4, "packed");
    assert.deepEqual(await rows(page), all);
    assert.deepEqual(await page.evaluate(() => window.odd), [], "something that is no row was in the table");
  }
  await bob.locator("#order-4 button").tap();
  for (const page of [ann, bob]) await shows(page, 4, "shipped");
});

test("a page that was opened before a change has it, and a page of another site cannot change orders", limit, async (t) => {
  const { origin, stop } = await start(undefined, "-data", path.join(own, "second.json"));
  t.after(stop);
  const ann = await open(browser, origin, desktop);
  await state(ann, "live");
  const answer = await fetch(`${origin}/orders/3/next`, { method: "POST", headers: { "Sec-Fetch-Site": "cross-site" } });
  assert.equal(answer.status, 403);
  // The stream of this page is opened after the change, with the position of the page.
  await ann.route("**/pushy/events*", async (route) => {
    await fetch(`${origin}/orders/3/next`, { method: "POST" });
    await route.continue();
  }, { times: 1 });
  await ann.reload();
  await shows(ann, 3, "packed");
  assert.equal((await rows(ann)).length, 3);
  await ann.close();
  assert.deepEqual(ann.wrong.filter((text) => !/aborted|ERR_ABORTED/.test(text)), []);
});

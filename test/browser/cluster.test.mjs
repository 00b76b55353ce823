import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { enter, line, person, room, say } from "./chat.mjs";
import { build, desktop, launch, look, open, patience, screenshots, startNodes } from "./example.mjs";

const limit = { timeout: 5 * patience };
let browser;

before(async () => {
  build("./examples/cluster");
  browser = await launch();
}, limit);
after(() => browser?.close());

test("users of three nodes chat as on one node", limit, async (t) => {
  const { origins, stop } = await startNodes(3);
  t.after(stop);
  const names = ["Ada", "Grace", "Edsger"];
  const pages = [];
  for (const [i, origin] of origins.entries()) {
    pages.push(await open(browser, origin, desktop));
    await enter(pages[i], names[i]);
    await pages[i].getByText(`node ${i + 1}`).waitFor();
  }
  const list = (page) => page.locator("#people li").allTextContents();
  for (const [i, page] of pages.entries()) {
    for (const name of names) await person(page, name === names[i] ? `${name} (you)` : name).waitFor();
    assert.equal((await list(page)).length, 3);
    await room(page, "Private lounge");
  }
  for (const [i, page] of pages.entries()) await say(page, `${names[i]} here`);
  for (const page of pages) for (const name of names) await line(page, `${name} here`).waitFor();
  await look({ desktop: pages[1] }, "cluster");
  t.diagnostic(`screenshots are in ${screenshots}`);

  const [ada, grace, edsger] = pages;
  await grace.close();
  for (const page of [ada, edsger]) {
    await line(page, "Grace left").waitFor();
    await person(page, "Grace").waitFor({ state: "detached" });
    assert.equal((await list(page)).length, 2);
    assert.deepEqual(page.wrong, []);
  }
});

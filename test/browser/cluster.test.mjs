import assert from "node:assert/strict";
import { enter, line, log, person, room, say } from "./chat.mjs";
import { build, desktop, launch, look, open, patience, screenshots, startNodes, startRedis } from "./example.mjs";
import { after, before, test } from "./suite.mjs";

const limit = { timeout: 5 * patience };
let browser;

before(async () => {
  build("./examples/cluster");
  browser = await launch();
}, limit);
after(() => browser?.close());

test("a chat behind Redis loses nothing when its server is killed", limit, async (t) => {
  const redis = await startRedis();
  t.after(redis.stop);
  const { origins: [origin], stop } = await startNodes(1, "127.0.0.1:0", "-nodes", "1", "-redis", redis.address);
  t.after(stop);
  const ada = await open(browser, origin, desktop);
  const grace = await open(browser, origin, desktop);
  await enter(ada, "Ada");
  await enter(grace, "Grace");
  await say(ada, "Before");
  await line(grace, "Before").waitFor();
  const since = await grace.evaluate(() => document.querySelectorAll(".note").length);
  await ada.getByRole("button", { name: "Kill this node" }).click();
  for (const page of [ada, grace]) await page.hasShown("Reconnecting…");
  for (const page of [ada, grace]) await page.getByRole("status").getByText("Connected").waitFor();
  await say(ada, "After");
  for (const page of [ada, grace]) {
    await line(page, "After").waitFor();
    assert.deepEqual(await log(page).locator(".text").allTextContents(), ["Before", "After"]);
    assert.equal(await page.locator("#people li").count(), 2);
  }
  assert.equal(await grace.evaluate(() => document.querySelectorAll(".note").length), since, "nobody left or joined");
});

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

  // A node is killed: its users come back as the same members, and nobody notices.
  const [ada, grace, edsger] = pages;
  await grace.getByRole("button", { name: "Kill this node" }).click();
  await grace.hasShown("Reconnecting…");
  await say(ada, "Is Grace still here?");
  for (const page of [ada, edsger]) await line(page, "Is Grace still here?").waitFor();
  await grace.getByRole("status").getByText("Connected").waitFor();
  await line(grace, "Is Grace still here?").waitFor();
  await say(grace, "I was never away");
  for (const page of pages) {
    await line(page, "I was never away").waitFor();
    assert.equal((await list(page)).length, 3);
    for (const note of ["Grace left", "The server has lost earlier messages."]) assert.equal(await line(page, note).count(), 0, note);
  }
  assert.equal(await line(ada, "Grace joined").count(), 1);
  assert.equal(await line(edsger, "Grace joined").count(), 0);

  await grace.close();
  for (const page of [ada, edsger]) {
    await line(page, "Grace left").waitFor();
    await person(page, "Grace").waitFor({ state: "detached" });
    assert.equal((await list(page)).length, 2);
    assert.deepEqual(page.wrong, []);
  }
});

import assert from "node:assert/strict";
import { build, desktop, launch, look, open, patience, phone, start } from "./example.mjs";
import { after, before, test } from "./suite.mjs";

const limit = { timeout: 5 * patience };
let browser;

before(async () => {
  build("./examples/embed");
  browser = await launch();
}, limit);
after(() => browser?.close());

async function login(page, name, password) {
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
}

const live = (page) => page.getByRole("status").getByText("Live", { exact: true }).waitFor();
const here = (page, name) => page.locator("#people").getByText(name, { exact: true });
const chore = (page, text) => page.locator("#chores li", { hasText: text });

async function add(page, text) {
  await page.getByLabel("New chore").fill(text);
  await page.getByRole("button", { name: "Add" }).click();
  await chore(page, text).waitFor();
}

test("a team sees changes of its chores", limit, async (t) => {
  const { origin, stop } = await start();
  t.after(stop);
  const ann = await open(browser, origin, desktop);
  const bob = await open(browser, origin, phone), asked = [];
  for (const page of [ann, bob]) page.on("request", (request) => request.url().endsWith("/rt/auth") && asked.push(request.url()));
  await look({ desktop: ann, phone: bob }, "embed-login");
  await login(ann, "ann", "spade");
  await login(bob, "bob", "rake");
  for (const page of [ann, bob]) {
    await live(page);
    for (const name of ["Ann", "Bob"]) await here(page, name).waitFor();
  }

  await add(ann, "Rake the leaves <b>");
  await chore(bob, "Rake the leaves <b>").waitFor();
  await chore(bob, "Water the tomatoes").getByRole("button").tap();
  await ann.locator("#chores li.done", { hasText: "Water the tomatoes" }).getByText("Bob").waitFor();
  await add(bob, "Feed the hens, and see whether the one with the white feather is still limping");
  await chore(ann, "Feed the hens").waitFor();
  assert.equal(await ann.locator("#chores li").count(), 4);
  assert.equal(await bob.locator("#chores li").count(), 4);
  await look({ desktop: ann, phone: bob }, "embed");
  assert.deepEqual(asked, []); // the page has a token

  // A logout in one tab closes the connection of the other tab.
  const second = await ann.context().newPage();
  await second.goto(origin);
  await live(second);
  await second.getByRole("button", { name: "Log out" }).click();
  await ann.waitForURL(`${origin}/login`);
  await here(bob, "Ann").waitFor({ state: "detached" });
  const unwanted = ann.wrong.filter((what) => !what.includes("401")); // the page's request after the logout
  assert.deepEqual(unwanted, []);
  assert.deepEqual(bob.wrong, []);
});

test("another team does not see the chores", limit, async (t) => {
  const { origin, stop } = await start();
  t.after(stop);
  const ann = await open(browser, origin, desktop);
  const eve = await open(browser, origin, desktop);
  await login(ann, "ann", "rake");
  await ann.getByRole("alert").getByText("is wrong").waitFor();
  await login(ann, "ann", "spade");
  await login(eve, "eve", "spoon");
  await live(ann);
  await live(eve);
  const refused = await eve.evaluate(() => new Promise((resolve) => {
    const garden = pushyOfTheTest().channel("private-team-garden");
    garden.on("subscribe-error", (reason, detail) => resolve(detail?.status));
    garden.on("subscribe", () => resolve("subscribed"));
    garden.subscribe();
    function pushyOfTheTest() { return new Pushy("/rt", "/rt/auth"); }
  }));
  assert.equal(refused, 403);
  await add(ann, "For the garden alone");
  await add(eve, "For the kitchen alone");
  assert.equal(await chore(eve, "For the garden alone").count(), 0);
});

test("the page opens the login when the server has lost the session", limit, async (t) => {
  const first = await start();
  const ann = await open(browser, first.origin, phone);
  await login(ann, "ann", "spade");
  await live(ann);
  await first.stop();
  await ann.hasShown("Reconnecting…");
  const second = await start(new URL(first.origin).host);
  t.after(() => second.stop());
  await ann.waitForURL(`${first.origin}/login`);
});

test("the forms work without JavaScript", limit, async (t) => {
  const { origin, stop } = await start();
  t.after(stop);
  const ann = await open(browser, origin, { ...desktop, javaScriptEnabled: false });
  await login(ann, "ann", "spade");
  await add(ann, "By hand");
  await chore(ann, "By hand").getByRole("button").click();
  await ann.locator("#chores li.done", { hasText: "By hand" }).waitFor();
  await ann.getByRole("button", { name: "Log out" }).click();
  await ann.waitForURL(`${origin}/login`);
});

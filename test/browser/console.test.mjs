import assert from "node:assert/strict";
import path from "node:path";
import { build, launch, patience, screenshots, start } from "./example.mjs";
import { after, before, test } from "./suite.mjs";

const limit = { timeout: 5 * patience };
const operator = { username: "ops", password: "secret" };
let browser;

before(async () => {
  build("./test/console");
  browser = await launch();
}, limit);
after(() => browser?.close());

/** Opens the console, and collects what goes wrong: reports about the policy, errors, dialogs. */
async function open(origin, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, httpCredentials: operator, ...options });
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  const wrong = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && wrong.push(message.text()));
  page.on("pageerror", (error) => wrong.push(error.message));
  page.on("dialog", (dialog) => {
    wrong.push(`dialog ${dialog.message()}`);
    dialog.dismiss();
  });
  await page.addInitScript(() => {
    window.reports = [];
    addEventListener("securitypolicyviolation", (e) => reports.push(`${e.violatedDirective} ${e.blockedURI}`));
  });
  await page.goto(`${origin}/console/`);
  await page.locator("#nodes tbody tr").first().waitFor();
  return Object.assign(page, { wrong });
}

const settled = (page) => page.locator("#state.good, #state.bad").waitFor();

test("values that attack the page are shown as text", limit, async (t) => {
  const { origin, stop } = await start("127.0.0.1:0", "-nodes", "1", "-conns", "0", "-hostile");
  t.after(stop);
  const page = await open(origin);
  const text = () => page.locator("body").innerText();
  await page.locator("#conns tbody tr").nth(5).waitFor();
  await page.locator("#ends tbody tr").nth(5).waitFor();
  let shown = await text();
  for (const value of [
    "<img src=x onerror=\"window.attacked=1\">", "</script><script>window.attacked=1</script>", "user\\u202Egnp.exe",
    "javascript:window.attacked=1", "\"><svg onload=window.attacked=1>", "presence-<img src=x onerror=window.attacked=0>", "\\u2066\\u200B\\uFEFF",
  ]) assert.ok(shown.includes(value), `${value} is not in ${shown}`);

  for (let i = 0; i < 6; i++) { // user agents, and events and payloads while they are watched
    await page.locator("#conns tbody button.open").nth(i).click();
    await page.locator("#detail dl").waitFor();
    await page.getByRole("button", { name: "Watch" }).click();
    await page.locator("#detail").getByText(/Watching until/).waitFor();
    await page.keyboard.press("Escape");
  }
  for (let i = 0; i < 6; i++) { // members
    await page.locator("#channels tbody button.open").nth(i).click();
    await page.locator("#detail .value.data").waitFor();
    shown = await page.locator("#detail").innerText();
    assert.match(shown, /\\\\?ud800/i);
    await page.keyboard.press("Escape");
  }
  for (let i = 0; i < 6; i++) { // ends
    await page.locator("#ends tbody button.open").nth(i).click();
    await page.locator("#detail dl").waitFor();
    await page.keyboard.press("Escape");
  }
  const raw = await page.locator("body").evaluate((body) => body.innerHTML.match(/[\u202A-\u202E\u2066-\u2069\u200B\uFEFF]/g));
  assert.equal(raw, null);
  assert.equal(await page.locator("img, svg:not([aria-hidden]), iframe").count(), 0);
  assert.equal(await page.evaluate(() => window.attacked), undefined);
  assert.deepEqual(await page.evaluate(() => window.reports), []);
  assert.deepEqual(page.wrong, []);
});

test("a page of another origin can neither see nor change anything", limit, async (t) => {
  const { origin, stop } = await start("127.0.0.1:0", "-nodes", "1", "-conns", "5");
  t.after(stop);
  const { port } = new URL(origin);
  const page = await open(origin);
  await page.goto(`${origin}/login`); // a cookie, which the browser adds to each request for this host
  const count = async () => (await (await fetch(`${origin}/logs`)).json());
  const before = await count();
  const elsewhere = `http://localhost:${port}/elsewhere`;
  await page.goto(elsewhere);
  const seen = await page.evaluate(async (origin) => {
    const of = async (run) => {
      try {
        return await run();
      } catch (failed) {
        return `failed: ${failed.name}`;
      }
    };
    const kick = `{"target":"user:ann-0"}`;
    const nothing = () => fetch(`${origin}/console/kick`, { method: "POST", mode: "no-cors", credentials: "include", body: kick });
    return {
      fetch: await of(async () => (await fetch(`${origin}/console/data`, { credentials: "include" })).status),
      json: await of(async () => (await fetch(`${origin}/console/kick`, {
        method: "POST", credentials: "include", body: kick, headers: { "Content-Type": "application/json" },
      })).status),
      noCors: await of(async () => (await nothing()).type),
      socket: await of(() => new Promise((resolve) => {
        const socket = new WebSocket(`${origin.replace("http", "ws")}/console/data`);
        socket.onopen = () => resolve("open");
        socket.onerror = () => resolve("failed");
      })),
      frame: await of(() => new Promise((resolve) => {
        const frame = document.createElement("iframe");
        frame.onload = () => resolve(frame.contentDocument ? "readable" : "unreadable");
        frame.src = `${origin}/console/`;
        document.body.append(frame);
      })),
    };
  }, origin);
  assert.deepEqual(seen, { fetch: "failed: TypeError", json: "failed: TypeError", noCors: "failed: TypeError", socket: "failed", frame: "unreadable" });
  const frame = page.frames().find((f) => f !== page.mainFrame());
  assert.doesNotMatch(await frame.evaluate(() => document.body?.innerText ?? "").catch(() => ""), /Connections/);
  await page.evaluate((origin) => {
    document.body.innerHTML = `<form method="post" enctype="text/plain" action="${origin}/console/kick"><input name='{"target":"user:ann-0","reason":"' value='"}'></form>`;
    document.forms[0].submit();
  }, origin);
  await page.waitForURL(`${origin}/console/kick`);
  assert.match(await page.locator("body").innerText(), /another origin/);
  assert.equal(await count(), before);
  // The name of another site that points to this server: to the browser it is the same origin.
  const other = await launch([`--host-resolver-rules=MAP evil.test 127.0.0.1`]);
  t.after(() => other.close());
  const rebound = await (await other.newContext({ httpCredentials: operator })).newPage();
  await rebound.goto(`http://evil.test:${port}/login`);
  const answer = await rebound.goto(`http://evil.test:${port}/console/data`);
  assert.equal(answer.status(), 421);
  const act = await rebound.evaluate(async () => {
    const headers = { "Content-Type": "application/json" };
    return (await fetch("/console/kick", { method: "POST", headers, body: `{"target":"user:ann-0"}` })).status;
  });
  assert.equal(act, 421);
  assert.equal(await count(), before);
});

test("the whole console works with the keyboard", limit, async (t) => {
  const { origin, stop } = await start("127.0.0.1:0", "-nodes", "2", "-conns", "60");
  t.after(stop);
  const page = await open(origin);
  await settled(page);
  const unnamed = await page.locator("button, input, select, textarea, table, section, dialog").evaluateAll((all) => all
    .filter((e) => e.matches("button, input, select, textarea"))
    .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length))
    .map((e) => e.outerHTML));
  assert.deepEqual(unnamed, []);
  const focused = () => page.evaluate(() => {
    const e = document.activeElement;
    const ring = getComputedStyle(e);
    return { id: e.id, name: e.getAttribute("aria-label") ?? e.textContent, ring: e.matches(":focus-visible") && ring.outlineStyle !== "none" };
  });
  /** Presses Tab until an element is focused, and checks that each one on the way shows it. */
  async function tabTo(what) {
    for (let i = 0; i < 120; i++) {
      await page.keyboard.press("Tab");
      const now = await focused();
      if (what(now)) {
        assert.ok(now.ring, `${now.name} does not show that it is focused`);
        return now;
      }
    }
    throw new Error("it cannot be reached");
  }
  await tabTo((e) => e.id === "by");
  await page.keyboard.press("ArrowDown");
  assert.equal(await page.locator("#by").inputValue(), "user");
  await tabTo((e) => e.id === "query");
  await page.keyboard.type("bob-1");
  await page.keyboard.press("Enter");
  await page.locator("#found-rows tbody tr").waitFor();
  await tabTo((e) => e.name?.startsWith("Connection "));
  await page.keyboard.press("Enter");
  await page.locator("#detail dl").getByText("bob-1").waitFor();
  await tabTo((e) => e.name === "Disconnect…");
  await page.keyboard.press("Enter");
  await page.locator("#confirm[open]").waitFor();
  assert.equal((await focused()).id, "confirm-reason");
  await page.keyboard.press("Escape");
  await page.locator("#confirm[open]").waitFor({ state: "detached" }).catch(() => {});
  await page.keyboard.press("Enter"); // the focus is back on the button
  await page.locator("#confirm[open]").waitFor();
  // The next question can begin before the close event of this one.
  await page.evaluate(() => {
    document.getElementById("confirm").close();
    document.activeElement.click();
  });
  await page.locator("#confirm[open]").waitFor();
  await page.keyboard.type("by hand");
  await page.keyboard.press("Enter");
  await page.locator("#detail").getByText("Closed 1 connection.").waitFor();
  await page.keyboard.press("Escape");
  await page.locator("#detail[open]").waitFor({ state: "hidden" });
  await page.locator("#ends").getByText("3500 by hand").waitFor();
  await page.locator("#channels tbody button.open").first().focus();
  await page.keyboard.press("Enter");
  await page.locator("#publish-event").waitFor();
  await tabTo((e) => e.id === "publish-event");
  await page.keyboard.type("hello");
  await page.keyboard.press("Tab");
  await page.keyboard.press("ControlOrMeta+a");
  await page.keyboard.type("{\"id\": 12345678901234567890, \"amount\": 1.10}");
  await page.keyboard.press("Tab");
  const published = page.waitForRequest(/console\/publish$/);
  await page.keyboard.press("Enter");
  await page.locator("#detail").getByText("Published.").waitFor();
  const sent = (await published).postData();
  assert.ok(sent.includes("{\"id\": 12345678901234567890, \"amount\": 1.10}"), `not what was typed: ${sent}`);
  assert.deepEqual(page.wrong, []);
});

test("a read-only console has no actions, and a silent node is shown", limit, async (t) => {
  const { origin, stop } = await start("127.0.0.1:0", "-nodes", "3", "-conns", "30", "-silent", "-readonly");
  t.after(stop);
  const page = await open(origin);
  await page.locator("#state.bad").getByText("3 nodes, 1 silent").waitFor();
  await page.locator("#nodes").getByText("silent").waitFor();
  await page.getByText("read only").waitFor();
  await page.locator("#channels tbody button.open").first().click();
  await page.locator("#detail tbody tr").first().waitFor();
  assert.equal(await page.locator("#publish-event").count(), 0);
  assert.deepEqual(page.wrong, []);
});

test("10,000 connections on three nodes, on a phone and a desktop, light and dark", limit, async (t) => {
  const { origin, stop } = await start("127.0.0.1:0", "-nodes", "3", "-conns", "10000");
  t.after(stop);
  await Promise.all([["desktop", 1280, 900], ["phone", 390, 844]].flatMap(([name, width, height]) => ["light", "dark"].map(async (colorScheme) => {
    const phone = name === "phone";
    const page = await open(origin, { viewport: { width, height }, colorScheme, isMobile: phone, hasTouch: phone, deviceScaleFactor: phone ? 2 : 1 });
    await page.locator("#conns tbody tr").nth(20).waitFor({ state: "attached" });
    await page.locator("#ends tbody tr").nth(5).waitFor();
    await page.waitForFunction(() => document.querySelector(".tile polyline").getAttribute("points")?.split(" ").length > 6);
    await page.waitForFunction(() => [...document.querySelectorAll(".tile output")].every((tile) => tile.textContent !== "–"));
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(wide <= 0, `${name} is ${wide} px too wide`);
    await page.screenshot({ path: path.join(screenshots, `console-${name}-${colorScheme}.png`) });
    await page.locator("#conns tbody button.open").first().click();
    await page.locator("#detail dl").waitFor();
    await page.getByRole("button", { name: "Watch" }).click();
    await page.locator("#detail").getByText(/Watching until/).waitFor();
    await page.locator("#detail td", { hasText: "event" }).first().waitFor();
    await page.screenshot({ path: path.join(screenshots, `console-${name}-${colorScheme}-connection.png`) });
    assert.deepEqual(await page.evaluate(() => window.reports), []);
    assert.deepEqual(page.wrong, []);
    await page.context().close();
  })));
});

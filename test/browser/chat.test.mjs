import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { enter, line, log, person, room, say } from "./chat.mjs";
import { build, desktop, launch, look, open, patience, phone, screenshots, start } from "./example.mjs";
import { after, before, test } from "./suite.mjs";

process.env.PUSHY_SECRET_KEY = "a secret of the tests, the same after a restart";
const limit = { timeout: 5 * patience };
let browser;

before(async () => {
  build();
  browser = await launch();
}, limit);
after(() => browser?.close());

// chat starts the example for one test.
async function chat(t) {
  const example = await start();
  t.after(() => example.stop());
  return example;
}

test("two people chat", limit, async (t) => {
  const { origin } = await chat(t);
  const ada = await open(browser, origin, desktop);
  const grace = await open(browser, origin, phone);
  await look({ desktop: ada, phone: grace }, "welcome");

  await enter(ada, "Ada");
  await enter(grace, "Grace");
  for (const page of [ada, grace]) {
    await person(page, page === ada ? "Grace" : "Ada").waitFor();
    assert.equal(await page.locator("#people li").count(), 2);
  }

  await say(ada, "Good morning! Is this thing on?");
  await line(grace, "Good morning! Is this thing on?").waitFor();
  await say(grace, "Loud and clear.");
  await line(ada, "Loud and clear.").waitFor();
  await say(grace, "Two tabs, one server. Shall we let the dice decide who makes the coffee?");
  await line(ada, /^Two tabs/).waitFor();
  assert.deepEqual(await log(ada).locator(".entry.mine .text").allTextContents(), ["Good morning! Is this thing on?"]);
  assert.deepEqual(await log(ada).locator(".entry:not(.mine) strong").allTextContents(), ["Grace", "Grace"]);

  await ada.getByRole("button", { name: "Roll two dice" }).click();
  const rolls = await Promise.all([ada, grace].map((page) => log(page).getByText(/^rolled \d+$/).textContent()));
  assert.equal(rolls[0], rolls[1]);
  const faces = await log(grace).locator(".die").evaluateAll((dice) => dice.map((die) => Number(die.ariaLabel)));
  assert.equal(faces.length, 2);
  assert.equal(`rolled ${faces[0] + faces[1]}`, rolls[0]);

  await grace.getByRole("button", { name: "Announce" }).click();
  for (const page of [ada, grace]) await line(page, "Announcement requested by Grace").waitFor();
  await look({ desktop: ada, phone: grace }, "lobby");

  const hostile = "<img src=x onerror=alert(1)>";
  await say(grace, hostile);
  for (const page of [ada, grace]) {
    await line(page, hostile).waitFor();
    assert.equal(await log(page).locator("img").count(), 0);
  }

  t.diagnostic(`screenshots are in ${screenshots}`);

  // The rooms are separate: messages in the lounge do not appear in the lobby.
  for (const page of [ada, grace]) await room(page, "Private lounge");
  await line(ada, "You joined").waitFor();
  await line(ada, "Grace joined").waitFor();
  await say(ada, "Psst. Over here.");
  await line(grace, "Psst. Over here.").waitFor();
  await say(grace, "Cosy.");
  await line(ada, "Cosy.").waitFor();
  await look({ desktop: ada, phone: grace }, "lounge");

  await grace.close();
  await line(ada, "Grace left").waitFor();
  await person(ada, "Grace").waitFor({ state: "detached" });
  await room(ada, "Lobby");
  assert.equal(await line(ada, "Psst. Over here.").count(), 0);
  assert.deepEqual(ada.wrong, []);
  assert.deepEqual(grace.wrong, []);
});

test("two tabs of one browser are two people", limit, async (t) => {
  const { origin } = await chat(t);
  const ada = await open(browser, origin, desktop);
  const grace = await ada.context().newPage();
  await grace.goto(origin);
  await enter(ada, "Ada");
  await enter(grace, "Grace");
  await say(ada, "I am Ada");
  await log(grace).locator(".entry", { hasText: "I am Ada" }).getByText("Ada", { exact: true }).waitFor();
  await ada.getByRole("button", { name: "Announce" }).click();
  await line(grace, "Announcement requested by Ada").waitFor();

  // A tab that is reloaded is the same person, shows the last lines again, and nobody notices.
  await ada.reload();
  await person(ada, "Ada (you)").waitFor();
  await line(ada, "I am Ada").waitFor();
  await line(ada, "Announcement requested by Ada").waitFor();
  for (const page of [ada, grace]) await room(page, "Private lounge");
  await say(ada, "I was never away");
  await line(grace, "I was never away").waitFor();
  for (const note of ["Ada left", "Ada joined"]) assert.equal(await line(grace, note).count(), 0, note);
  assert.deepEqual(ada.wrong, []);
});

test("reconnects after a restart of the server", limit, async (t) => {
  const first = await start();
  const ada = await open(browser, first.origin, desktop);
  const grace = await open(browser, first.origin, phone);
  await enter(ada, "Ada");
  await enter(grace, "Grace");
  await say(ada, "Before");
  await line(grace, "Before").waitFor();
  await first.stop();
  for (const page of [ada, grace]) await page.hasShown("Reconnecting…");
  await say(ada, "to nobody");
  await ada.hasShown("Not connected. Try again in a moment.");
  await look({ desktop: ada, phone: grace }, "reconnecting");

  const second = await start(new URL(first.origin).host);
  t.after(() => second.stop());
  for (const page of [ada, grace]) await page.getByRole("status").getByText("Connected").waitFor();
  // The new server has neither the old members nor the messages of before.
  for (const page of [ada, grace]) {
    await person(page, page === ada ? "Grace" : "Ada").waitFor();
    await page.waitForFunction(() => document.querySelectorAll("#people li").length === 2);
    await line(page, "The server has lost earlier messages.").waitFor();
    await line(page, "Before").waitFor();
  }
  assert.equal(await ada.getByLabel("Message").inputValue(), "to nobody", "what was not sent is still there");
  for (const [from, to] of [[ada, grace], [grace, ada]]) {
    const name = from === ada ? "Ada" : "Grace";
    for (const n of [1, 2, 3]) await say(from, `${name} again ${n}`);
    await line(to, `${name} again 3`).waitFor();
    assert.equal(await log(to).getByText(`${name} again`).count(), 3);
  }
});

test("a newcomer sees the last 50 lines", limit, async (t) => {
  const { origin } = await chat(t);
  const ada = await open(browser, origin, desktop);
  await enter(ada, "Ada");
  for (let n = 1; n <= 55; n++) await say(ada, `Line ${n}`);
  await room(ada, "Private lounge");
  await say(ada, "In the lounge");
  await line(ada, "In the lounge").waitFor();
  await room(ada, "Lobby");
  await line(ada, "Line 55").waitFor();

  const grace = await open(browser, origin, phone);
  await enter(grace, "Grace");
  await line(grace, "Line 55").waitFor();
  const texts = await log(grace).locator(".text").allTextContents();
  assert.deepEqual(texts, Array.from({ length: 50 }, (_, i) => `Line ${i + 6}`));
  await room(grace, "Private lounge");
  await line(grace, "In the lounge").waitFor();
  assert.equal(await log(grace).locator("> *").last().textContent(), "You joined", "after what was said before");
  await say(ada, "News");
  await grace.getByRole("navigation").getByText("1", { exact: true }).waitFor(); // what is old is not unread
  assert.deepEqual(grace.wrong, []);
});

test("a page of another origin cannot connect", limit, async (t) => {
  const { origin } = await chat(t);
  const elsewhere = createServer((_, response) => {
    response.setHeader("Content-Type", "text/html");
    response.end("<!doctype html><title>Elsewhere</title>");
  });
  elsewhere.listen(0, "127.0.0.1");
  await once(elsewhere, "listening");
  t.after(() => elsewhere.close());

  // Both pages are in one browser: Mallory's page has Ada's cookie and her id.
  const ada = await open(browser, origin, desktop);
  await enter(ada, "Ada");
  const { id } = JSON.parse(await ada.evaluate(() => sessionStorage.getItem("me")));
  const mallory = await ada.context().newPage();
  await mallory.goto(`http://127.0.0.1:${elsewhere.address().port}/`);
  const [cookie] = await ada.context().cookies(mallory.url());
  assert.equal(cookie.name, `chat-${id}`);

  const connect = ([origin, id]) => new Promise((resolve) => {
    const ws = new WebSocket(`${origin.replace("http", "ws")}/pushy/socket/websocket?id=${id}`);
    ws.onmessage = ({ data }) => resolve(JSON.parse(data).event);
    ws.onclose = ({ code }) => resolve(code);
    ws.onopen = () => ws.send(JSON.stringify({ command: "subscribe", data: { channel: "lobby" } }));
  });
  const socketError = mallory.waitForEvent("websocket").then((ws) => ws.waitForEvent("socketerror"));
  assert.equal(await mallory.evaluate(connect, [origin, id]), 1006);
  assert.match(await socketError, /\b403\b/);
  assert.equal(await ada.evaluate(connect, [origin, id]), "pushy:connect", "the same from the chat's own page");

  for (const path of ["/announce", "/login", "/auth"]) {
    const answer = mallory.waitForResponse((response) => new URL(response.url()).pathname === path);
    await mallory.evaluate(async (url) => {
      const body = new URLSearchParams({ name: "Mallory" });
      await fetch(url, { method: "POST", mode: "no-cors", credentials: "include", body });
    }, `${origin}${path}?id=${id}`);
    assert.equal((await answer).status(), 403, path);
  }
  await say(ada, "Still alone here");
  await line(ada, "Still alone here").waitFor();
  assert.equal(await log(ada).locator("> *").count(), 1);
  assert.equal(await ada.locator("#people li").count(), 1);
});

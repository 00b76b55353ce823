// The chat in Firefox, over WebDriver BiDi, with a WebSocket and with streaming. And the client
// with refusals, with a gateway, and with pages that are kept for the back button.
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import { build as buildServer, start as startServer } from "../../client/test/server.js";
import { build, launchFirefox, patience, start } from "./example.mjs";
import { after, before, test } from "./suite.mjs";

const limit = { timeout: 2 * patience };
let browser;

before(async () => {
  build();
  buildServer();
  browser = await launchFirefox();
}, limit);
after(() => browser?.close());

async function enter(origin, name, script) {
  const page = await (await browser.createBrowserContext()).newPage();
  page.setDefaultTimeout(patience);
  page.wrong = [];
  page.on("pageerror", (error) => /can’t establish/.test(error) || page.wrong.push(String(error))); // Firefox reports a blocked WebSocket so
  const asked = new Set();
  page.on("request", (request) => asked.add(new URL(request.url()).pathname.split("/").at(-1)));
  page.transports = () => [...asked].filter((name) => name.startsWith("xhr")).sort();
  if (script) await page.evaluateOnNewDocument(script);
  await page.goto(origin);
  await page.type("#name", name);
  await page.click("#login .primary");
  page.shows = (selector, text) => page.waitForFunction(
    (selector, text) => [...document.querySelectorAll(selector)].some((node) => node.textContent === text), {}, selector, text);
  page.say = async (text) => {
    await page.type("#text", text);
    await page.keyboard.press("Enter");
  };
  await page.shows("#people li span", `${name} (you)`);
  return page;
}

// Blocks WebSockets, as some proxies do.
function noWebSockets() {
  const real = window.WebSocket;
  window.WebSocket = class extends real {
    constructor(url) {
      super(url.replace("/websocket", "/walled-off"));
    }
  };
}

// Together, because they wait for the grace period.
test("the chat", { ...limit, concurrency: 2 }, (t) => Promise.all(
  [["a WebSocket", undefined, []], ["streaming", noWebSockets, ["xhr_send", "xhr_streaming"]]].map(([how, script, transports]) => t.test(how, limit, async (t) => {
    let server = await start();
    t.after(() => server.stop());
    const ada = await enter(server.origin, "Ada", script), grace = await enter(server.origin, "Grace", script);
    await ada.shows("#people li span", "Grace");
    for (let n = 1; n <= 20; n++) await (n % 2 ? ada : grace).say(`Line ${n}`);
    for (const page of [ada, grace]) {
      await page.shows(".log:not([hidden]) .text", "Line 19");
      await page.shows(".log:not([hidden]) .text", "Line 20");
      assert.equal(await page.$$eval(".text", (nodes) => nodes.length), 20);
      assert.deepEqual(page.transports(), transports);
    }
    await grace.close();
    await ada.shows(".log .note", "Grace left");

    const host = new URL(server.origin).host;
    await server.stop();
    await ada.waitForFunction(() => document.querySelector("#state").textContent.startsWith("Reconnecting"));
    server = await start(host);
    await ada.shows("#state", "Connected");
    await ada.shows("#people li span", "Ada (you)");
    await ada.say("Back again");
    await ada.shows(".text", "Back again");
    assert.deepEqual(ada.transports(), transports);
    assert.deepEqual(ada.wrong, []);
    await ada.close();
  })),
));

/** Opens a page with a client, and a list of the client's states. */
async function visit(origin, name) {
  const page = await (await browser.createBrowserContext()).newPage();
  page.setDefaultTimeout(patience);
  await page.goto(origin);
  page.begin = () => page.evaluate((name) => {
    window.states = [];
    window.told = [];
    window.pushy = new Pushy("/pushy", { auth: `/auth?name=${name}`, minDelay: 1000, maxDelay: 1000 });
    pushy.on("state", (state) => states.push(state));
    const room = pushy.channel("private-room").subscribe(), news = pushy.channel("kept-news").subscribe();
    for (const event of ["pushy:member-added", "pushy:member-quit"]) room.on(event, (member) => told.push(`${event} ${member.name}`));
    news.on("news", ({ n }) => told.push(n));
    news.on("pushy:gap", () => told.push("gap"));
  }, name);
  await page.begin();
  /** Waits until the client has been in a state. The state can have passed before a poll sees it; the list keeps it. */
  page.reaches = (state) => page.waitForFunction((state) => states.some((one) => one.state === state), {}, state);
  page.members = (...names) => page.waitForFunction((names) =>
    JSON.stringify([...pushy.channel("private-room").members.values()].map(({ name }) => name).sort()) === names, {}, JSON.stringify(names));
  return page;
}

test("a page that is reloaded stays a member, one that loses its connection misses nothing, and disconnect is a leave", limit, async (t) => {
  const own = await startServer();
  t.after(() => own.stop());
  const grace = await visit(own.origin, "Grace"), ada = await visit(own.origin, "Ada");
  const subscribed = (page) => page.waitForFunction(() => ["private-room", "kept-news"].every((name) => pushy.channel(name).subscribed));
  for (const page of [grace, ada]) await subscribed(page);
  await grace.members("Ada", "Grace");
  const me = () => ada.evaluate(() => pushy.channel("private-room").memberId), id = await me();
  await grace.evaluate(() => told.splice(0));
  for (let n = 0; n < 2; n++) {
    await ada.reload();
    await ada.begin();
    await subscribed(ada);
    assert.equal(await me(), id);
    assert.equal(await ada.evaluate(() => sessionStorage.length), 0);
  }
  await grace.evaluate(() => pushy.exec("echo")); // answered after what was sent before
  assert.deepEqual(await grace.evaluate(() => told.splice(0)), []);
  assert.equal((await own.control("stats")).unsubscribed, 2, "the Unsubscribe hook only for kept-news, which is not private");

  const publish = (from, count) => own.control("publish", { channel: "kept-news", event: "news", from, count });
  await publish(0, 3);
  await ada.waitForFunction(() => told.includes(2));
  await own.control("cut");
  for (const page of [grace, ada]) await page.reaches("waiting");
  await publish(3, 20);
  await ada.waitForFunction(() => told.includes(22));
  await subscribed(ada);
  await publish(23, 2);
  await ada.waitForFunction(() => told.includes(24));
  assert.deepEqual(await ada.evaluate(() => told), Array.from({ length: 25 }, (_, n) => n));
  assert.equal(await me(), id);
  await subscribed(grace);
  await ada.evaluate(() => void pushy.disconnect());
  await grace.waitForFunction(() => told.includes("pushy:member-quit Ada"));
  for (const page of [grace, ada]) await page.close();
});

// Issue 11, number 33.
for (const status of [401, 403]) {
  test(`${status} to a connection is final`, limit, async (t) => {
    const own = await startServer();
    t.after(() => own.stop());
    await own.control("accept", { status });
    const ada = await visit(own.origin, "Ada");
    await ada.reaches("closed");
    const { code, reason } = await ada.evaluate(() => states.at(-1));
    assert.deepEqual([code, reason], [status, `HTTP ${status}`]);
    await own.control("accept");
    await ada.evaluate(() => void pushy.connect());
    await ada.members("Ada");
    await ada.close();
  });
}

// Issue 11, number 30.
test("a gateway that answers every request with a page causes no storm of requests", limit, async (t) => {
  const script = readFileSync(path.resolve(import.meta.dirname, "../../client/pushy.js"));
  let asked = 0;
  const web = createServer(({ url }, response) => {
    response.setHeader("Content-Type", "text/html; charset=utf-8");
    if (url === "/") return response.end('<!doctype html><link rel="icon" href="data:,"><script src="/pushy.js"></script>');
    if (url === "/pushy.js") return response.setHeader("Content-Type", "text/javascript").end(script);
    asked++;
    response.end("<!doctype html>\n<html>\n<h1>Hotel</h1>\n</html>\n");
  });
  web.listen(0, "127.0.0.1");
  await once(web, "listening");
  t.after(() => web.closeAllConnections() ?? web.close());
  const ada = await visit(`http://127.0.0.1:${web.address().port}`, "Ada"), began = Date.now();
  await ada.waitForFunction(() => states.filter(({ state }) => state === "waiting").length > 2);
  const seconds = (Date.now() - began) / 1000;
  t.diagnostic(`${asked} requests in ${seconds} s`);
  assert.ok(asked <= 12 + 6 * seconds, `${asked} requests in ${seconds} s`);
  await ada.close();
});

// Issue 11, number 32. Firefox keeps no page while it is automated, so the test dispatches the events.
test("a page that is kept for the back button is not a member until it is shown again", limit, async (t) => {
  const own = await startServer(undefined, "-grace", "2s");
  t.after(() => own.stop());
  const grace = await visit(own.origin, "Grace"), ada = await visit(own.origin, "Ada");
  await grace.members("Ada", "Grace");
  await ada.evaluate(() => dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true })));
  await grace.members("Grace");
  assert.equal(await ada.evaluate(() => states.at(-1).code), 4001);
  await ada.evaluate(() => dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true })));
  await grace.members("Ada", "Grace");
  for (const page of [grace, ada]) await page.close();
});

// The page of the game is in React, with the built bindings.
test("the game", limit, async (t) => {
  build("./examples/game");
  const { origin, stop } = await start();
  t.after(stop);
  const join = async (name) => {
    const page = await (await browser.createBrowserContext()).newPage();
    page.setDefaultTimeout(patience);
    page.wrong = [];
    page.on("pageerror", (error) => page.wrong.push(String(error)));
    page.on("console", (message) => message.type() === "error" && page.wrong.push(message.text()));
    await page.goto(origin);
    await page.type("#name", name);
    await page.keyboard.press("Enter");
    await page.waitForSelector("#scores .mine");
    return page;
  };
  const board = (page) => page.evaluate(() => Object.fromEntries([...document.querySelectorAll(".player:not(.gone)")].map(
    ({ title, style }) => [title, `${style.getPropertyValue("--x")} ${style.getPropertyValue("--y")}`])));
  const ada = await join("Ada"), grace = await join("Grace");
  for (const page of [ada, grace]) await page.waitForFunction(() => document.querySelectorAll(".player[title]:not([title=''])").length === 2);
  const places = await board(grace), [x, y] = places.Ada.split(" ").map(Number);
  // A player cannot move to the square of another.
  const [to, place] = [x < 5 ? ["Right", `${x + 1} ${y}`] : ["Left", `${x - 1} ${y}`], y < 5 ? ["Down", `${x} ${y + 1}`] : ["Up", `${x} ${y - 1}`]]
    .find(([, place]) => place !== places.Grace);
  await ada.keyboard.press(`Arrow${to}`);
  await grace.waitForFunction((place) => {
    const { style } = document.querySelector(".player[title=Ada]");
    return `${style.getPropertyValue("--x")} ${style.getPropertyValue("--y")}` === place;
  }, {}, place);
  // A reload is the same player, and the others do not see it.
  await ada.reload();
  await ada.waitForSelector("#scores .mine");
  assert.equal((await board(ada)).Ada, (await board(grace)).Ada);
  assert.deepEqual([ada.wrong, grace.wrong], [[], []]);
});

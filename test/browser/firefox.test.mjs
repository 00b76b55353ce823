// The chat in Firefox, over WebDriver BiDi: with a WebSocket, and by streaming.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import puppeteer from "puppeteer-core";
import { build, patience, start } from "./example.mjs";

const limit = { timeout: 2 * patience };
const profile = mkdtempSync(path.join(tmpdir(), "pushy-firefox-"));
let browser;

before(async () => {
  build();
  browser = await puppeteer.launch({
    browser: "firefox",
    executablePath: process.env.PUSHY_FIREFOX || "/usr/bin/firefox-esr",
    userDataDir: profile,
    headless: true,
    timeout: patience,
    protocolTimeout: patience,
  });
}, limit);
after(async () => {
  await browser?.close();
  rmSync(profile, { recursive: true, force: true });
});

async function enter(origin, name, script) {
  const page = await (await browser.createBrowserContext()).newPage();
  page.setDefaultTimeout(patience);
  page.wrong = [];
  page.on("pageerror", (error) => /can’t establish/.test(error) || page.wrong.push(String(error))); // Firefox's own remark on a wall
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

// As a wall does that lets no WebSocket through.
function noWebSockets() {
  const real = window.WebSocket;
  window.WebSocket = class extends real {
    constructor(url) {
      super(url.replace("/websocket", "/walled-off"));
    }
  };
}

for (const [how, script, transports] of [["a WebSocket", undefined, []], ["streaming", noWebSockets, ["xhr_send", "xhr_streaming"]]]) {
  test(`the chat over ${how}`, limit, async (t) => {
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
  });
}

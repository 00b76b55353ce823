// The client in Chromium, with a server that is restarted.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { run } from "../../client/test/processes.js";
import { launch, patience } from "./example.mjs";
import { buildServer, client, startServer } from "./page.mjs";
import { after, before, test, until } from "./suite.mjs";

const limit = { timeout: 2 * patience };
let browser;

before(async () => {
  buildServer();
  browser = await launch();
}, limit);
after(() => browser?.close());

async function server(t, ...how) {
  const started = await startServer(...how);
  t.after(() => started.stop());
  return started;
}

test("the server is killed and started again under two open pages", limit, async (t) => {
  const first = await server(t);
  const ann = await client(browser, first), bob = await client(browser, first, { name: "Bob" });
  const rooms = ["lobby", "private-Room"];
  for (const page of [ann, bob]) {
    for (const room of rooms) await page.room(room);
    await page.subscribed(...rooms);
  }
  for (const page of [ann, bob]) await page.has("private-room", "Ann", "Bob");
  const ids = await ann.evaluate(() => [...pushy.channel("private-room").members.keys()]);

  await first.kill();
  for (const page of [ann, bob]) await page.waitForFunction(() => !pushy.connected);
  const second = await server(t, first.host);
  for (const page of [ann, bob]) {
    await page.subscribed(...rooms);
    await page.has("private-room", "Ann", "Bob");
    await page.told();
  }
  const again = await ann.evaluate(() => [...pushy.channel("private-room").members.keys()]);
  assert.deepEqual(again, ids, "they are the same members");
  for (const channel of ["lobby", "private-room"]) await second.control("publish", { channel, event: "news", count: 100 });
  for (const page of [ann, bob]) {
    await page.hears("private-Room 99");
    const wanted = rooms.flatMap((room) => Array.from({ length: 100 }, (_, n) => `${room} ${n}`));
    assert.deepEqual((await page.told()).filter((line) => /\d$/.test(line)), wanted);
    // The server may have started between the attempts over WebSocket and over streaming.
    assert.match(await page.transport(), /^(websocket|streaming)$/);
  }
});

for (const [blocked, left] of [[["websocket"], "streaming"], [["websocket", "xhr_streaming"], "polling"]]) {
  test(`${blocked.join(" and ")} blocked: ${left}, and the page does not notice`, limit, async (t) => {
    const { origin, ...own } = await server(t, undefined, "-grace", "2s");
    const ann = await client(browser, { origin }, {
      more: true,
      async before(page) {
        await page.routeWebSocket("**/*", (ws) => ws.close());
        await page.route("**/socket/**", (route) => (blocked.includes(new URL(route.request().url()).pathname.split("/").at(-1)) ? route.abort() : route.continue()));
      },
    });
    const began = Date.now();
    await ann.room("lobby");
    await ann.room("private-room");
    await ann.subscribed("lobby", "private-room");
    const took = Date.now() - began;
    assert.equal(await ann.transport(), left);
    t.diagnostic(`${left} after ${took} ms`);
    assert.deepEqual((await ann.told()).slice(0, 3), ["connecting", "connected", "connect"]);
    await own.control("publish", { channel: "private-room", event: "news", count: 1000 });
    await ann.hears("private-room 999");
    assert.deepEqual(await ann.told(), Array.from({ length: 1000 }, (_, n) => `private-room ${n}`));
    assert.deepEqual(await ann.evaluate(async () => (await pushy.exec("echo", "é☃")).said), "é☃");

    // The next page remembers the transport.
    const next = await client(browser, { origin }, { context: ann.context(), more: true, before: (page) => page.routeWebSocket("**/*", (ws) => ws.close()) });
    await next.room("private-room");
    await next.has("private-room", "Ann", "Ann");
    assert.equal(await next.transport(), left);
    // A page that is closed is disconnected, over HTTP, too.
    await next.close();
    await ann.has("private-room", "Ann");
  });
}

test("the client gives up a WebSocket that receives nothing within 5 s", limit, async (t) => {
  const own = await server(t);
  const ann = await client(browser, own, {
    before: (page) => page.routeWebSocket("**/*", () => {}), // it opens, and no message arrives
  });
  const began = Date.now();
  await ann.room("lobby");
  await ann.subscribed("lobby");
  const took = Date.now() - began;
  t.diagnostic(`streaming after ${took} ms`);
  assert.equal(await ann.transport(), "streaming");
  assert.ok(took >= 3400, "the WebSocket had its time");
});

for (const seconds of [3, 60]) {
  test(`offline for ${seconds} s`, limit, async (t) => {
    const own = await server(t);
    const ann = await client(browser, own, { clock: true });
    await ann.room("private-room");
    await ann.subscribed("private-room");
    await ann.context().setOffline(true);
    await ann.waitForFunction(() => !navigator.onLine);
    const waits = ann.evaluate(() => pushy.exec("echo", "later").then(({ said }) => said, ({ code }) => code));
    // The client need not notice a short outage. In a long one the server does not answer the
    // command that the client sends when the network fails.
    await ann.clock.fastForward(seconds * 1000);
    if (seconds > 5) await ann.waitForFunction(() => !pushy.connected);
    await ann.context().setOffline(false);
    await ann.subscribed("private-room");
    await ann.has("private-room", "Ann");
    assert.match(await waits, /^(later|unknown)$/);
    await own.control("publish", { channel: "private-room", event: "news", count: 10 });
    await ann.hears("private-room 9");
    assert.equal((await ann.told()).filter((line) => line === "private-room 0").length, 1);
  });
}

test("wrong token, expired login, and recovery", limit, async (t) => {
  const own = await server(t);
  const ann = await client(browser, own);
  await ann.room("lobby");
  await own.control("auth", { status: 200 });
  await ann.room("private-room");
  await ann.hears("private-room subscribe-error Invalid credentials");
  await own.control("auth", { status: 403 });
  await ann.evaluate(() => pushy.channel("private-room").subscribe());
  await ann.hears("private-room auth-error 403");
  await ann.hears("private-room subscribe-error Authorization failed (403)");
  // The channel stays refused after a reconnect, and the other channels work.
  const { asked } = await own.control("close", { code: 3001 });
  await ann.waitForFunction(() => told.filter((line) => line === "connect").length === 2);
  await ann.subscribed("lobby");
  assert.equal((await own.control("stats")).asked, asked);
  await own.control("auth");
  await ann.evaluate(() => pushy.channel("private-room").subscribe());
  await ann.has("private-room", "Ann");
});

test("50 channels are subscribed again after a reconnect", limit, async (t) => {
  const own = await server(t);
  const ann = await client(browser, own);
  const names = Array.from({ length: 50 }, (_, n) => (n % 2 ? `private-${n}` : `public-${n}`));
  for (const name of names) await ann.room(name);
  await ann.subscribed(...names);
  await own.kill();
  await ann.waitForFunction(() => !pushy.connected);
  const again = await server(t, own.host);
  await ann.subscribed(...names);
  assert.deepEqual(await again.control("stats"), { asked: 1, channels: 50, compressed: 0, connections: 1, unsubscribed: 0 });
});

test("a long sleep: the page is frozen, its connections are lost, the server restarts, four hours pass", limit, async (t) => {
  const first = await server(t);
  const ann = await client(browser, first, { clock: true });
  await ann.room("lobby");
  await ann.room("private-room");
  await ann.subscribed("lobby", "private-room");
  const devtools = await ann.context().newCDPSession(ann);
  // A visible page cannot be frozen by its lifecycle, and headless pages are always visible. The
  // debugger stops all timers and events of the page as well.
  await devtools.send("Debugger.enable");
  const frozen = new Promise((resolve) => devtools.once("Debugger.paused", resolve));
  await devtools.send("Debugger.pause");
  const poke = ann.evaluate(() => 0);
  await frozen;
  await first.control("cut");
  await first.kill();
  const second = await server(t, first.host);
  await new Promise((resolve) => setTimeout(resolve, 1500)); // by now it would have reconnected
  assert.equal((await second.control("stats")).connections, 0, "a frozen page does nothing");
  await devtools.send("Debugger.resume");
  await poke;
  await ann.clock.fastForward("04:00:00");
  const began = Date.now();
  await ann.has("private-room", "Ann");
  await ann.subscribed("lobby", "private-room");
  t.diagnostic(`back ${Date.now() - began} ms after it was thawed`);
  await second.control("publish", { channel: "lobby", event: "news", count: 3 });
  await ann.hears("lobby 2");
  assert.equal((await second.control("stats")).connections, 1);
});

test("a page that the server removes does not reconnect", limit, async (t) => {
  const own = await server(t);
  const ann = await client(browser, own);
  await ann.room("lobby");
  await ann.subscribed("lobby");
  await own.control("close", { code: 3500 });
  await ann.hears("closed");
  await ann.evaluate(() => dispatchEvent(new Event("online")));
  assert.equal((await own.control("stats")).connections, 0);
  await ann.evaluate(() => void pushy.connect());
  await ann.subscribed("lobby");
});

for (const transport of ["websocket", "xhr-streaming", "xhr-polling"]) {
  test(`sockjs-client over ${transport}, and the original's calls`, limit, async (t) => {
    const own = await server(t, undefined, "-grace", "3s");
    const pages = [];
    for (const name of ["Ann", "Bob"]) {
      const page = await (await browser.newContext()).newPage();
      await page.goto(own.origin);
      await page.addScriptTag({ path: path.join(import.meta.dirname, "node_modules/sockjs-client/dist/sockjs.min.js") });
      // As in a page for the original client, except for the third argument.
      await page.evaluate(([name, transport]) => {
        const told = (window.told = []);
        function Sock(url) {
          return new SockJS(url, null, { transports: transport });
        }
        const pushy = (window.pushy = new Pushy(`${location.origin}/pushy/socket`, `/auth?name=${name}`, { SockJS: Sock }));
        pushy.bind("connect", (p) => told.push(`connect ${p === pushy && p.protocol}`)).bind("disconnect", (p) => told.push(`disconnect ${p === pushy}`));
        for (const room of ["lobby", "Lounge", "private-room", "Private-Vault"]) {
          const channel = pushy.channel(room);
          channel.bind("subscribe", (members) => told.push(`${room} subscribe ${members ? members.map((m) => m.name) : "-"}`));
          channel.bind("unsubscribe", () => told.push(`${room} unsubscribe`));
          channel.bind("subscribe-error", (reason) => told.push(`${room} ${reason}`));
          channel.bind("pushy:member-added", (member) => told.push(`${room} added ${member.name}`));
          channel.bind("pushy:member-quit", (member) => told.push(`${room} quit ${member.name}`));
          channel.bind("news", (data) => told.push(`${room} ${data.n}`));
          channel.subscribe();
        }
        pushy.exec("echo", { once: 1 });
        pushy.bind("echoed", (data) => told.push(`echoed ${JSON.stringify(data.said)}`));
      }, [name, transport]);
      page.hears = (line) => page.waitForFunction((line) => told.includes(line), line, { timeout: patience });
      pages.push(page);
      for (const room of ["private-room", "Private-Vault"]) await page.hears(`${room} subscribe ${pages.length > 1 ? "Ann,Bob" : "Ann"}`);
    }
    const [ann, bob] = pages;
    for (const line of [`connect ${transport}`, "lobby subscribe -", "Lounge subscribe -", "private-room added Bob", "Private-Vault added Bob", 'echoed {"once":1}']) {
      await ann.hears(line);
    }
    for (const channel of ["lobby", "LOUNGE", "private-room", "private-vault"]) await own.control("publish", { channel, event: "news", from: 7 });
    for (const room of ["lobby", "Lounge", "private-room", "Private-Vault"]) for (const page of pages) await page.hears(`${room} 7`);
    const heard = () => told.splice(0);
    await ann.evaluate(heard);
    await bob.evaluate(() => void pushy.channel("Private-Vault").unsubscribe());
    await bob.hears("Private-Vault unsubscribe");
    await ann.hears("Private-Vault quit Bob");
    await bob.close();
    await ann.hears("private-room quit Bob");
    assert.deepEqual(await ann.evaluate(heard), ["Private-Vault quit Bob", "private-room quit Bob"]);
    // Unlike the original client, it reconnects.
    await own.control("close", { code: 3001 });
    await ann.hears("private-room subscribe Ann");
    await ann.hears("Private-Vault subscribe Ann");
    assert.ok((await ann.evaluate(heard)).includes("disconnect true"));
  });
}

test("the program of the client's README works", limit, async (t) => {
  const own = await server(t), readme = readFileSync(new URL("../../client/README.md", import.meta.url), "utf8");
  const [, program] = readme.match(/```js\n([^]*?)```/);
  const page = await (await browser.newContext()).newPage(), lines = [];
  page.setDefaultTimeout(patience);
  page.on("console", (message) => lines.push(message.text()));
  page.on("pageerror", (error) => lines.push(String(error)));
  await page.goto(own.origin);
  await page.addScriptTag({
    type: "module",
    content: `${program.replace('"pushy-client"', '"/pushy/pushy.mjs"').replace('"/auth"', '"/auth?name=Ann"')}
      Object.assign(window, { lobby, room, total });`,
  });
  await page.waitForFunction(() => window.total === 8 && lobby.subscribed && room.subscribed);
  await page.evaluate(() => lobby.on("news", () => (window.heard = true)));
  await own.control("publish", { channel: "lobby", event: "news" });
  await page.waitForFunction(() => window.heard);
  const bob = await client(browser, own, { name: "Bob" });
  await bob.room("private-room");
  await bob.subscribed("private-room");
  await page.waitForFunction(() => room.members.size === 2);
  assert.deepEqual(lines.slice(-2), ["undefined", "Bob joined"], "the news has no title");
});

test("the first program of the README works", limit, async (t) => {
  const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
  const [, program] = readme.match(/```go\n(package main\n[^]*?)```/), [, html] = readme.match(/```html\n([^]*?)```/);
  const folder = mkdtempSync(path.join(tmpdir(), "pushy-readme-"));
  t.after(() => rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 250 }));
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const { port } = taken.address();
  taken.close();
  mkdirSync(path.join(folder, "public"));
  writeFileSync(path.join(folder, "public/index.html"), html);
  writeFileSync(path.join(folder, "main.go"), program.replace("127.0.0.1:8080", `127.0.0.1:${port}`));
  execFileSync("go", ["build", "-o", path.join(folder, "readme"), path.join(folder, "main.go")], { cwd: path.join(import.meta.dirname, "../.."), stdio: "inherit" });
  const child = run(path.join(folder, "readme"), [], { cwd: folder, stdio: "inherit", env: { ...process.env, PUSHY_SECRET_KEY: "the readme's own secret" } });
  t.after(() => child.end());
  const page = await (await browser.newContext({ locale: "eo" })).newPage();
  await child.started(until(() => page.goto(`http://127.0.0.1:${port}/`).then(() => true, () => false), "the program does not answer", Boolean));
  await page.waitForFunction(() => pushy.connected && lobby.subscribed);
  await page.getByRole("button", { name: "Wave" }).click();
  await page.getByText("eo waved").waitFor({ timeout: patience });
});

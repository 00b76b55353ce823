// The client in Chromium with faults: gateways that answer with pages, refusals, pages that the
// browser keeps, and transports that are blocked for some time.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import path from "node:path";
import { launch, patience } from "./example.mjs";
import { buildServer, client, startServer } from "./page.mjs";
import { after, before, test } from "./suite.mjs";

const limit = { timeout: 2 * patience };
const script = readFileSync(path.resolve(import.meta.dirname, "../../client/pushy.js"));
let browser;

before(async () => {
  buildServer();
  browser = await launch();
}, limit);
after(() => browser?.close());

async function server(t, ...flags) {
  const started = await startServer(undefined, ...flags);
  t.after(() => started.stop());
  return started;
}

const page = "<!doctype html>\n<html>\n<title>Log in</title>\n<h1>Hotel</h1>\n</html>\n";
const hello = 'o\na["{\\"event\\":\\"pushy:connect\\",\\"data\\":{\\"socketId\\":\\"s\\",\\"protocol\\":\\"xhr-streaming\\"}}"]\n';

/** A web server with the client, and a gateway in place of pushy. It counts requests by path. */
async function gateway(t, answer) {
  const asked = [];
  const web = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://h");
    if (pathname === "/pushy/pushy.js") return response.end(script);
    if (!pathname.startsWith("/pushy/")) {
      response.setHeader("Content-Type", "text/html; charset=utf-8");
      return response.end('<!doctype html><link rel="icon" href="data:,"><script src="/pushy/pushy.js"></script>');
    }
    asked.push(pathname.split("/").at(-1));
    answer(request, response, asked.length);
  });
  web.on("upgrade", (request, socket) => {
    asked.push("websocket");
    socket.end("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n");
  });
  web.listen(0, "127.0.0.1");
  await once(web, "listening");
  t.after(() => web.closeAllConnections() ?? web.close());
  return { origin: `http://127.0.0.1:${web.address().port}`, asked };
}

// Issue 11, number 30.
for (const [name, answer] of [
  ["a page", (_, response) => response.end(page)],
  ["an empty body", (_, response) => response.end()],
  ["no content", (_, response) => response.writeHead(204).end()],
  ["a heartbeat and the end", (_, response) => response.end("h\n")],
  ["an opening and the end", (_, response) => response.end("o\n")],
  ["a greeting and the end", (_, response) => response.end(hello)],
  ["a broken frame", (_, response) => response.end('a["\n')],
  ["a page for what is sent", ({ url }, response, n) => (url.includes("xhr_send") ? response.end(page) : n > 2 ? response.write("h\n") : response.end(hello))],
  ["a redirect to a page", (_, response) => response.writeHead(302, { Location: "/login" }).end()],
  ["a redirect to itself", ({ url }, response) => response.writeHead(307, { Location: url }).end()],
  ["a missing page", (_, response) => response.writeHead(404).end(page)],
]) {
  test(`${name} in place of every answer makes no storm`, limit, async (t) => {
    const { origin, asked } = await gateway(t, answer);
    const ann = await client(browser, { origin }, { options: { minDelay: undefined, maxDelay: undefined } });
    const began = Date.now();
    await ann.room("lobby");
    await ann.evaluate(() => void pushy.exec("hello"));
    // The number of requests until the third pause begins, or in five seconds.
    await ann.waitForFunction((began) => told.filter((line) => line === "waiting").length > 2 || Date.now() - began > 5000, began);
    const seconds = (Date.now() - began) / 1000;
    t.diagnostic(`${asked.length} requests in ${seconds} s`);
    assert.ok(asked.length >= 2, "it tries");
    assert.ok(asked.length <= 12 + 6 * seconds, `${asked.length} requests in ${seconds} s: ${asked}`);
    await ann.context().close();
  });
}

// Issue 11, number 33.
for (const status of [401, 403]) {
  test(`${status} to a connection is final, and can be seen`, limit, async (t) => {
    const own = await server(t);
    await own.control("accept", { status });
    const ann = await client(browser, own), warned = [];
    ann.on("console", (message) => message.type() === "warning" && warned.push(message.text()));
    await ann.evaluate(() => pushy.on("state", (state) => (window.last = state)));
    await ann.room("lobby");
    await ann.hears("closed");
    const { code, reason } = await ann.evaluate(() => last);
    assert.deepEqual([code, reason], [status, `HTTP ${status}`]);
    const { refusals } = await own.control("accept", { status });
    assert.equal(refusals, 2, "one WebSocket and one request");
    assert.deepEqual(warned, [], "the page listens");
    // If a page has no listener, the console shows the error.
    const bob = await client(browser, own, { name: "Bob" }), lines = [];
    bob.on("console", (message) => message.type() === "warning" && lines.push(message.text()));
    await bob.evaluate(() => {
      window.quiet = new Pushy("/pushy");
      quiet.channel("lobby").subscribe();
    });
    await bob.waitForFunction(() => quiet.state === "closed");
    await bob.evaluate(() => 0);
    assert.equal(lines.length, 1, `${lines}`);
    assert.match(lines[0], new RegExp(`^pushy: closed ${status} HTTP ${status}`));
    // The user has logged in.
    await own.control("accept");
    await ann.evaluate(() => void pushy.connect());
    await ann.subscribed("lobby");
  });

  test(`${status} after the login has ended`, limit, async (t) => {
    const own = await server(t);
    const ann = await client(browser, own);
    await ann.room("lobby");
    await ann.subscribed("lobby");
    await own.control("accept", { status });
    await own.control("close", { code: 3001 });
    await ann.hears("closed");
    await own.control("accept");
    await ann.evaluate(() => void pushy.connect());
    await ann.subscribed("lobby");
  });
}

// Issue 11, number 32.
test("a page that is kept for the back button is not a member until it is shown again", limit, async (t) => {
  const own = await server(t, "-grace", "2s");
  // Playwright disables the cache, and a page to which Playwright is connected is not kept.
  const keeper = await launch(["--enable-features=BackForwardCache"], { ignoreDefaultArgs: ["--disable-back-forward-cache"] });
  t.after(() => keeper.close());
  const watcher = await client(browser, own, { name: "Bob" });
  await watcher.room("private-room");
  await watcher.subscribed("private-room");
  const ann = await client(keeper, own);
  await ann.evaluate(() => {
    window.mark = "kept";
    addEventListener("pagehide", ({ persisted }) => (window.hidden = persisted));
  });
  await ann.room("private-room");
  await ann.subscribed("private-room");
  await watcher.has("private-room", "Ann", "Bob");
  await ann.goto("about:blank");
  await watcher.has("private-room", "Bob");
  await ann.goBack({ waitUntil: "commit" });
  const kept = await ann.evaluate(() => window.mark);
  t.diagnostic(kept ? "the browser kept the page" : "the browser did not keep the page");
  assert.equal(kept, "kept");
  await ann.subscribed("private-room");
  await watcher.has("private-room", "Ann", "Bob");
  const told = await ann.told();
  assert.ok(told.includes("disconnect"), `${told}`);
  assert.equal((await own.control("stats")).connections, 2);
});

// Issue 11, number 32: the same with dispatched events, without a browser that keeps the page.
test("pagehide with persisted closes the connection, and pageshow makes a new one", limit, async (t) => {
  const own = await server(t, "-grace", "2s");
  const ann = await client(browser, own), bob = await client(browser, own, { name: "Bob" });
  for (const one of [ann, bob]) {
    await one.room("private-room");
    await one.subscribed("private-room");
  }
  await bob.has("private-room", "Ann", "Bob");
  await ann.evaluate(() => dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true })));
  await bob.has("private-room", "Bob");
  assert.equal((await own.control("stats")).connections, 1);
  await ann.evaluate(() => dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true })));
  await bob.has("private-room", "Ann", "Bob");
});

// Issue 11, number 32.
test("after WebSockets were blocked, this page and the next use them again", limit, async (t) => {
  const own = await server(t);
  const blockOnce = (page) => page.addInitScript(() => {
    const Real = WebSocket;
    let blocked = !sessionStorage.getItem("blocked");
    window.WebSocket = class extends Real {
      constructor(url) {
        super(blocked ? url.replace("/websocket", "/walled-off") : url);
        if (blocked) sessionStorage.setItem("blocked", "once");
        blocked = false;
      }
    };
  });
  const ann = await client(browser, own, { before: blockOnce, more: true });
  await ann.room("private-room");
  await ann.subscribed("private-room");
  assert.equal(await ann.transport(), "streaming");
  await ann.waitForFunction(() => Object.keys(localStorage).some((key) => key.startsWith("pushy:") && JSON.parse(localStorage[key])[0] === "websocket"));
  assert.equal(await ann.transport(), "streaming", "the connection is left alone");
  assert.equal((await ann.told()).filter((line) => line === "disconnect").length, 0);
  const next = await client(browser, own, { context: ann.context(), more: true });
  await next.room("private-room");
  await next.subscribed("private-room");
  assert.equal(await next.transport(), "websocket");
  await own.control("close", { code: 3001 });
  await ann.waitForFunction(() => told.includes("disconnect"));
  await ann.subscribed("private-room");
  assert.equal(await ann.transport(), "websocket");
});

// Issue 11, number 31.
test("documents of all kinds find the server", limit, async (t) => {
  const own = await server(t);
  const ann = await client(browser, own);
  const connects = `
    const pushy = new Pushy("/pushy");
    pushy.on("connect", () => top.postMessage("connected " + pushy.transport, "*"));
    pushy.connect();`;
  const answers = await ann.evaluate(async ([origin, code]) => {
    const next = () => new Promise((resolve) => addEventListener("message", ({ data }) => resolve(data), { once: true }));
    const frame = async (set) => {
      const frame = document.createElement("iframe"), answer = next();
      set(frame);
      document.body.append(frame);
      return [await answer, frame.remove()][0];
    };
    const html = `<!doctype html><script src="${origin}/pushy/pushy.js"></scr` + `ipt><script>${code}</scr` + "ipt>";
    const all = [];
    all.push(await frame((frame) => (frame.srcdoc = html)));
    all.push(await frame((frame) => (frame.src = URL.createObjectURL(new Blob([html], { type: "text/html" })))));
    const blank = document.createElement("iframe"), answer = next();
    document.body.append(blank);
    blank.contentDocument.write(html);
    all.push(await answer);
    const base = document.createElement("iframe"), other = next();
    document.body.append(base);
    base.contentDocument.write(`<base href="${origin}/pushy/"><script src="pushy.js"></scr` + `ipt><script>${code.replace('"/pushy"', '"socket"')}</scr` + "ipt>");
    all.push(await other);
    // A worker from a blob has no document.
    const worker = new Worker(URL.createObjectURL(new Blob([`importScripts("${origin}/pushy/pushy.js");
      const pushy = new Pushy("/pushy"); pushy.on("connect", () => postMessage("connected " + pushy.transport)).connect();`])));
    all.push(await new Promise((resolve) => (worker.onmessage = ({ data }) => resolve(data))));
    return all;
  }, [own.origin, connects]);
  assert.deepEqual(answers, Array(5).fill("connected websocket"));
  const error = await ann.evaluate(() => {
    try {
      return new Pushy("http://ann:secret@h/pushy").state;
    } catch ({ name, message }) {
      return `${name} ${message}`;
    }
  });
  assert.match(error, /^TypeError pushy: "http:\/\/…@h\/pushy"/);
});

// Issue 11, number 33.
test("published events with the names of the client's own events", limit, async (t) => {
  const own = await server(t);
  const ann = await client(browser, own);
  await ann.room("lobby");
  await ann.subscribed("lobby");
  const before = await ann.told();
  await ann.evaluate(() => {
    window.published = [];
    for (const name of ["subscribe", "unsubscribe", "subscribe-error", "auth-error", "state", "connect"]) {
      pushy.channel("lobby").events.on(name, ({ n }) => published.push(`${name} ${n}`));
    }
  });
  const names = ["subscribe", "unsubscribe", "subscribe-error", "auth-error", "state", "connect", "news"];
  for (const event of names) await own.control("publish", { channel: "lobby", event, from: 7 });
  await ann.hears("lobby 7");
  assert.deepEqual(await ann.told(), ["lobby 7"], `after ${before}`);
  assert.deepEqual(await ann.evaluate(() => published), names.slice(0, -1).map((name) => `${name} 7`));
});

// Issue 11, number 13.
test("a message that is too large fails alone, over every transport", limit, async (t) => {
  const own = await server(t);
  for (const transport of ["websocket", "streaming", "polling"]) {
    const ann = await client(browser, own, { options: { transports: [transport] } });
    await ann.room("lobby");
    await ann.subscribed("lobby");
    const code = await ann.evaluate(() => pushy.exec("echo", "x".repeat(100_000)).catch(({ code }) => code));
    assert.equal(code, "too-large", transport);
    assert.equal(await ann.evaluate(async () => (await pushy.exec("echo", "small")).said), "small");
    await ann.subscribed("lobby");
    const lost = (await ann.told()).filter((line) => line === "disconnect").length;
    assert.equal(lost, transport === "websocket" ? 1 : 0, transport);
    await ann.context().close();
  }
});

// Pages of other origins can do nothing unless the server lists them. The test tries every way in
// which a page can make a request, in a browser.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { build, launch, open, patience, severalOf, start } from "./example.mjs";
import { after, before, test, until } from "./suite.mjs";

const limit = { timeout: 3 * patience };
const pages = [];
let browser, server;

async function serve(host) {
  const page = createServer((_, response) => {
    response.setHeader("Content-Type", "text/html");
    response.end('<!doctype html><title>Elsewhere</title><link rel="icon" href="data:,"><body></body>');
  });
  page.listen(0, "127.0.0.1");
  await once(page, "listening");
  pages.push(page);
  return `http://${host}:${page.address().port}`;
}

before(async () => {
  build("./test/sockjs");
  browser = await launch();
}, limit);
after(async () => {
  await browser?.close();
  for (const page of pages) page.close();
});

// The ways to open a session: func runs in the page, with the server's origin and an id for the
// session. If the page is allowed, each opens a session, except the iframe page.
const ways = [
  { name: "fetch without CORS", opens: true, func: async ([origin, id]) => {
    await fetch(`${origin}/pushy/socket/0/${id}/xhr`, { method: "POST", mode: "no-cors", credentials: "include" });
  } },
  { name: "fetch with CORS", opens: true, func: async ([origin, id]) => {
    await fetch(`${origin}/pushy/socket/0/${id}/xhr`, { method: "POST", credentials: "include" }).catch(() => {});
  } },
  { name: "fetch after a preflight", opens: true, func: async ([origin, id]) => {
    const headers = { "Content-Type": "application/json" };
    await fetch(`${origin}/pushy/socket/0/${id}/xhr`, { method: "POST", headers, credentials: "include" }).catch(() => {});
  } },
  { name: "form", opens: true, func: async ([origin, id]) => {
    const frame = document.createElement("iframe");
    frame.name = id;
    document.body.append(frame);
    const form = document.body.appendChild(document.createElement("form"));
    Object.assign(form, { method: "POST", action: `${origin}/pushy/socket/0/${id}/xhr`, target: id });
    form.submit();
  } },
  { name: "script", opens: true, func: ([origin, id]) => {
    window.cb = () => {};
    const script = document.createElement("script");
    script.src = `${origin}/pushy/socket/0/${id}/jsonp?c=cb`;
    document.body.append(script);
  } },
  { name: "EventSource", opens: true, func: ([origin, id]) => {
    new EventSource(`${origin}/pushy/socket/0/${id}/eventsource`, { withCredentials: true });
  } },
  { name: "WebSocket", opens: true, func: ([origin, id]) => {
    new WebSocket(`${origin.replace("http", "ws")}/pushy/socket/0/${id}/websocket`);
  } },
  { name: "bare WebSocket", opens: true, func: ([origin]) => {
    new WebSocket(`${origin.replace("http", "ws")}/pushy/socket/websocket`);
  } },
  { name: "iframe of a transport", opens: true, func: ([origin, id]) => {
    const frame = document.body.appendChild(document.createElement("iframe"));
    frame.src = `${origin}/pushy/socket/0/${id}/htmlfile?c=cb`;
  } },
  { name: "the iframe page", opens: false, func: ([origin]) => {
    const frame = document.body.appendChild(document.createElement("iframe"));
    frame.src = `${origin}/pushy/socket/iframe.html`;
  } },
];

// The ways to send to a session whose id is known.
const sends = [
  { name: "fetch", func: async ([origin, id, mark]) => {
    const body = JSON.stringify([mark]);
    await fetch(`${origin}/pushy/socket/0/${id}/xhr_send`, { method: "POST", mode: "no-cors", credentials: "include", body });
  } },
  { name: "beacon", func: ([origin, id, mark]) => {
    navigator.sendBeacon(`${origin}/pushy/socket/0/${id}/xhr_send`, JSON.stringify([mark]));
  } },
  { name: "form", func: ([origin, id, mark]) => {
    const form = document.body.appendChild(document.createElement("form"));
    const frame = document.createElement("iframe");
    frame.name = `of-${id}`;
    document.body.append(frame);
    Object.assign(form, { method: "POST", action: `${origin}/pushy/socket/0/${id}/jsonp_send`, target: frame.name });
    const field = form.appendChild(document.createElement("input"));
    Object.assign(field, { name: "d", value: JSON.stringify([mark]) });
    form.submit();
  } },
];

const mark = JSON.stringify({ command: "mark" });
const seen = async () => (await fetch(`${server.origin}/seen`)).json();
let ids = 0;

// attempt tries one way in a document of a page, and returns the status of the answer. It is also
// 403 if the browser does not give the answer to the page, and 101 for WebSockets.
async function attempt(page, where, { name, func }, id) {
  const answer = name.includes("WebSocket")
    ? page.waitForEvent("websocket").then((ws) => Promise.race([
      ws.waitForEvent("framereceived").then(() => 101),
      ws.waitForEvent("socketerror").then((error) => Number(error.match(/\b\d{3}\b/)[0])),
    ]))
    : Promise.race([
      page.waitForResponse((response) => response.url().startsWith(`${server.origin}/pushy/`)).then((response) => response.status()),
      page.waitForEvent("requestfailed", (request) => request.url().startsWith(`${server.origin}/pushy/`)).then(() => 403),
    ]);
  const [status] = await Promise.all([answer, where.evaluate(func, [server.origin, id, mark])]);
  return status;
}

// nullOrigin returns a document within the page whose origin is null.
async function nullOrigin(page) {
  const handle = await page.evaluateHandle(() => {
    const frame = document.createElement("iframe");
    frame.sandbox = "allow-scripts allow-forms";
    frame.srcdoc = "<!doctype html><body></body>";
    return new Promise((resolve) => {
      frame.onload = () => resolve(frame);
      document.body.append(frame);
    });
  });
  return handle.asElement().contentFrame();
}

test("pages of origins that are not listed, and of one that is listed", severalOf(4, limit), async (t) => {
  const friend = await serve("127.0.0.1");
  server = await start("127.0.0.1:0", "-origins", friend);
  t.after(() => server.stop());

  // A page of the server's own origin polls, and the other pages know its session.
  const victim = "the-id-that-all-know";
  const headers = { Origin: server.origin };
  const poll = async () => (await fetch(`${server.origin}/pushy/socket/0/${victim}/xhr`, { method: "POST", headers })).text();
  assert.equal(await poll(), "o\n");
  let done = false;
  t.after(() => { done = true; });
  const polling = (async () => {
    while (!done) assert.match(await poll(), /^[ah]/);
  })();

  // each tries every way in a new page, and passes the result to check.
  const each = async (ways, url, id, check, prepare = (page) => page) => {
    for (const way of ways) {
      const page = await open(browser, url);
      const before = await seen();
      await check(way, await attempt(page, await prepare(page), way, id ?? `session-${++ids}`), before);
      await page.context().close();
    }
  };
  const refused = async ({ name }, status, before) => {
    assert.equal(status, 403, name);
    const now = await seen();
    assert.deepEqual([now.opened, now.marks], [before.opened, before.marks], name);
    assert.ok(now.refused > before.refused, `${name} was not counted`);
  };

  for (const [name, host, prepare] of [
    ["another port", "127.0.0.1"], ["another site", "localhost"], ["no origin", "127.0.0.1", nullOrigin],
  ]) {
    await t.test(`a page of ${name} gets in nowhere`, limit, async () => {
      const url = await serve(host);
      await each(ways, url, undefined, refused, prepare);
      await each(sends, url, victim, refused, prepare);
    });
  }

  await t.test("a page of a listed origin can open sessions, but cannot send to those of other pages", limit, async () => {
    await each(ways, friend, undefined, async ({ name, opens }, status, before) => {
      assert.ok(status < 300, `${name}: ${status}`);
      const want = before.opened + (opens ? 1 : 0);
      await until(async () => (await seen()).opened, name, (opened) => opened >= want); // the Connect hook runs concurrently with the answer
      assert.equal((await seen()).opened, want, name);
    });
    await each(sends, friend, victim, async ({ name }, status, before) => {
      assert.equal(status, 404, name);
      assert.equal((await seen()).marks, before.marks, name);
    });
  });

  const { marks } = await seen();
  const body = JSON.stringify([mark]);
  await fetch(`${server.origin}/pushy/socket/0/${victim}/xhr_send`, { method: "POST", headers, body });
  await until(async () => (await seen()).marks, "the message of the session's own page does not arrive", (now) => now !== marks);
  done = true;
  await polling;
});

// Streams for pages of other origins, with the user's cookie, and with the header fields of htmx 4 and Datastar.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { launch, patience } from "./example.mjs";
import { buildSite, pause, startSite, until } from "./ssesite.mjs";
import { after, before, test } from "./suite.mjs";

const limit = { timeout: 5 * patience };
const elsewhere = [];
let browser, site, foreign, listed;

// serve serves a page of another origin, which is of the same site, so the browser sends it the cookies of the
// server. Its content is page.html.
async function serve() {
  const page = createServer((_, response) => {
    response.setHeader("Content-Type", "text/html");
    response.end(`<!doctype html><title>Elsewhere</title><link rel="icon" href="data:,">${page.html ?? ""}`);
  });
  page.listen(0, "127.0.0.1");
  await once(page, "listening");
  elsewhere.push(page);
  page.origin = `http://127.0.0.1:${page.address().port}`;
  return page;
}

before(async () => {
  [foreign, listed] = [await serve(), await serve()];
  buildSite();
  site = await startSite(undefined, "-origin", listed.origin);
  browser = await launch();
}, limit);
after(async () => {
  await browser?.close();
  await site?.stop();
  for (const page of elsewhere) page.close();
});

// context returns a context of the browser in which the user has a session.
async function context(user) {
  const own = await browser.newContext();
  if (user) {
    const page = await own.newPage();
    await page.goto(await site.page("login", ""));
    await page.evaluate((user) => fetch(`/login?user=${user}`, { method: "POST" }), user);
    await page.close();
  }
  return own;
}

// listen opens an EventSource in a page, and returns what it has received when it has opened or failed.
const listen = (page, url) => page.evaluate((url) => new Promise((resolve) => {
  window.got = [];
  const events = new EventSource(url, { withCredentials: true });
  events.addEventListener("pushy:open", () => resolve("open"));
  events.addEventListener("text", (e) => got.push(e.data));
  events.onerror = () => resolve(events.readyState === EventSource.CLOSED ? "closed" : "error");
}), url);

const statusOf = async (t) => (await until(() => site.requests(t), "no request", (all) => all.at(-1)?.status)).map(({ status }) => status);

test("the cookie of the user opens a private channel, and nothing else does", limit, async () => {
  const page = await (await context("ann")).newPage();
  await page.goto(await site.page("ann", ""));
  assert.equal(await listen(page, "/pushy/events?channel=private-ann&t=own"), "open");
  assert.equal(await site.members("private-ann"), 1);
  await site.publish("private-ann", "text", "for ann");
  await until(() => page.evaluate(() => got), "no event", (all) => all[0] === "for ann");
  assert.equal(await listen(page, "/pushy/events?channel=private-bob&t=bob"), "closed");
  assert.deepEqual(await statusOf("bob"), [403]);
  const nobody = await (await context()).newPage();
  await nobody.goto(await site.page("nobody", ""));
  assert.equal(await listen(nobody, "/pushy/events?channel=private-ann&t=nobody"), "closed");
  assert.deepEqual(await statusOf("nobody"), [401]);
  assert.equal(await site.members("private-ann"), 1);
  assert.equal(await site.members("private-bob"), 0);
  await Promise.all([page.close(), nobody.close()]);
});

test("a page of another origin has no subscription with the user's cookie; a listed one has", limit, async () => {
  const own = await context("eve");
  const page = await own.newPage();
  await page.goto(foreign.origin);
  const url = `${site.origin}/pushy/events?channel=private-eve`;
  assert.equal(await listen(page, `${url}&t=foreign`), "closed");
  assert.deepEqual(await statusOf("foreign"), [403]);
  for (const mode of ["no-cors", "cors"]) {
    const answer = await page.evaluate(([url, mode]) => fetch(url, { mode, credentials: "include" }).then((r) => r.type, String), [`${url}&t=${mode}`, mode]);
    assert.equal(answer, mode === "cors" ? "TypeError: Failed to fetch" : "opaque");
    assert.deepEqual(await statusOf(mode), [403]);
  }
  await page.evaluate((url) => { document.body.append(Object.assign(new Image(), { src: `${url}&t=image` })); }, url);
  await pause(1000);
  assert.equal(await site.members("private-eve"), 0);

  await page.goto(listed.origin);
  assert.equal(await listen(page, `${url}&t=listed`), "open");
  assert.deepEqual(await statusOf("listed"), [200]);
  assert.equal(await site.members("private-eve"), 1);
  await site.publish("private-eve", "text", "for eve");
  await until(() => page.evaluate(() => got), "no event", (all) => all[0] === "for eve");
  await page.close();
  await until(() => site.members("private-eve"), "it stays", (n) => n === 0);
});

const htmx4 = (t) => `<meta name="htmx-config" content='{"mode":"cors"}'>
  <script src="${site.origin}/files/node_modules/htmx.org/dist/htmx.min.js"></script>
  <script src="${site.origin}/files/node_modules/htmx.org/dist/ext/hx-sse.min.js"></script>
  <p id="last" hx-sse:connect="${site.origin}/pushy/events?channel=kept&names=none&t=${t}">first</p>`;

test("the header fields of htmx 4 pass the preflight for a listed origin, also of a reconnect", limit, async () => {
  const page = await (await browser.newContext()).newPage();
  listed.html = htmx4("htmx");
  await page.goto(listed.origin);
  const shows = (text) => page.locator("#last").getByText(text, { exact: true }).waitFor({ timeout: patience });
  await until(() => site.requests("htmx"), "it does not connect", (all) => all.at(-1)?.status === 200);
  await pause(300);
  await site.publish("kept", "text", "one");
  await shows("one");
  await site.act("cut");
  await site.publish("kept", "text", "two");
  await shows("two");
  const requests = await site.requests("htmx");
  assert.ok(requests.some(({ status }) => status === 204), "there was no preflight");
  assert.match(requests.at(-1).lastId, /^[\w-]+\.\d+$/);
  foreign.html = htmx4("foreign-htmx");
  await page.goto(foreign.origin);
  assert.ok((await statusOf("foreign-htmx")).every((status) => status === 403));
  assert.equal(await page.locator("#last").innerHTML(), "first");
  await page.close();
});

test("the header fields of Datastar pass the preflight for a listed origin", limit, async () => {
  const page = await (await browser.newContext()).newPage();
  // What Datastar sends, which is no package of npm in version 1.0.
  const ask = (t) => page.evaluate(async (url) => {
    const abort = new AbortController();
    try {
      const answer = await fetch(url, { signal: abort.signal, headers: {
        "Accept": "text/event-stream, text/html, application/json", "Content-Type": "application/json", "Datastar-Request": "true", "last-event-id": "x.1",
      } });
      const { value } = await answer.body.getReader().read();
      return new TextDecoder().decode(value).split("\n")[0];
    } catch (error) {
      return String(error);
    } finally {
      abort.abort();
    }
  }, `${site.origin}/pushy/events?channel=kept&names=datastar&datastar=%7B%7D&t=${t}`);
  listed.html = foreign.html = "";
  await page.goto(listed.origin);
  assert.equal(await ask("datastar"), "event: pushy:open");
  assert.deepEqual((await site.requests("datastar")).map(({ status }) => status), [204, 200]);
  await page.goto(foreign.origin);
  assert.equal(await ask("foreign-datastar"), "TypeError: Failed to fetch");
  assert.deepEqual(await statusOf("foreign-datastar"), [403]);
  await page.close();
});

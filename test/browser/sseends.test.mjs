// What clients do when a stream ends (the table of docs/htmx.md): EventSource, htmx 2 and htmx 4.
import assert from "node:assert/strict";
import { patience } from "./example.mjs";
import { browser, pause, site, until, useSite } from "./ssesite.mjs";
import { test } from "./suite.mjs";

const limit = { timeout: 8 * patience };
useSite(limit);

const script = (...files) => files.map((file) => `<script src="/files/node_modules/${file}"></script>`).join("");
// The pages of the clients: with the query of a stream, each shows the data of the last event in #last, and
// collects the times within which it is told to return in window.told.
const pages = {
  EventSource: (query) => `<p id="last">first</p><script>
    const source = new EventSource("/pushy/events?${query}");
    source.addEventListener("text", (e) => { document.querySelector("#last").innerHTML = e.data; });
    for (const name of ["pushy:drain", "pushy:busy"]) source.addEventListener(name, (e) => told.push(JSON.parse(e.data).returnIn));
  </script>`,
  htmx2: (query) => `${script("htmx2/dist/htmx.min.js", "htmx-ext-sse/dist/sse.min.js")}
    <div hx-ext="sse" sse-connect="/pushy/events?${query}" sse-close="pushy:end"><p id="last" sse-swap="text">first</p>
    <i sse-swap="pushy:drain" hx-swap="none"></i><i sse-swap="pushy:busy" hx-swap="none"></i></div><script>
      document.addEventListener("htmx:sseBeforeMessage", (e) => e.detail.type.startsWith("pushy:") && told.push(JSON.parse(e.detail.data).returnIn));
    </script>`,
  htmx4: (query) => `${script("htmx.org/dist/htmx.min.js", "htmx.org/dist/ext/hx-sse.min.js")}
    <p id="last" hx-sse:connect="/pushy/events?${query}&names=none" hx-sse:close="pushy:end">first</p><script>
      for (const name of ["pushy:drain", "pushy:busy"]) document.addEventListener(name, (e) => told.push(JSON.parse(e.detail.data).returnIn));
    </script>`,
};

// open opens the page of each client.
async function open(name) {
  const all = {};
  for (const [client, html] of Object.entries(pages)) {
    const t = `${name}-${client}`;
    const page = await (await browser.newContext()).newPage();
    await page.goto(await site.page(t, `<script>window.told = [];</script>${html(`channel=kept&t=${t}`)}`));
    all[client] = {
      page,
      requests: () => site.requests(t),
      shows: (text) => page.locator("#last").getByText(text, { exact: true }).waitFor({ timeout: patience }),
    };
  }
  return all;
}

const each = async (clients, func) => { for (const [name, client] of Object.entries(clients)) await func(client, name); };
const connected = (clients) => each(clients, ({ requests }, name) => until(requests, `${name} does not connect`, (all) => all.at(-1)?.status === 200 && !all.at(-1).ended));

// waits returns how long a client has waited before each of its requests but the first, since the answer before.
const waits = (requests) => requests.slice(1).map(({ at }, i) => at - requests[i].ended);

test("clients return when they are told, with their positions, and not more often than once a second", limit, async () => {
  const clients = await open("return");
  await connected(clients);
  await site.publish("kept", "text", "one");
  await each(clients, ({ shows }) => shows("one"));

  // A break of the network: retry: of pushy:open, which is 2 to 3 s.
  await site.act("cut");
  await each(clients, ({ requests }, name) => until(requests, `${name} does not return`, (all) => all.length === 2));
  await connected(clients);
  // A deploy, with answers pushy:busy for 5 s.
  await site.act("deploy", { pause: 5000 });
  await site.publish("kept", "text", "two");
  await each(clients, async ({ page, requests, shows }, name) => {
    await shows("two");
    const all = await requests();
    const told = await page.evaluate(() => told);
    assert.ok(all.length >= 4, `${name} has not asked during the deploy`);
    for (const { lastId } of all.slice(1)) assert.match(lastId, /^[\w-]+\.\d+$/, `${name} has forgotten its position`);
    const waited = waits(all);
    assert.ok(waited.every((ms) => ms > 900), `${name} sent requests after ${waited} ms`);
    // All answers of the deploy had a time. htmx 4 adds or subtracts up to 30 %, and the machine can be busy.
    assert.equal(told.length, all.length - 2, `${name} was told ${told}`);
    told.forEach((returnIn, i) => {
      const ms = waited[i + 1];
      assert.ok(returnIn >= 1500, `${name} was told to return in ${returnIn} ms`);
      assert.ok(ms >= 0.7 * returnIn - 350, `${name} returned after ${ms} ms instead of ${returnIn}`);
      assert.ok(ms <= 1.3 * returnIn + 10_000, `${name} returned after ${ms} ms instead of ${returnIn}`);
    });
    console.log(`${name} waited ${waited.join(", ")} ms; told ${told.join(", ")}`);
  });
  await each(clients, ({ page }) => page.close());
});

test("a refusal leaves the page as it was, whether it is the first answer or a later one", limit, async () => {
  const clients = await open("refusal");
  await connected(clients);
  await site.publish("kept", "text", "shown");
  await each(clients, ({ shows }) => shows("shown"));
  const htmlOf = (page) => page.evaluate(() => document.body.innerText);
  const before = {};
  await each(clients, async ({ page }, name) => { before[name] = await htmlOf(page); });
  await site.act("refuse", { on: true });
  await site.act("cut");
  await each(clients, ({ requests }, name) => until(requests, `${name} is not refused`, (all) => all.at(-1).status === 403));
  const late = await open("late");
  await each(late, ({ requests }, name) => until(requests, `${name} is not refused`, (all) => all[0]?.status === 403));
  await pause(3000);
  await each(clients, async ({ page }, name) => assert.equal(await htmlOf(page), before[name], name));
  await each(late, async ({ page }, name) => assert.equal(await page.locator("#last").innerHTML(), "first", name));
  // EventSource has stopped; htmx asks again, and htmx 4 still has its position.
  assert.equal((await clients.EventSource.requests()).filter(({ status }) => status === 403).length, 1);
  await site.act("refuse", { on: false });
  await connected({ htmx2: clients.htmx2, htmx4: clients.htmx4 });
  await site.publish("kept", "text", "again");
  await clients.htmx2.shows("again");
  await clients.htmx4.shows("again");
  for (const { lastId } of (await clients.htmx4.requests()).slice(1)) assert.match(lastId, /^[\w-]+\.\d+$/);
  assert.equal((await late.htmx4.requests()).length, 1, "htmx 4 asks again after a first refusal");
  await each(clients, ({ page }) => page.close());
  await each(late, ({ page }) => page.close());
});

test("nobody is sent elsewhere by pushy:end, and htmx stops", limit, async () => {
  const clients = await open("end");
  await connected(clients);
  await site.publish("kept", "text", "shown");
  await each(clients, ({ shows }) => shows("shown"));
  await site.act("remove", { channel: "kept" });
  await until(clients.EventSource.requests, "EventSource does not return", (all) => all.length === 2);
  await pause(3000);
  await each({ htmx2: clients.htmx2, htmx4: clients.htmx4 }, async ({ requests, shows }, name) => {
    await shows("shown");
    assert.equal((await requests()).length, 1, `${name} returns`);
  });
  await each(clients, ({ page }) => page.close());
});

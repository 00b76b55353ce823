// Server-Sent Events: EventSource in Chromium, Firefox and node.
import assert from "node:assert/strict";
import { EventSource } from "eventsource";
import { launch, launchFirefox, patience } from "./example.mjs";
import { breakOften, buildSite, pause, plain, soak, startSite, strings, until } from "./ssesite.mjs";
import { after, before, test } from "./suite.mjs";

const limit = { timeout: (soak ? 20 : 5) * patience };
let chromium, firefox, site;

before(async () => {
  buildSite();
  site = await startSite();
  chromium = await launch();
  firefox = await launchFirefox();
}, limit);
after(async () => {
  await Promise.all([chromium?.close(), firefox?.close()]);
  await site?.stop();
});

// clients opens the page of plain in both browsers, and EventSource in node, until the test has ended. It
// returns what each has received.
async function clients(context, t, query) {
  const inChromium = await (await chromium.newContext()).newPage();
  const inFirefox = await (await firefox.createBrowserContext()).newPage();
  const received = [];
  const node = new EventSource(`${site.origin}/pushy/events?${query}&t=${t}-node`);
  context.after(async () => {
    node.close();
    await Promise.all([inChromium.close(), inFirefox.close()]);
  });
  for (const name of ["n", "text", "pushy:open", "pushy:gap", "pushy:busy", "pushy:drain", "pushy:end"]) {
    node.addEventListener(name, (e) => received.push([name, e.data]));
  }
  for (const [page, name] of [[inChromium, "chromium"], [inFirefox, "firefox"]]) {
    await page.goto(await site.page(`${t}-${name}`, plain(`${query}&t=${t}-${name}`)));
  }
  return {
    chromium: () => inChromium.evaluate(() => got),
    firefox: () => inFirefox.evaluate(() => got),
    node: async () => received,
  };
}

test("no event is lost or repeated over breaks of the connection", limit, async (context) => {
  await breakOften(site, await clients(context, "breaks", "channel=kept&channel=other"));
});

test("strings arrive as they are", limit, async (context) => {
  const raw = await clients(context, "raw", "channel=other");
  const exact = await clients(context, "exact", "channel=other&data=json");
  for (const got of [raw, exact]) {
    for (const one of Object.values(got)) await until(one, "it does not connect", (all) => all.length > 0);
  }
  for (const text of strings) await site.publish("other", "text", text);
  for (const [got, want] of [[raw, (s) => s.replace(/\r\n?/g, "\n")], [exact, (s) => s]]) {
    for (const [name, one] of Object.entries(got)) {
      const texts = (all) => all.filter(([event]) => event === "text").map(([, data]) => data);
      const all = texts(await until(one, `${name} lacks strings`, (all) => texts(all).length === strings.length));
      const read = got === exact ? all.map((data) => JSON.parse(data)) : all;
      // Firefox leaves out NUL.
      const kept = (s) => (name === "firefox" && got === raw ? s.replaceAll("\0", "") : s);
      assert.deepEqual(read, strings.map(want).map(kept), name);
    }
  }
});

test("a deploy: all clients return when they are told, with their positions", limit, async (context) => {
  const got = await clients(context, "deploy", "channel=kept&channel=other");
  for (const [name, one] of Object.entries(got)) await until(one, `${name} does not connect`, (all) => all.length > 0);
  await site.publish("kept", "n", 1000);
  for (const one of Object.values(got)) await until(one, "no event", (all) => all.some(([, data]) => data === "1000"));
  await site.act("deploy", { pause: 5000 });
  await site.publish("kept", "n", 1001);
  for (const [name, one] of Object.entries(got)) {
    const all = await until(one, `${name} does not return`, (all) => all.some(([, data]) => data === "1001"));
    assert.equal(all.filter(([, data]) => data === "1001").length, 1);
    assert.ok(all.some(([event]) => event === "pushy:drain"), `${name} was not told of the deploy`);
    assert.ok(all.some(([event, data]) => event === "pushy:gap" && data === '{"channel":"other","reason":"off"}'), name);
    assert.ok(!all.some(([event, data]) => event === "pushy:gap" && data.includes("kept")), name);
    const requests = await site.requests(`deploy-${name}`);
    for (const { lastId } of requests.slice(1)) assert.match(lastId, /^[\w-]+\.\d+,-$/, `${name} has forgotten its position`);
    // All but the first return are at the times of the answers.
    const pauses = requests.slice(2).map(({ at }, i) => at - requests[i + 1].at);
    assert.ok(pauses.every((ms) => ms > 900), `${name} sent requests after ${pauses} ms`);
  }
});

test("a page that closes its stream at pushy:end does not come back", limit, async () => {
  const page = await (await chromium.newContext()).newPage();
  await page.goto(await site.page("end", plain("channel=ends&t=end") + `<script>
    events.addEventListener("pushy:end", (e) => JSON.parse(e.data).channel === null && events.close());
  </script>`));
  await until(() => page.evaluate(() => got), "it does not connect", (all) => all.length > 0);
  await site.act("remove", { channel: "ends" });
  const all = await until(() => page.evaluate(() => got), "it does not end", (all) => all.some(([name]) => name === "pushy:end"));
  assert.deepEqual(all.at(-1), ["pushy:end", '{"channel":null,"reason":"Removed"}']);
  await pause(4000);
  assert.equal((await site.requests("end")).length, 1);
  await page.close();
});

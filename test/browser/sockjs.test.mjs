// sockjs-client with all its transports in node and in Chromium, on a page of the server's own
// origin and on a page of another origin.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { build, launch, open, patience, severalOf, start } from "./example.mjs";
import { scenario } from "./scenario.mjs";
import { after, before, test } from "./suite.mjs";

const require = createRequire(import.meta.url);
const limit = { timeout: 3 * patience };
let browser, server, friend;

before(async () => {
  build("./test/sockjs");
  // A page of another origin, which is listed.
  friend = createServer((_, response) => {
    response.setHeader("Content-Type", "text/html");
    response.end(`<!doctype html><title>Friend</title><link rel="icon" href="data:,"><script src="${server.origin}/sockjs.js"></script>`);
  });
  friend.listen(0, "127.0.0.1");
  await once(friend, "listening");
  friend.origin = `http://127.0.0.1:${friend.address().port}`;
  const script = require.resolve("sockjs-client/dist/sockjs.min.js");
  server = await start("127.0.0.1:0", "-script", script, "-origins", friend.origin);
  browser = await launch();
}, limit);

after(async () => {
  await browser?.close();
  friend?.close();
  await server?.stop();
});

// Each transport, and the server's name for it.
const everywhere = {
  "websocket": "websocket",
  "xhr-streaming": "xhr-streaming",
  "xhr-polling": "xhr-polling",
  "eventsource": "eventsource",
};
const inPages = {
  ...everywhere,
  "iframe-eventsource": "eventsource",
  "iframe-htmlfile": "htmlfile",
  "iframe-xhr-polling": "xhr-polling",
  "jsonp-polling": "jsonp-polling",
};

test("sockjs-client in node", severalOf(Object.keys(everywhere).length, limit), async (t) => {
  globalThis.SockJS = require("sockjs-client");
  for (const [transport, protocol] of Object.entries(everywhere)) {
    await t.test(transport, limit, async () => assert.equal(await scenario(server.origin, transport, "node"), protocol));
  }
});

for (const [whose, transports] of Object.entries({ "the server's own": { ...inPages, htmlfile: "htmlfile" }, "another origin": inPages })) {
  // Concurrently, because a client that leaves between two polls is disconnected only later.
  test(`sockjs-client in a page of ${whose}`, { ...severalOf(Object.keys(transports).length, limit), concurrency: 3 }, (t) => Promise.all(
    Object.entries(transports).map(([transport, protocol]) => t.test(transport, limit, async (t) => {
      const own = inPages !== transports;
      const page = await open(browser, own ? `${server.origin}/page` : friend.origin);
      t.after(() => page.context().close()); // which closes its connections
      const run = `(${scenario})(${[server.origin, transport, own ? "own" : "other"].map((arg) => JSON.stringify(arg))})`;
      assert.equal(await page.evaluate(run), protocol);
      assert.deepEqual(page.wrong.filter((what) => !harmless.test(what)), []);
    })),
  ));
}

// Requests that a client aborts when it closes are not errors, nor is a script that arrives
// after that. In this test requests to another origin are not errors either.
const harmless = /net::ERR_ABORTED$|^(Uncaught )?TypeError: _jp\.\w+ is not a function|is elsewhere$/;

// Compressed events in Chromium, in Firefox, and in ws for node, which also compresses what it sends.
import assert from "node:assert/strict";
import WebSocket from "ws";
import { launch, launchFirefox, patience } from "./example.mjs";
import { buildServer, startServer } from "./page.mjs";
import { after, before, test, until, within } from "./suite.mjs";

const limit = { timeout: 3 * patience };
const small = "small", large = "the same word ".repeat(9); // names of events
let server;

before(async () => {
  buildServer();
  server = await startServer(undefined, "-compress", "100");
}, limit);
after(() => server?.stop());

async function publish(channel) {
  const before = (await server.control("none")).compressed;
  for (const event of [small, large]) await server.control("publish", { channel, event, count: 3 });
  return (await server.control("none")).compressed - before;
}

const wanted = [small, large].flatMap((event) => [0, 1, 2].map((n) => `${event} ${n}`));

/** Runs in the page: subscribes, and notes what arrives, and the extension of the WebSocket. */
function listen([channel, ...events]) {
  const Real = WebSocket;
  window.WebSocket = class extends Real {
    constructor(url) {
      super(url);
      window.socket = this;
    }
  };
  window.got = [];
  window.pushy = new Pushy("/pushy", undefined, { transports: ["websocket"] });
  const subscribed = pushy.channel(channel).subscribe();
  for (const event of events) subscribed.on(event, ({ n }) => got.push(`${event} ${n}`));
}

async function check(page, channel) {
  await page.goto(`${server.origin}/`);
  await page.addScriptTag({ url: `${server.origin}/pushy/pushy.js` });
  await page.evaluate(listen, [channel, small, large]);
  await page.waitForFunction(() => [...pushy.channels.values()][0].subscribed);
  assert.equal(await publish(channel), 3, "the large events, once for each");
  await page.waitForFunction(() => got.length >= 6);
  assert.deepEqual(await page.evaluate(() => got), wanted);
  assert.match(await page.evaluate(() => socket.extensions), /^permessage-deflate/);
}

test("Chromium", limit, async (t) => {
  const browser = await launch();
  t.after(() => browser.close());
  await check(await browser.newPage(), "chromium");
});

test("Firefox", limit, async (t) => {
  const browser = await launchFirefox();
  t.after(() => browser.close());
  const page = await browser.newPage();
  page.setDefaultTimeout(patience);
  await check(page, "firefox");
});

test("ws for node", limit, async (t) => {
  const socket = new WebSocket(`ws://${server.host}/pushy/socket/websocket`, { perMessageDeflate: { threshold: 0 } });
  t.after(() => socket.terminate());
  const got = [], wire = [];
  const subscribed = new Promise((resolve, reject) => {
    socket.on("error", reject);
    socket.on("message", (text) => {
      const { event, data } = JSON.parse(text);
      if (event === "pushy:connect") socket.send(JSON.stringify({ command: "subscribe", data: { channel: "ws" } }), { compress: true });
      else if (event === "pushy:subscription-success") resolve();
      else got.push(`${event} ${data.n}`);
    });
  });
  await within(subscribed, "the client of node does not subscribe");
  assert.match(socket.extensions, /^permessage-deflate/);
  socket._socket.on("data", (bytes) => wire.push(bytes));
  assert.equal(await publish("ws"), 3);
  await until(() => got, "events are missing", () => got.length >= 6);
  assert.deepEqual(got, wanted);
  assert.ok(!Buffer.concat(wire).includes("same word the same word"), "the large events are compressed on the wire");
});

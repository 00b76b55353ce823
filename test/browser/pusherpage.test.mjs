// pusher-js and Laravel Echo in pages in Chromium, on one of two nodes. What is published, and who is
// terminated, is sent to the other node.
import assert from "node:assert/strict";
import { launch, patience, startRedis } from "./example.mjs";
import { ask, buildNodes, connectInPage, patiently, sdkFor, startNode, startProxy, startSite, until } from "./pushersite.mjs";
import { after, before, test } from "./suite.mjs";

const limit = { timeout: 5 * patience };
let browser, redis, near, far, site;

before(async () => {
  buildNodes();
  [browser, redis] = await Promise.all([launch(), startRedis()]);
  const broker = { redis: { addresses: [redis.address] } };
  [near, far] = await Promise.all([startNode({ broker }), startNode({ broker })]);
  site = await startSite(near.sdk);
}, limit);
after(async () => {
  await browser?.close();
  await Promise.all([near?.stop(), far?.stop()]);
  await redis?.stop();
  site?.stop();
});

// open opens a page with a client of a user.
async function open(t, user, how = {}) {
  const context = await browser.newContext();
  context.setDefaultTimeout(patience);
  t.after(() => context.close());
  const page = await context.newPage();
  page.wrong = [];
  page.on("pageerror", (error) => page.wrong.push(String(error)));
  page.begin = async () => {
    await page.goto(`${how.origin ?? site.origin}/${how.encryption ? "?encryption" : ""}`);
    await page.evaluate(connectInPage, { port: how.port ?? near.port, user, ...how });
  };
  await page.begin();
  return page;
}

test("public and private channels, presence, client events, leaving and joining again", limit, async (t) => {
  const [ann, bob] = [await open(t, "1"), await open(t, "2", { integer: true })];
  for (const page of [ann, bob]) {
    await page.evaluate(async () => {
      window.got = [];
      for (const name of ["news", "private-App.Models.User.1"]) {
        const channel = await subscribe(name);
        for (const event of ["App\\Events\\Shipped", "others"]) channel.bind(event, (data) => got.push([name, event, data]));
      }
    });
  }
  const values = [{ text: "Hello" }, "text", 5, null, [1, "é 😀"]];
  for (const value of values) await far.sdk.trigger(["news", "private-App.Models.User.1"], "App\\Events\\Shipped", value);
  await far.sdk.trigger("news", "others", 1, { socket_id: await ann.evaluate(() => pusher.connection.socket_id) });
  await far.sdk.trigger("news", "others", 2);
  const expected = values.flatMap((value) => ["news", "private-App.Models.User.1"].map((name) => [name, "App\\Events\\Shipped", value]));
  for (const [page, others] of [[ann, [2]], [bob, [1, 2]]]) {
    const got = await until("all events", () => page.evaluate((n) => got.length >= n && got, expected.length + others.length));
    const key = (one) => JSON.stringify(one);
    assert.deepEqual(got.filter(([, name]) => name !== "others").map(key).sort(), expected.map(key).sort());
    assert.deepEqual(got.filter(([, name]) => name === "others").map(([, , data]) => data), others);
  }

  // Presence: the events of the second user reach the first one, who sees the same list.
  await ann.evaluate(async () => {
    window.members = [];
    window.room = await subscribe("presence-room");
    for (const name of ["member_added", "member_removed"]) room.bind(`pusher:${name}`, ({ id, info }) => members.push([name, id, info]));
    room.bind("client-typing", (data, { user_id }) => members.push(["typing", user_id, data]));
  });
  const list = await bob.evaluate(async () => {
    window.room = await subscribe("presence-room");
    const { count, me, members } = room.members;
    return { count, me, members };
  });
  assert.deepEqual(list, { count: 2, me: { id: 2, info: { name: "N2" } }, members: { 1: { name: "N1" }, 2: { name: "N2" } } });
  await bob.evaluate(() => room.trigger("client-typing", { to: "all" }));
  await ann.waitForFunction(() => members.length === 2);
  await bob.evaluate(() => pusher.unsubscribe("presence-room"));
  await ann.waitForFunction(() => members.length === 3);
  await bob.evaluate(async () => { room = await subscribe("presence-room"); });
  await ann.waitForFunction(() => members.length === 4);
  assert.deepEqual(await ann.evaluate(() => members), [
    ["member_added", "2", { name: "N2" }],
    ["typing", "2", { to: "all" }],
    ["member_removed", "2", { name: "N2" }],
    ["member_added", "2", { name: "N2" }],
  ]);
  assert.equal(await ann.evaluate(() => room.members.count), 2);
  for (const page of [ann, bob]) assert.deepEqual(page.wrong, []);
});

test("a channel that is left before the subscription has succeeded", limit, async (t) => {
  const page = await open(t, "1");
  await page.waitForFunction(() => pusher.connection.state === "connected");
  // The unsubscribe is called while the page waits for the signature, for a channel that stays left, and for
  // one that the page subscribes to again.
  let release;
  site.hold = new Promise((resolve) => { release = resolve; });
  t.after(() => { delete site.hold; });
  await page.evaluate(() => {
    window.got = [];
    for (const name of ["private-left", "private-again"]) {
      const channel = pusher.subscribe(name);
      channel.bind_global((event) => got.push(`${name} ${event}`));
      pusher.unsubscribe(name);
    }
    window.again = pusher.subscribe("private-again");
  });
  await until("both have asked", () => ["private-left", "private-again"].every((name) => site.asked.includes(name)));
  release();
  await page.waitForFunction(() => again.subscribed);
  const channels = async () => Object.keys((await ask(far.sdk, "/channels", { filter_by_prefix: "private-" })).channels);
  await until("the node has seen the unsubscribe", async () => !(await channels()).includes("private-left"));
  assert.ok((await channels()).includes("private-again"));
  await far.sdk.trigger(["private-left", "private-again"], "last", {});
  await page.waitForFunction(() => got.includes("private-again last"));
  assert.deepEqual((await page.evaluate(() => got)).filter((line) => !line.startsWith("private-again")), []);
  // The same without a signature to wait for.
  await page.evaluate(async () => {
    pusher.subscribe("left").bind_global((event) => got.push(`left ${event}`));
    pusher.unsubscribe("left");
    const channel = await subscribe("fence");
    window.fence = next(channel, "fence");
  });
  await far.sdk.trigger(["left", "fence"], "fence", {});
  await page.evaluate(() => fence);
  assert.deepEqual((await page.evaluate(() => got)).filter((line) => line.startsWith("left")), []);
  assert.deepEqual(page.wrong, []);
});

test("encrypted channels: what the SDK encrypts is read by the page, also after a new key", limit, async (t) => {
  const page = await open(t, "1", { encryption: true });
  await page.evaluate(async () => {
    window.got = [];
    for (const name of ["private-encrypted-Orders", "private-encrypted-cache-price"]) {
      (await subscribe(name)).bind("order", (data) => got.push(data));
    }
  });
  const more = await open(t, "2", { encryption: true });
  await far.sdk.trigger("private-encrypted-Orders", "order", { n: 1, text: "é 😀" });
  await far.sdk.triggerBatch([{ channel: "private-encrypted-cache-price", name: "order", data: { n: 2 } }]);
  await page.waitForFunction(() => got.length === 2);
  assert.deepEqual(await page.evaluate(() => got.sort((a, b) => a.n - b.n)), [{ n: 1, text: "é 😀" }, { n: 2 }]);
  // The last event of the cache channel, which the server cannot read, reaches a page that comes later.
  assert.deepEqual(await more.evaluate(() => next(pusher.subscribe("private-encrypted-cache-price"), "order")), { n: 2 });
  const { cache } = await ask(far.sdk, "/channels/private-encrypted-cache-price", { info: "cache" });
  assert.deepEqual(Object.keys(JSON.parse(cache.data)), ["nonce", "ciphertext"]);
  // A page that receives an event with another key asks the application for the secret again.
  const asked = site.asked.length;
  const other = { encryptionMasterKeyBase64: Buffer.alloc(32, 7).toString("base64") };
  site.use(sdkFor(near.port, other));
  t.after(() => site.use(near.sdk));
  await sdkFor(far.port, other).trigger("private-encrypted-Orders", "order", { n: 3 });
  await page.waitForFunction(() => got.some(({ n }) => n === 3));
  assert.deepEqual(site.asked.slice(asked), ["private-encrypted-Orders"]);
  // Client events on encrypted channels are refused by the client itself, and by the server.
  const code = await page.evaluate(async () => {
    const failed = new Promise((resolve) => pusher.connection.bind("error", ({ data }) => resolve(data.code)));
    pusher.send_event("client-x", {}, "private-encrypted-Orders");
    return failed;
  });
  assert.equal(code, 4301);
  assert.deepEqual(page.wrong, []);
});

test("sign-in, events for a user, terminate on another node", limit, async (t) => {
  const page = await open(t, "42");
  await page.evaluate(async () => {
    window.got = [];
    pusher.signin();
    pusher.user.bind("hello", (data) => got.push(data));
    await pusher.user.signinDonePromise;
  });
  assert.equal(await page.evaluate(() => pusher.user.user_data.id), "42");
  let n = 0;
  const got = await until("an event for the user", async () => { // until the page has subscribed to them
    await far.sdk.sendToUser("42", "hello", { n: ++n });
    return page.evaluate(() => got.length > 0 && got);
  });
  assert.ok(got.every(({ n }) => n > 0));
  // A connection stays with its user: the server refuses to change it.
  const other = await open(t, "43");
  await other.evaluate(async () => {
    pusher.signin();
    await pusher.user.signinDonePromise;
  });
  const second = near.sdk.authenticateUser(await other.evaluate(() => pusher.connection.socket_id), { id: "42" });
  await other.evaluate((data) => pusher.send_event("pusher:signin", data), second);
  await other.waitForFunction(() => pusher.connection.state === "disconnected");
  assert.ok((await other.evaluate(() => log)).includes("error 4009"));
  assert.equal(await page.evaluate(() => pusher.connection.state), "connected");
  await until("the nodes are told", () => patiently(() => far.sdk.terminateUserConnections("42")));
  await page.waitForFunction(() => pusher.connection.state === "disconnected");
  assert.deepEqual(await page.evaluate(() => log.slice(-2)), ["error 4009", "disconnected"]);
  for (const one of [page, other]) assert.deepEqual(one.wrong, []);
});

test("one connection is a member of two channels as two users", limit, async (t) => {
  const watch = await open(t, "1");
  const page = await open(t, "5");
  await page.evaluate(() => subscribe("presence-five"));
  const users = (name) => ask(far.sdk, `/channels/${name}/users`);
  // The application signs for another user of the same page.
  const six = near.sdk.authorizeChannel(await page.evaluate(() => pusher.connection.socket_id), "presence-six", { user_id: "6" });
  await watch.evaluate(async () => {
    window.added = next(await subscribe("presence-six"), "pusher:member_added");
  });
  await page.evaluate((data) => pusher.send_event("pusher:subscribe", { channel: "presence-six", ...data }), six);
  assert.equal(await watch.evaluate(() => added.then(({ id }) => id)), "6");
  assert.deepEqual(await users("presence-five"), { users: [{ id: "5" }] });
  assert.deepEqual((await users("presence-six")).users.map(({ id }) => id).sort(), ["1", "6"]);
});

test("a foreign origin and an unknown key are refused once", limit, async (t) => {
  const node = await startNode({ origins: [site.origin] });
  t.after(node.stop);
  const pages = [];
  for (const [code, how] of [[4009, { origin: site.foreign }], [4001, { key: "other-key" }], [undefined, {}]]) {
    const proxy = await startProxy(node.port);
    t.after(proxy.stop);
    pages.push([code, await open(t, "1", { port: proxy.port, ...how }), proxy]);
  }
  for (const [code, page] of pages) await page.waitForFunction((state) => log.includes(state), code ? "disconnected" : "connected");
  await pages[0][1].waitForTimeout(3000); // pusher-js would connect again after 1 s
  for (const [code, page, { connections }] of pages) {
    const log = await page.evaluate(() => log.filter((line, i) => line !== log[i - 1]));
    assert.deepEqual(log, code ? [`error ${code}`, "disconnected"] : ["connected"]);
    assert.equal(connections, 1);
    assert.deepEqual(page.wrong, []);
  }
});

for (const broadcaster of ["reverb", "pusher"]) {
  test(`Laravel Echo as ${broadcaster}: listen, notification, whisper, here, joining, leaving`, limit, async (t) => {
    const room = `Room.${broadcaster}`;
    const echo = async (user) => {
      const page = await open(t, user);
      await page.evaluate(([broadcaster, port, user]) => {
        pusher.disconnect(); // Echo makes its own client, with these options
        window.echo = new Echo.default({
          broadcaster,
          key: "app-key",
          wsHost: "127.0.0.1",
          wsPort: port,
          forceTLS: false,
          enabledTransports: ["ws", "wss"],
          authEndpoint: `/auth?user=${user}`,
          ...(broadcaster === "pusher" ? { cluster: "any" } : {}),
        });
        window.heard = [];
      }, [broadcaster, near.port, user]);
      return page;
    };
    const [ann, bob] = [await echo("1"), await echo("2")];
    await ann.evaluate(async (room) => {
      const here = new Promise((resolve) => {
        echo.join(room).here(resolve).joining((who) => heard.push(["joining", who])).leaving((who) => heard.push(["leaving", who]))
          .listenForWhisper("typing", (data) => heard.push(["typing", data]));
      });
      heard.push(["here", await here]);
      const mine = echo.private("App.Models.User.1");
      mine.notification(({ id, type }) => heard.push(["notification", id, type])).listen("OrderShipped", ({ id }) => heard.push(["order", id]))
        .listen(".custom", ({ id }) => heard.push(["custom", id]));
      await new Promise((resolve) => mine.subscribed(resolve));
    }, room);
    const length = (n) => ann.waitForFunction((n) => heard.length === n, n);
    const type = "App\\Notifications\\InvoicePaid";
    await far.sdk.trigger("private-App.Models.User.1", "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated", { id: 7, type });
    await far.sdk.trigger("private-App.Models.User.1", "App\\Events\\OrderShipped", { id: 8 });
    await far.sdk.trigger("private-App.Models.User.1", "custom", { id: 9 });
    await length(4);
    const list = await bob.evaluate((room) => new Promise((resolve) => echo.join(room).here(resolve)), room);
    assert.deepEqual(list.map(({ name }) => name).sort(), ["N1", "N2"]);
    await length(5);
    await bob.evaluate((room) => echo.join(room).whisper("typing", { x: 1 }), room);
    await length(6);
    await bob.evaluate((room) => echo.leave(room), room);
    await length(7);
    await bob.evaluate((room) => new Promise((resolve) => echo.join(room).here(resolve)), room);
    await length(8);
    assert.deepEqual(await ann.evaluate(() => heard), [
      ["here", [{ name: "N1" }]],
      ["notification", 7, type],
      ["order", 8],
      ["custom", 9],
      ["joining", { name: "N2" }],
      ["typing", { x: 1 }],
      ["leaving", { name: "N2" }],
      ["joining", { name: "N2" }],
    ]);
    assert.match(await ann.evaluate(() => echo.socketId()), /^\d+\.\d+$/);
    for (const page of [ann, bob]) assert.deepEqual(page.wrong, []);
  });
}

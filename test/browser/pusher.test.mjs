// The clients of Pusher's protocol against pushy-server: pusher-js, Laravel Echo, and Pusher's SDK for
// servers in node.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import Echo from "laravel-echo";
import { patience } from "./example.mjs";
import { app, buildNodes, event, options, Pusher, sdkFor, startNode, subscribed } from "./pushersite.mjs";
import { after, before, test } from "./suite.mjs";

let node, sdk, receiver;
const clients = [];
const hooks = []; // the requests of webhooks that have arrived
let hooked = () => {}; // is called for each of them

before(async () => {
  buildNodes();
  receiver = createServer(async (request, response) => {
    let rawBody = "";
    for await (const part of request.setEncoding("utf8")) rawBody += part;
    hooks.push({ headers: request.headers, rawBody });
    response.end();
    hooked();
  }).listen(0, "127.0.0.1");
  await once(receiver, "listening");
  node = await startNode({
    grace: "2s",
    webhooks: {
      url: `http://127.0.0.1:${receiver.address().port}/`,
      format: "pusher",
      events: ["channel.occupied", "channel.vacated", "member.joined", "member.left", "client.event", "channel.miss"],
    },
  });
  sdk = node.sdk;
});

after(async () => {
  for (const client of clients) client.disconnect();
  await node?.stop();
  receiver?.close();
  receiver?.closeAllConnections();
});

function connect(user = "1", key = app.key, more = {}) {
  const client = new Pusher(key, { ...options(node.port, sdk, user), ...more });
  clients.push(client);
  return client;
}

test("public and private channels, publishing with the SDK, toOthers", { timeout: patience }, async () => {
  const [a, b] = [connect(), connect("2")];
  const channels = [];
  for (const client of [a, b]) {
    for (const name of ["news", "private-App.Models.User.1"]) {
      const channel = client.subscribe(name);
      await subscribed(channel);
      channels.push(channel);
    }
  }
  for (const value of [{ text: "Hello" }, "text", 5, null, [1, "é 😀"], "123"]) {
    const got = channels.map((channel) => event(channel, "App\\Events\\Shipped"));
    await sdk.trigger(["news", "private-App.Models.User.1"], "App\\Events\\Shipped", value);
    for (const data of await Promise.all(got)) {
      assert.deepEqual(data, value === "123" ? 123 : value, "the SDK sends the string 123 as the number");
    }
  }
  const others = [];
  channels[0].bind("others", () => others.push("a"));
  const got = event(channels[2], "others");
  await sdk.trigger("news", "others", {}, { socket_id: a.connection.socket_id });
  await got;
  const fence = event(channels[0], "fence");
  await sdk.trigger("news", "fence", {});
  await fence;
  assert.deepEqual(others, []);
});

test("presence: one member for each user, whisper, counts", { timeout: patience }, async () => {
  const [a, tab1, tab2] = [connect("1"), connect(2), connect(2)];
  const room = a.subscribe("presence-room");
  await subscribed(room);
  const added = event(room, "pusher:member_added");
  const first = tab1.subscribe("presence-room");
  const members = await subscribed(first);
  assert.equal(members.count, 2);
  assert.equal(members.me.id, 2, "as it was signed");
  assert.deepEqual(members.me.info, { name: "N2" });
  assert.equal((await added).id, "2");
  const again = [];
  room.bind("pusher:member_added", (member) => again.push(member));
  const second = tab2.subscribe("presence-room");
  assert.equal((await subscribed(second)).count, 2);
  const said = event(room, "client-typing");
  second.trigger("client-typing", { to: "all" });
  assert.deepEqual(await said, { to: "all" });
  const info = await (await sdk.get({ path: "/channels/presence-room", params: { info: "user_count,subscription_count" } })).json();
  assert.deepEqual(info, { occupied: true, user_count: 2, subscription_count: 3 });
  const users = await (await sdk.get({ path: "/channels/presence-room/users" })).json();
  assert.deepEqual(users.users.map(({ id }) => id).sort(), ["1", "2"]);
  const removed = [];
  room.bind("pusher:member_removed", (member) => removed.push(member.id));
  tab1.unsubscribe("presence-room");
  const left = event(room, "pusher:member_removed");
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.deepEqual(removed, []);
  tab2.disconnect();
  assert.equal((await left).id, "2");
  assert.equal(room.members.count, 1);
  assert.deepEqual(again, []);
});

test("cache channels, batches", { timeout: patience }, async () => {
  const client = connect();
  const missed = client.subscribe("cache-price");
  await event(missed, "pusher:cache_miss");
  await sdk.triggerBatch([
    { channel: "cache-price", name: "price", data: { n: 1 } },
    { channel: "cache-price", name: "price", data: { n: 2 } },
  ]);
  const late = connect("2").subscribe("cache-price");
  assert.deepEqual(await event(late, "price"), { n: 2 });
});

for (const user of ["42", "Zoë 😀"]) {
  test(`sign-in, events for a user, terminate: ${user}`, { timeout: patience }, async () => {
    const client = connect(user);
    client.signin();
    const greeting = event(client.user, "hello");
    await client.user.signinDonePromise;
    for (let sent = false; !sent;) { // until the subscription to the user's events has succeeded
      await sdk.sendToUser(user, "hello", { n: 1 });
      sent = await Promise.race([greeting.then(() => true), new Promise((resolve) => setTimeout(resolve, 100, false))]);
    }
    assert.deepEqual(await greeting, { n: 1 });
    const ended = event(client.connection, "disconnected");
    await sdk.terminateUserConnections(user);
    await ended;
    assert.equal(client.connection.state, "disconnected");
  });
}

test("a wrong key and a wrong signature are final", { timeout: patience }, async () => {
  const wrong = connect("1", "other-key");
  await event(wrong.connection, "disconnected");
  const client = connect("1", app.key, {
    channelAuthorization: { customHandler: (_, callback) => callback(null, { auth: `${app.key}:00` }) },
  });
  const refused = await event(client.subscribe("private-x"), "pusher:subscription_error");
  assert.equal(refused.status, 401);
  assert.equal(refused.type, "AuthError");
  await assert.rejects(sdkFor(node.port, { secret: "x".repeat(20) }).trigger("news", "e", {}),
    (error) => error.status === 401);
});

for (const broadcaster of ["reverb", "pusher"]) {
  test(`Laravel Echo as ${broadcaster}: listen, here, joining, leaving, whisper`, { timeout: patience }, async () => {
    const echo = (user) => {
      const client = connect(user);
      return new Echo({ broadcaster, key: app.key, client, Pusher });
    };
    const [ann, bob] = [echo("1"), echo("2")];
    const room = `room-${broadcaster}`;
    let joining;
    const joined = new Promise((resolve) => { joining = resolve; });
    let leaving;
    const left = new Promise((resolve) => { leaving = resolve; });
    const here = await new Promise((resolve) => {
      ann.join(room).here(resolve).joining(joining).leaving(leaving);
    });
    assert.deepEqual(here, [{ name: "N1" }]);
    const list = await new Promise((resolve) => bob.join(room).here(resolve));
    assert.deepEqual(list.map(({ name }) => name).sort(), ["N1", "N2"]);
    assert.deepEqual(await joined, { name: "N2" });
    const shipped = new Promise((resolve) => ann.private("orders").listen("OrderShipped", resolve));
    await subscribed(ann.connector.pusher.channel("private-orders"));
    await sdk.trigger("private-orders", "App\\Events\\OrderShipped", { id: 7 });
    assert.deepEqual(await shipped, { id: 7 });
    const heard = new Promise((resolve) => ann.join(room).listenForWhisper("typing", resolve));
    bob.join(room).whisper("typing", { x: 1 });
    assert.deepEqual(await heard, { x: 1 });
    bob.leave(room);
    assert.deepEqual(await left, { name: "N2" });
    assert.match(ann.socketId(), /^\d+\.\d+$/);
  });
}

test("webhooks, verified with the SDK", { timeout: patience }, async () => {
  const channel = "presence-cache-Hooks";
  const events = () => hooks.flatMap(({ rawBody }) => JSON.parse(rawBody).events).filter((one) => one.channel === channel);
  const until = async (count) => {
    while (events().length < count) await new Promise((resolve) => { hooked = resolve; });
  };
  const client = connect("7");
  const hall = client.subscribe(channel);
  await subscribed(hall);
  hall.trigger("client-typing", { to: "é 😀" });
  await until(4);
  client.unsubscribe(channel);
  await until(6);
  const { socket_id } = client.connection;
  const shown = events().map((one) => JSON.stringify(one)).sort();
  assert.deepEqual(shown, [
    { name: "cache_miss", channel },
    { name: "channel_occupied", channel },
    { name: "channel_vacated", channel },
    { name: "client_event", channel, event: "client-typing", data: JSON.stringify({ to: "é 😀" }), socket_id, user_id: "7" },
    { name: "member_added", channel, user_id: "7" },
    { name: "member_removed", channel, user_id: "7" },
  ].map((one) => JSON.stringify(one)).sort());
  const other = sdkFor(node.port, { secret: "another secret" });
  for (const request of hooks) {
    const hook = sdk.webhook(request);
    assert.ok(hook.isContentTypeValid());
    assert.ok(hook.isValid());
    assert.ok(Math.abs(hook.getTime() - Date.now()) < 10 * patience);
    assert.ok(!other.webhook(request).isValid());
    assert.ok(other.webhook(request).isValid([{ key: app.key, secret: app.secret }]), "as while the secret changes");
    assert.ok(!sdk.webhook({ ...request, rawBody: `${request.rawBody} ` }).isValid());
  }
});

// The built client against a real server, over all its transports.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import WebSocket from "ws";
import { Pushy } from "../pushy.mjs";
import { build, start } from "./server.js";

const limit = { timeout: 300_000 }; // the first one builds the server
let server;

before(async () => {
  build();
  server = await start();
}, limit);
after(() => server?.stop());

/** Resolves with the next event's first argument. */
const next = (emitter, event) => new Promise((resolve) => {
  emitter.bind(event, function listener(first) {
    emitter.unbind(event, listener);
    resolve(first);
  });
});

const open = (transport, name = "Ann") =>
  new Pushy(server.origin, `${server.origin}/auth?name=${name}`, { WebSocket, transports: [transport], minDelay: 10, maxDelay: 100 });

const protocols = { websocket: "rawwebsocket", streaming: "xhr-streaming", polling: "xhr-polling" };

for (const transport of Object.keys(protocols)) {
  test(`${transport}: channels, members, commands`, limit, async (t) => {
    const ann = open(transport), bob = open(transport, "Bob");
    t.after(() => [ann, bob].forEach((pushy) => pushy.disconnect()));
    const names = (channel) => [...channel.members.values()].map(({ name }) => name);
    const room = ann.channel(`Private-${transport}`).subscribe();
    assert.deepEqual((await next(room, "subscribe")).map(({ name }) => name), ["Ann"]);
    assert.equal(ann.protocol, protocols[transport]);
    const came = next(room, "pushy:member-added"), his = bob.channel(`private-${transport}`).subscribe();
    assert.equal((await came).name, "Bob");
    if (!his.subscribed) await next(his, "subscribe");
    assert.deepEqual([names(room), names(his)], [["Ann", "Bob"], ["Ann", "Bob"]]);
    assert.ok(his.members.has(his.memberId));

    const { said, id } = await ann.exec("ECHO", { text: "é☃\n" });
    assert.deepEqual([said, /^pushy:\d+$/.test(id)], [{ text: "é☃\n" }, true]);
    await assert.rejects(ann.exec("refuse"), { name: "PushyError", code: "teapot", message: "I am a teapot" });
    await assert.rejects(ann.exec("constructor"), { code: "200", message: "Unknown command" });
    await assert.rejects(ann.exec("silent", {}, { timeout: 20 }), { code: "timeout" });

    const entered = next(ann.channel("hall"), "subscribe");
    ann.exec("enter");
    await entered;
    const expelled = next(ann.channel("hall"), "unsubscribe");
    ann.exec("expel", { channel: "hall" });
    assert.equal(await expelled, "expelled");

    // The server goes without a word, and without the members.
    const lost = ann.exec("silent"), again = [next(room, "subscribe"), next(his, "subscribe")];
    await server.control(transport === "polling" ? "close" : "cut"); // a poller may not be there to be cut
    await assert.rejects(lost, { code: "unknown" });
    await Promise.all(again);
    while (room.members.size !== 2 || his.members.size !== 2) await Promise.race([next(room, "pushy:member-added"), next(his, "pushy:member-added"), next(room, "pushy:member-quit"), next(his, "pushy:member-quit")]);
    assert.ok(room.members.has(room.memberId) && room.members.has(his.memberId));

    const left = next(room, "pushy:member-quit");
    his.unsubscribe();
    assert.equal((await left).name, "Bob");
    assert.deepEqual(names(room), ["Ann"]);

    const closed = next(ann, "state");
    await server.control("close", { code: 3500 });
    assert.equal((await closed).state, "closed");
  });

  test(`${transport}: 10,000 events in order, none twice, across 20 forced reconnects`, limit, async (t) => {
    const total = 10_000, cuts = 20;
    const pushy = open(transport), channel = pushy.channel("counted").subscribe();
    t.after(() => pushy.disconnect());
    await next(channel, "subscribe");
    const got = [];
    channel.bind("count", ({ n }) => got.push(n));
    let connects = 0, from = 0;
    const publish = async (count) => {
      await server.control("publish", { channel: "counted", event: "count", from, count });
      from += count;
    };
    pushy.bind("connect", () => connects++);
    for (let cut = 0; cut < cuts; cut++) {
      await publish(350);
      const back = next(channel, "subscribe");
      let gone = false;
      pushy.bind("disconnect", () => (gone = true));
      // Some are on their way when the connection breaks, some published while it
      // is gone. A poller is not even there between two polls, and may have to be
      // cut again.
      const publishing = publish(50);
      do await server.control(cut % 2 ? "cut" : "close", { code: 3001 });
      while (!gone);
      await publishing;
      await publish(50);
      await back;
      pushy.unbind("disconnect");
    }
    await publish(total - from);
    let ended = false;
    channel.bind("end", () => (ended = true));
    while (!ended) {
      if (!channel.subscribed) await next(channel, "subscribe");
      await server.control("publish", { channel: "counted", event: "end" });
      await pushy.exec("echo").catch(() => {});
    }

    for (let i = 1; i < got.length; i++) assert.ok(got[i] > got[i - 1], `${got[i]} came after ${got[i - 1]}`);
    assert.ok(connects >= cuts, `${connects} reconnects`);
    const lost = [...got, total].map((n, i) => n - (i ? got[i - 1] : -1) - 1).filter(Boolean);
    assert.equal(got.length + lost.reduce((sum, n) => sum + n, 0), total);
    assert.ok(lost.length <= connects, `${lost.length} gaps`);
    t.diagnostic(`${got.length} of ${total} came; ${connects} reconnects; lost in the gaps: ${lost.join(", ") || "none"}`);
  });
}

test("a WebSocket that the server does not speak: the next transport, and it is remembered", limit, async (t) => {
  class Blocked extends WebSocket {
    static made = 0;
    constructor(url) {
      super(url.replace("/websocket", "/nothing-here"));
      Blocked.made++;
    }
  }
  const pushy = new Pushy(server.origin, undefined, { WebSocket: Blocked, minDelay: 10 });
  t.after(() => pushy.disconnect());
  const began = Date.now();
  pushy.connect();
  await next(pushy, "connect");
  assert.equal(pushy.transport, "streaming");
  t.diagnostic(`connected by streaming after ${Date.now() - began} ms`);
  const again = next(pushy, "connect");
  await server.control("cut");
  await again;
  assert.deepEqual([pushy.transport, Blocked.made], ["streaming", 1]);
});

test("wrong tokens and an expired login are told, and can be recovered from", limit, async (t) => {
  const pushy = open("websocket"), room = pushy.channel("private-login");
  t.after(() => pushy.disconnect());
  await server.control("auth", { status: 200 });
  room.subscribe();
  assert.equal(await next(room, "subscribe-error"), "Invalid credentials");
  await server.control("auth", { status: 403 });
  room.subscribe();
  assert.deepEqual(await next(room, "auth-error"), { channel: "private-login", status: 403, body: "refused by the test\n", retryAt: undefined });
  await server.control("auth", { status: 503 });
  room.subscribe();
  assert.ok((await next(room, "auth-error")).retryAt > 0);
  const subscribed = next(room, "subscribe"); // it can try again before the order is answered
  await server.control("auth");
  await subscribed;
});

for (const transport of ["websocket", "streaming", "polling"]) {
  test(`${transport}: disconnect is a leave at once, though the membership is held`, limit, async (t) => {
    const ann = new Pushy(server.origin, `${server.origin}/auth?name=Ann`, { WebSocket, transports: [transport] });
    const bob = new Pushy(server.origin, `${server.origin}/auth?name=Bob`, { WebSocket });
    t.after(() => bob.disconnect());
    const name = `private-${transport}-left`;
    for (const pushy of [bob, ann]) await next(pushy.channel(name).subscribe(), "subscribe");
    const began = Date.now(), left = next(bob.channel(name), "pushy:member-quit");
    ann.disconnect();
    assert.equal((await left).name, "Ann");
    const took = Date.now() - began;
    assert.ok(took < 10_000, `${took} ms; without a leave it would be 15 s`);
  });
}

test("50 channels, half of them private, across a server's restart", limit, async (t) => {
  const own = await start();
  const pushy = new Pushy(own.origin, `${own.origin}/auth?name=Ann`, { WebSocket, minDelay: 10, maxDelay: 100 });
  t.after(() => pushy.disconnect());
  const channels = Array.from({ length: 50 }, (_, n) => pushy.channel(`${n % 2 ? "private-" : ""}${n}`).subscribe());
  const all = () => Promise.all(channels.map((channel) => next(channel, "subscribe")));
  await all();
  await own.kill();
  const back = all();
  const again = await start(own.host);
  t.after(() => again.stop());
  await back;
  assert.deepEqual(await again.control("stats"), { connections: 1, channels: 50, compressed: 0, asked: 1, unsubscribed: 0 });
  assert.ok(channels.every(({ subscribed, members }, n) => subscribed && members.size === n % 2));
});

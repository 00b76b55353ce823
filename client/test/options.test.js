// What the page chooses, and what the client writes to the console.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Pushy } from "../src/module.js";
import { connected, endpoint, flush, warnings } from "./fakes.js";

// Issue 11, number 34.
test("errors that nobody listens to are written to the console, once", async (t) => {
  const warned = warnings(t);
  const auth = endpoint(403);
  const { pushy, socket } = await connected({ ...auth, authHandler: "/auth" });
  pushy.channel("private-room").subscribe();
  await flush();
  assert.deepEqual(warned.splice(0), ["pushy: private-room: Authorization failed (403)"]);
  pushy.channel("private-room").subscribe();
  await flush();
  assert.deepEqual(warned, []);
  for (const listen of [(room) => room.on("subscribe-error", () => {}), (room) => room.on("auth-error", () => {}), (room) => room[Symbol.asyncIterator]().next()]) {
    listen(pushy.channel(`private-${warned.length}${listen}`.slice(0, 50)).subscribe());
    await flush();
    assert.deepEqual(warned, [], `${listen}`);
  }
  const fail = (message, code, name) => socket().receive("pushy:error", { message, code, id: name && socket().last(name).id });
  pushy.exec("ignored");
  fail("Unknown command", "200", "ignored");
  const awaited = pushy.exec("awaited").catch(({ code }) => code);
  fail("Unknown command", "200", "awaited");
  assert.equal(await awaited, "200");
  const later = (async () => {
    try {
      await pushy.exec("awaited");
    } catch ({ code }) {
      return code;
    }
  })();
  fail("Unknown command", "200", "awaited");
  assert.equal(await later, "200");
  fail("Too many requests", "429");
  fail("Too many requests", "429");
  await flush();
  assert.deepEqual(warned.splice(0), ["pushy: ignored: Unknown command (200)", "pushy: Too many requests (429)"]);
  pushy.on("pushy:error", () => {});
  pushy.exec("listened");
  fail("Unknown command", "200", "listened");
  await flush();
  pushy.off("disconnect");
  socket().lose(3500, "removed");
  assert.deepEqual(warned.splice(0), ["pushy: closed 3500 removed"]);
  pushy.exec("closed");
  await flush();
  assert.equal(warned.length, 0, "pushy:error is listened to");
  assert.equal(await pushy.exec("closed").catch(({ code }) => code), "closed");
});

// Issue 11, number 34.
test("debug writes each step, and no token", async (t) => {
  const lines = [];
  t.mock.method(console, "log", (...what) => lines.push(what.map((part) => (typeof part === "string" ? part : JSON.stringify(part))).join(" ")));
  const { pushy, socket } = await connected({ debug: true, url: "http://127.0.0.1/pushy?login=secret", authHandler: () => ({ auth: 'se"cret' }) });
  pushy.channel("private-room").subscribe();
  await flush();
  socket().receive("pushy:subscription-failed", { channel: "private-room", reason: "Invalid credentials" });
  pushy.disconnect();
  const all = lines.join("\n");
  for (const part of ["connecting", "tries websocket http://127.0.0.1/pushy", "connected", "needs a token private-room", '"auth":"…"', "Invalid credentials", "closed"]) {
    assert.ok(all.includes(part), `${part} in ${all}`);
  }
  assert.ok(!all.includes("cret"), all);
});

// Issue 11, number 34.
test("options as one object, or after the auth endpoint", async () => {
  for (const args of [[{ auth: "/a" }], ["/a"], ["/a", {}], [undefined, { auth: "/a" }], [null, { auth: "/a" }]]) {
    const auth = endpoint('{"auth":"t"}');
    const sockets = [];
    const rest = { ...auth, transports: ["websocket"], WebSocket: class { constructor() { sockets.push(this); } send() {} close() {} } };
    const pushy = typeof args[0] === "object" && args[0] ? new Pushy("http://h", { ...args[0], ...rest }) : new Pushy("http://h", args[0], { ...args[1], ...rest });
    pushy.channel("private-room").subscribe();
    await flush();
    sockets[0].onmessage({ data: '{"event":"pushy:connect","data":{"socketId":"s","protocol":"rawwebsocket"}}' });
    await flush();
    assert.equal(auth.asked[0].url, "/a", JSON.stringify(args));
    pushy.disconnect();
  }
});

// Issue 11, number 34: with such a list the client tried to connect for ever.
test("transports that do not exist are an error at once", () => {
  for (const transports of [[], ["websockets"], ["websocket", "xhr"], [undefined], [""], "websocket"]) {
    assert.throws(() => new Pushy("http://h", { transports }), TypeError, JSON.stringify(transports));
  }
  assert.throws(() => new Pushy("http://h", { transports: ["websockets", "polling"] }), /no transports: websockets,polling/);
  for (const transports of [undefined, ["polling"], ["streaming", "websocket"]]) new Pushy("http://h", { transports });
});

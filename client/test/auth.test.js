// Private channels: where tokens come from, and what happens if there is none.
import assert from "node:assert/strict";
import { test } from "node:test";
import { client, clock, connected, endpoint, flush, told, warnings } from "./fakes.js";

test("a private channel brings a token made for this connection", async (t) => {
  const turn = clock(t);
  const auth = endpoint('{"auth":"one","data":{"name":"Ann"}}', '{"auth":"two","data":"{\\"name\\":\\"Ann\\"}"}');
  const { pushy, socket } = await connected({ ...auth, authHandler: "/auth", headers: async () => ({ "X-CSRF": "7" }) });
  pushy.channel("Private-Room").subscribe();
  await flush();
  assert.deepEqual(auth.asked[0], {
    url: "/auth", method: "POST", credentials: "include", headers: { "X-CSRF": "7" }, channel: "private-room", connection_id: "first",
  });
  assert.deepEqual(socket().asked(), { channel: "Private-Room", auth: "one", data: { name: "Ann" } });
  socket().welcome("private-room", []);
  socket().lose();
  await turn(1000);
  socket().connect("second");
  await flush();
  assert.equal(auth.asked[1].connection_id, "second");
  assert.deepEqual(socket().asked(), { channel: "Private-Room", auth: "two", data: '{"name":"Ann"}' });
  pushy.disconnect();
});

test("a token that comes too late is not used", async (t) => {
  const turn = clock(t);
  const answers = [];
  const { pushy, socket } = await connected({ authHandler: () => new Promise((resolve) => answers.push(resolve)) });
  const room = pushy.channel("private-room").subscribe();
  await flush();
  socket().lose();
  await turn(1000);
  socket().connect("second");
  answers[0]({ auth: "for the first" });
  await flush();
  assert.equal(socket().sent.length, 0);
  answers[1]({ auth: "for the second" });
  await flush();
  assert.deepEqual(socket().sent.map(({ data }) => data.auth), ["for the second"]);
  socket().welcome("private-room");
  room.unsubscribe();
  socket().receive("pushy:subscription-end", { channel: "private-room" });
  room.subscribe();
  await flush();
  room.unsubscribe();
  answers[2]({ auth: "nobody's" });
  await flush();
  assert.equal(socket().sent.length, 2);
  pushy.disconnect();
});

test("without an auth handler the server says whether it wants a token", async () => {
  const auth = endpoint('{"auth":"t"}');
  const { pushy, socket } = await connected(auth);
  const room = pushy.channel("private-room").subscribe(), all = told(room);
  assert.deepEqual([socket().asked(), auth.asked.length], [{ channel: "private-room" }, 0]);
  socket().receive("pushy:subscription-needauth", { channel: "private-room", id: socket().last("subscribe").id });
  await flush();
  assert.equal(auth.asked[0].url, "http://127.0.0.1/pushy/auth?v=2");
  assert.equal(socket().last("subscribe").data.auth, "t");
  // It does not ask again and again.
  socket().receive("pushy:subscription-needauth", { channel: "private-room", id: socket().last("subscribe").id });
  await flush();
  assert.deepEqual([all, auth.asked.length], [["subscribe-error Authorization needed"], 1]);
  pushy.disconnect();
});

test("a refusal is told with its status and body, and is final", async (t) => {
  const turn = clock(t);
  for (const [authHandler, answer, status, body] of [
    ["/auth", 403, 403, "no"],
    ["/auth", 404, 404, "no"],
    ["/auth", "<h1>Log in</h1>", 200, "<h1>Log in</h1>"],
    [() => Promise.reject({ status: 403, body: "no" }), 0, 403, "no"],
  ]) {
    const auth = endpoint(answer, '{"auth":"t"}');
    const { pushy, socket } = await connected({ ...auth, authHandler });
    const asks = () => socket().sent.filter(({ command }) => command === "subscribe").length;
    const room = pushy.channel("private-room"), details = [];
    for (const emitter of [room, pushy]) emitter.bind("auth-error", (detail) => details.push(detail));
    const all = told(room.subscribe());
    await flush();
    const detail = { channel: "private-room", status, body, retryAt: undefined };
    assert.deepEqual(details, [detail, detail]);
    assert.deepEqual(all, ["auth-error", `subscribe-error Authorization failed (${status})${status === 200 ? ': not JSON, it begins with "<h1>Log in</h1>"' : ""}`]);
    socket().lose();
    await turn(1000);
    socket().connect("second");
    await turn(40_000);
    assert.equal(asks(), 0);
    if (typeof authHandler === "string") {
      room.subscribe(); // logged in again
      await flush();
      assert.equal(socket().last("subscribe").data.auth, "t");
    }
    pushy.disconnect();
  }
});

test("a failure is tried again, later and later, until it works", async (t) => {
  const turn = clock(t);
  const auth = endpoint(503, new TypeError("Failed to fetch"), 500, '{"auth":"t"}');
  const { pushy, socket } = await connected({ ...auth, authHandler: "/auth" });
  const details = [];
  const room = pushy.channel("private-room").bind("auth-error", ({ status, body, retryAt }) => details.push([status, body, retryAt - Date.now()])).subscribe();
  const all = told(room);
  await turn(749);
  assert.equal(auth.asked.length, 1);
  await turn(1);
  assert.equal(auth.asked.length, 2);
  await turn(1250);
  assert.equal(auth.asked.length, 3);
  room.subscribe(); // at once
  await flush();
  assert.deepEqual(details, [[503, "no", 750], [0, "Failed to fetch", 1250], [500, "no", 2250]]);
  assert.equal(socket().last("subscribe").data.auth, "t");
  socket().welcome("private-room");
  await turn(40_000);
  assert.equal(auth.asked.length, 4);
  assert.deepEqual(all, ["auth-error", "auth-error", "auth-error", "subscribe"]);
  pushy.disconnect();
});

// Issue 11, number 31.
test("a token that the page gives is used, whenever the subscription is sent", async () => {
  const auth = endpoint('{"auth":"from the endpoint"}');
  const { pushy, socket } = await connected({ ...auth, authHandler: "/auth" });
  const room = pushy.channel("private-room"), given = { auth: "given", data: { name: "Ann" } };
  const end = () => socket().receive("pushy:subscription-end", { channel: "private-room", id: socket().last("unsubscribe").id });
  room.subscribe(given);
  await flush();
  assert.equal(socket().last("subscribe").data.auth, "given");
  socket().welcome("private-room", []);
  room.unsubscribe();
  room.subscribe({ auth: "again" }); // before the answer
  end();
  await flush();
  assert.equal(socket().last("subscribe").data.auth, "again");
  room.unsubscribe();
  room.subscribe({ auth: "never" });
  room.unsubscribe();
  room.subscribe();
  socket().welcome("private-room", []);
  end();
  await flush();
  assert.equal(socket().last("subscribe").data.auth, "from the endpoint");
  // While another subscription is not answered yet.
  room.subscribe({ auth: "better" });
  socket().receive("pushy:subscription-failed", { channel: "private-room", reason: "Invalid credentials", id: socket().last("subscribe").id });
  await flush();
  assert.equal(socket().last("subscribe").data.auth, "better");
  socket().welcome("private-room", []);
  room.subscribe({ auth: "not now" });
  assert.equal(socket().last("subscribe").data.auth, "better");
  pushy.disconnect();
});

// Issue 11, number 31.
test("a token is given before there is a connection, and does not outlive one", async (t) => {
  const turn = clock(t);
  const auth = endpoint('{"auth":"from the endpoint"}');
  const { pushy, socket } = client({ ...auth, authHandler: "/auth" });
  pushy.channel("private-room").subscribe({ auth: "given" });
  await flush();
  socket().connect("first");
  await flush();
  assert.equal(socket().last("subscribe").data.auth, "given");
  socket().welcome("private-room", []);
  pushy.channel("private-room").unsubscribe();
  pushy.channel("private-room").subscribe({ auth: "for the first" });
  socket().lose();
  await turn(1000);
  socket().connect("second");
  await flush();
  assert.equal(socket().last("subscribe").data.auth, "from the endpoint");
  pushy.disconnect();
});

// Decision 35.
test("a channel whose auth endpoint fails ten times is given up, with one warning", async (t) => {
  const turn = clock(t), warned = warnings(t);
  for (const answer of [500, 503, new TypeError("Failed to fetch")]) {
    const auth = endpoint(answer);
    const { pushy, socket } = await connected({ ...auth, authHandler: "/auth", url: `http://127.0.0.1/${answer}` });
    const room = pushy.channel("private-room").subscribe(), details = [];
    room.on("auth-error", (detail) => details.push(detail));
    for (let seconds = 0; seconds < 300; seconds += 30) {
      await turn(30_000);
      socket().receive("news", {}, "elsewhere"); // the server is there
    }
    assert.equal(auth.asked.length, 10);
    assert.deepEqual(details.map(({ retryAt }) => !!retryAt), [...Array(9).fill(true), false]);
    const status = typeof answer === "number" ? answer : 0;
    assert.deepEqual(warned.splice(0), [`pushy: private-room is given up: Authorization failed (${status})`]);
    room.subscribe(); // which counts anew
    await turn(2000);
    assert.ok(auth.asked.length > 11);
    socket().lose();
    pushy.disconnect();
  }
});

// Issue 11, number 30: no loop without a pause, of any kind.
test("an auth endpoint that answers JSON without a token is asked once", async (t) => {
  const warned = warnings(t);
  for (const answer of ["false", "null", "0", '""', "[]", "{}", '"text"', '{"auth":""}', '{"error":"no"}']) {
    for (const authHandler of ["/auth", undefined, async () => JSON.parse(answer)]) {
      const auth = endpoint(answer);
      const { pushy, socket } = await connected({ ...auth, authHandler, url: `http://127.0.0.1/${encodeURIComponent(answer)}` });
      const all = told(pushy.channel("private-room").subscribe());
      for (let n = 0; n < 10; n++) {
        await flush();
        socket().receive("pushy:subscription-needauth", { channel: "private-room", id: socket().last("subscribe").id });
      }
      assert.deepEqual(all, ["subscribe-error Authorization needed"], answer);
      assert.ok(auth.asked.length <= 1, `asked ${auth.asked.length} times for ${answer}`);
      assert.ok(socket().sent.length <= 2);
      pushy.disconnect();
    }
  }
  assert.deepEqual(warned, []);
});

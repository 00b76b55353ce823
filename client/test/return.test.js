// When a client connects again after the server has shut down or has failed.
import assert from "node:assert/strict";
import { test } from "node:test";
import { clock, connected, flush } from "./fakes.js";

test("the first attempt after a connection follows what the server has said; the next ones are as always", async (t) => {
  const turn = clock(t);
  const { pushy, sockets, socket } = await connected({ minDelay: 500 });
  const wait = () => pushy.retryAt - Date.now();
  const cases = [
    [10_000, 1012, 5000], [10_000, 1006, 2500], [3000, 1006, 1500], [1e9, 1012, 30_000], [1e9, 1006, 2500], [-1, 1012, 500], [0, 3001, 500],
    ["x", 1012, 750], ["9000", 1012, 750], [null, 1012, 750], [undefined, 1012, 750], [{}, 1012, 750], [[9000], 1012, 750], [true, 1012, 750],
  ];
  for (const [returnWithin, code, wanted] of cases) {
    pushy.disconnect().connect();
    await flush();
    socket().receive("pushy:connect", { socketId: "me", protocol: "rawwebsocket", returnWithin });
    socket().lose(code);
    assert.equal(wait(), wanted, `${JSON.stringify(returnWithin)} after ${code}`);
  }
  pushy.disconnect().connect();
  await flush();
  socket().receive("pushy:connect", { socketId: "me", protocol: "rawwebsocket", returnWithin: 60_000 });
  await turn(6000);
  socket().lose(1012);
  assert.equal(wait(), 30_000);
  const before = sockets.length;
  await turn(29_500);
  assert.equal(sockets.length, before);
  await turn(1000);
  assert.equal(sockets.length, before + 1);
  for (const wanted of [1250, 2250]) {
    socket().lose();
    assert.equal(wait(), wanted, "the attempt has failed");
    await turn(wanted);
  }
  pushy.connect();
  await flush();
  assert.equal(pushy.state, "connecting", "at once if the page asks");
  pushy.disconnect();
});

test("returns are spread over all of the time, and none is before or after it", async (t) => {
  const { pushy, socket } = await connected();
  const waits = [];
  for (let n = 0; n < 2000; n++) {
    pushy.disconnect().connect();
    await flush();
    socket().receive("pushy:connect", { socketId: "me", protocol: "rawwebsocket", returnWithin: 40_000 });
    const now = Date.now();
    socket().lose(1012);
    waits.push(pushy.retryAt - now);
  }
  pushy.disconnect();
  // Each quarter has 500 of 2,000; 400 is 5.2 standard deviations away.
  for (let n = 0; n < 4; n++) {
    const share = waits.filter((wait) => wait >= n * 10_000 && wait <= (n + 1) * 10_000 + 50).length;
    assert.ok(share > 400 && share < 600, `${share} of 2,000 in quarter ${n}`);
  }
});

test("a server that drains says when each client is to return", async (t) => {
  const turn = clock(t);
  const { pushy, sockets, socket } = await connected();
  const wait = () => pushy.retryAt - Date.now();
  // Half of 8 s: the server has said nothing that counts. Otherwise it is exact, and a lost connection changes nothing.
  const cases = [
    [{ returnIn: 4200 }, 1012, 4200], [{ returnIn: 4200 }, 3001, 4200], [{ returnIn: 42_000 }, 1006, 42_000], [{ returnIn: 0 }, 1012, 0],
    [{ returnIn: 300.4 }, 1012, 300], [{ returnIn: 1e9 }, 1012, 60_000], [{ returnIn: 1e308 }, 1006, 60_000], [{ returnIn: -1 }, 1012, 4000],
    [{ returnIn: "x" }, 1012, 4000], [{ returnIn: "9000" }, 1012, 4000], [{ returnIn: null }, 1012, 4000], [{ returnIn: [9000] }, 1012, 4000],
    [{ returnIn: true }, 1012, 4000], [{}, 1012, 4000], [null, 1012, 4000], ["x", 1012, 4000], [7, 1012, 4000], [[1, 2], 1012, 4000],
    [undefined, 1012, 4000],
  ];
  for (const [data, code, wanted] of cases) {
    pushy.disconnect().connect();
    await flush();
    socket().receive("pushy:connect", { socketId: "me", protocol: "rawwebsocket", returnWithin: 8000 });
    socket().receive("pushy:drain", data);
    assert.equal(pushy.state, "connected", "until the server closes the connection");
    socket().lose(code);
    assert.equal(wait(), wanted, `${JSON.stringify(data)} after ${code}`);
  }
  // Also if the connection was short, and only once.
  for (let n = 0; n < 3; n++) {
    pushy.connect();
    await flush();
    socket().receive("pushy:connect", { socketId: "me", protocol: "rawwebsocket", returnWithin: 8000 });
    socket().receive("pushy:drain", { returnIn: 30_000 });
    socket().lose(1012);
    assert.equal(wait(), 30_000);
  }
  const before = sockets.length;
  await turn(29_500);
  assert.equal(sockets.length, before);
  await turn(1000);
  assert.equal(sockets.length, before + 1);
  socket().lose();
  assert.notEqual(wait(), 30_000);
  // A connection to another server begins anew.
  await turn(20_000);
  socket().receive("pushy:connect", { socketId: "me", protocol: "rawwebsocket", returnWithin: 8000 });
  await turn(6000);
  socket().lose(1012);
  assert.equal(wait(), 4000);
  pushy.disconnect();
});

test("a client that waits after a drain connects at once if the page asks or the browser is online", async (t) => {
  clock(t);
  const listeners = {};
  globalThis.addEventListener = (event, listener) => (listeners[event] = listener);
  t.after(() => delete globalThis.addEventListener);
  const { pushy, socket } = await connected();
  for (const act of [() => pushy.connect(), () => listeners.online()]) {
    socket().receive("pushy:drain", { returnIn: 50_000 });
    socket().lose(1012);
    assert.equal(pushy.state, "waiting");
    listeners.offline();
    assert.equal(pushy.state, "waiting");
    act();
    assert.equal(pushy.state, "connecting");
    await flush();
    socket().connect();
  }
  pushy.disconnect();
});

test("a server that has more connections says so", async (t) => {
  clock(t);
  const { pushy, socket } = await connected();
  for (const [data, wanted] of [[{ returnWithin: 9000 }, 4500], [{ returnWithin: 1e9 }, 30_000], [{ returnWithin: -1 }, 500], [{ returnWithin: "x" }, 750], [null, 2000]]) {
    pushy.disconnect().connect();
    await flush();
    socket().receive("pushy:connect", { socketId: "me", protocol: "rawwebsocket", returnWithin: 4000 });
    socket().receive("pushy:return", data);
    socket().lose(1012);
    assert.equal(pushy.retryAt - Date.now(), wanted, JSON.stringify(data));
  }
  pushy.disconnect();
});

test("a drain before the connection, and one in a channel, change nothing", async (t) => {
  clock(t);
  const { pushy, socket } = await connected();
  pushy.disconnect().connect();
  await flush();
  socket().receive("pushy:drain", { returnIn: 9000 });
  socket().receive("pushy:connect", { socketId: "me", protocol: "rawwebsocket", returnWithin: 8000 });
  socket().receive("pushy:drain", { returnIn: 9000 }, "news");
  socket().receive("not-pushy:drain", { returnIn: 9000 });
  socket().lose(1012);
  assert.equal(pushy.retryAt - Date.now(), 4000);
  pushy.disconnect();
});

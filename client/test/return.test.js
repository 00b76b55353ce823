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

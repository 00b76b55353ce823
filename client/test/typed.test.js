// What the built client gets of a typed command (pushy.Handle), over all its transports.
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

for (const transport of ["websocket", "streaming", "polling"]) {
  test(`${transport}: a typed command's ends`, limit, async (t) => {
    const pushy = new Pushy(server.origin, undefined, { WebSocket, transports: [transport] });
    t.after(() => pushy.disconnect());
    const refused = (data, code, message) => assert.rejects(pushy.exec("typed", data), { name: "PushyError", code, message });

    assert.deepEqual(await pushy.exec("typed", { squares: [{ x: 3 }, { x: 4 }] }), { sum: 7 });
    assert.deepEqual(await pushy.exec("Typed"), { sum: 0 });
    await refused({ squares: [{ x: 3 }, { x: "4" }] }, "400", "squares[1].x: must be a number, not a string");
    await refused({ squares: [{ x: 128 }] }, "400", "squares[0].x: must be a whole number from -128 to 127");
    await refused({ squares: [{ X: 1 }] }, "400", "squares[0].X: unknown field; did you mean x?");
    await refused({ squares: null }, "400", "squares: must be an array, not null");
    assert.deepEqual(await pushy.exec("typed", []), { sum: 0 }); // PHP's empty object
    await refused([1], "400", "data must be an object, not an array");
    await refused({ how: "refuse" }, "teapot", "I am a teapot");
    await refused({ how: "fail" }, "500", "Internal error");
    await refused({ how: "panic" }, "500", "Internal error");
    await refused({ how: "hang" }, "504", "Command timed out");
    // Many at once: each answer finds who asked.
    const sums = await Promise.all(Array.from({ length: 20 }, (_, x) => pushy.exec("typed", { squares: [{ x }, { x }] })));
    assert.deepEqual(sums.map(({ sum }) => sum), Array.from({ length: 20 }, (_, x) => 2 * x));
  });
}

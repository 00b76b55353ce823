// The built client against a real server: tokens that expire, and an auth endpoint in PHP.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { before, test } from "node:test";
import { createInterface } from "node:readline";
import WebSocket from "ws";
import { Pushy } from "../pushy.mjs";
import { build, start } from "./server.js";

const limit = { timeout: 60_000 };
before(build, limit);

/** Resolves when an emitter has told an event for the nth time. */
const heard = (emitter, event, times = 1) => new Promise((resolve) => emitter.on(event, (first) => --times || resolve(first)));

// Issue 14, acceptance test 9.
test("a subscription is renewed before its token expires, without a gap", limit, async (t) => {
  const server = await start("127.0.0.1:0", "-token-life", "4s"), pushy = new Pushy(server.origin, `${server.origin}/auth`, { WebSocket });
  t.after(async () => {
    pushy.disconnect();
    await server.stop();
  });
  const rooms = ["private-a", "private-b", "private-c"].map((name) => pushy.channel(name)), told = [];
  for (const room of rooms) room.on("unsubscribe", (reason) => told.push(reason)).on("subscribe-error", (reason) => told.push(reason));
  await Promise.all(rooms.map((room) => heard(room.subscribe(), "subscribe")));
  const { asked } = await server.control("stats"), replies = [];
  await new Promise((resolve) => pushy.on("internal-msg", (text) => {
    const { event, data } = JSON.parse(text);
    if (event === "pushy:reply" && replies.push(data.data.expires) === 4) resolve();
  }));
  assert.ok(replies.every((expires) => expires > Date.now() - 4000), `${replies}`);
  assert.deepEqual([told, (await server.control("stats")).asked - asked, rooms.every(({ subscribed }) => subscribed)], [[], 2, true]);
});

// Issue 14, acceptance test 12.
test("an auth endpoint as the original's in PHP: 40 requests for 40 channels; one that is refused does not concern the others", limit, async (t) => {
  const server = await start(), folder = mkdtempSync(path.join(tmpdir(), "pushy-php-")), asked = path.join(folder, "asked");
  const php = spawn("php", ["-S", "127.0.0.1:0", path.join(import.meta.dirname, "auth.php")], {
    stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, ASKED: asked, SECRET: "only the client's tests know it" },
  });
  const url = await new Promise((resolve) => createInterface({ input: php.stderr }).on("line", (line) => {
    const found = line.match(/\((http:\/\/127\.0\.0\.1:\d+)\) started/);
    if (found) resolve(found[1]);
  }));
  const pushy = new Pushy(server.origin, `${url}/`, { WebSocket });
  t.after(async () => {
    pushy.disconnect();
    php.kill();
    await server.stop();
    rmSync(folder, { recursive: true });
  });
  const names = Array.from({ length: 39 }, (_, n) => `private-${n}`), refused = heard(pushy.channel("private-denied").subscribe(), "auth-error");
  const rooms = names.map((name) => pushy.channel(name));
  await Promise.all(rooms.map((room) => heard(room.subscribe(), "subscribe")));
  assert.equal((await refused).status, 403);
  assert.deepEqual(readFileSync(asked, "utf8").trim().split("\n").sort(), ["private-denied", ...names].sort());
  assert.ok(rooms.every(({ members }) => [...members.values()][0].name === "Zoë"));
});

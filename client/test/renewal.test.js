// The built client against a real server: tokens that expire, and an auth endpoint in PHP.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { before, test } from "node:test";
import { createInterface } from "node:readline";
import WebSocket from "ws";
import { Pushy } from "../pushy.mjs";
import { run } from "./processes.js";
import { build, start } from "./server.js";

const limit = { timeout: 300_000 }; // the first one builds the server
before(build, limit);

/** Resolves when an emitter has told an event for the nth time. */
const heard = (emitter, event, times = 1) => new Promise((resolve) => emitter.on(event, (first) => --times || resolve(first)));

// Issue 14, acceptance test 9.
test("a subscription is renewed before its token expires, without a gap", limit, async (t) => {
  const server = await start("127.0.0.1:0", "-token-life", "8s"), pushy = new Pushy(server.origin, `${server.origin}/auth`, { WebSocket });
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
  assert.ok(replies.every((expires) => expires > Date.now() - 8000), `${replies}`);
  assert.deepEqual([told, (await server.control("stats")).asked - asked, rooms.every(({ subscribed }) => subscribed)], [[], 2, true]);
});

/** Runs PHP's web server, and returns its URL. */
async function php(t, env, ...args) {
  const child = run("php", ["-S", "127.0.0.1:0", ...args], { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, ...env } });
  t.after(() => child.end());
  return child.started(new Promise((resolve) => createInterface({ input: child.stderr }).on("line", (line) => {
    const found = line.match(/\((http:\/\/127\.0\.0\.1:\d+)\) started/);
    if (found) resolve(found[1]);
  })));
}

/** Creates a folder that is removed after the test. */
function folderFor(t) {
  const folder = mkdtempSync(path.join(tmpdir(), "pushy-php-"));
  t.after(() => rmSync(folder, { recursive: true, maxRetries: 20, retryDelay: 250 }));
  return folder;
}

const SECRET = "only the client's tests know it";

// Issue 14, acceptance test 12.
test("an auth endpoint as the original's in PHP: 40 requests for 40 channels; one that is refused does not concern the others", limit, async (t) => {
  const server = await start(), asked = path.join(folderFor(t), "asked");
  const url = await php(t, { ASKED: asked, SECRET }, path.join(import.meta.dirname, "auth.php"));
  const pushy = new Pushy(server.origin, `${url}/`, { WebSocket });
  t.after(async () => {
    pushy.disconnect();
    await server.stop();
  });
  const names = Array.from({ length: 39 }, (_, n) => `private-${n}`), refused = heard(pushy.channel("private-denied").subscribe(), "auth-error");
  const rooms = names.map((name) => pushy.channel(name));
  await Promise.all(rooms.map((room) => heard(room.subscribe(), "subscribe")));
  assert.equal((await refused).status, 403);
  assert.deepEqual(readFileSync(asked, "utf8").trim().split("\n").sort(), ["private-denied", ...names].sort());
  assert.ok(rooms.every(({ members }) => [...members.values()][0].name === "Zoë"));
});

// Issue 14, acceptance test 12: the endpoint of examples/publishers knows that it can have many channels.
test("an auth endpoint in PHP that signs version 2: two requests for 40 channels, the first of which is refused", limit, async (t) => {
  const server = await start(), examples = path.join(import.meta.dirname, "../../examples/publishers");
  const url = await php(t, { PUSHY_SECRET_KEY: SECRET }, "-d", `session.save_path=${folderFor(t)}`, "-t", examples);
  const { headers } = await fetch(`${url}/testdata/login.php?user=42&name=${encodeURIComponent("Zoë")}`), sizes = [];
  const pushy = new Pushy(server.origin, `${url}/auth.php`, {
    WebSocket,
    headers: { Cookie: headers.get("Set-Cookie").split(";")[0] },
    fetch: (at, init) => {
      sizes.push(init.body.getAll("channel").length);
      return fetch(at, init);
    },
  });
  t.after(async () => {
    pushy.disconnect();
    await server.stop();
  });
  const refused = heard(pushy.channel("private-user-7").subscribe(), "auth-error");
  const rooms = ["private-user-42", ...Array.from({ length: 38 }, (_, n) => `private-team-${n + 1}`)].map((name) => pushy.channel(name));
  await Promise.all(rooms.map((room) => heard(room.subscribe(), "subscribe")));
  assert.equal((await refused).status, 403);
  assert.deepEqual(sizes, [1, 39]);
  assert.ok(rooms.every(({ members }) => [...members.values()][0].name === "Zoë"));
});

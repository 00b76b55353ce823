// pushy-client/svelte, as it is built: with svelte/store, and in components that Svelte's compiler builds.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { build } from "esbuild";
import { compile } from "svelte/compiler";
import { derived, get, writable } from "svelte/store";
import { channel, connection, event, on, presence } from "../svelte.mjs";
import { warnings } from "./fakes.js";
import { browse, room as open, root } from "./page.js";

const home = mkdtempSync(path.join(import.meta.dirname, "../node_modules/.svelte-"));
after(() => rmSync(home, { recursive: true, force: true }));
browse(true);

const member = (memberId, name) => ({ memberId, name, subscribed: 1, idle: false });

/** Uses a store, as a component does, and records its values. */
function watch(store, read = (value) => value) {
  const seen = [];
  return { seen, end: store.subscribe((value) => seen.push(read(value))) };
}

test("stores share a subscription, which ends with the last user", async (t) => {
  const page = await open(t), { pushy } = page;
  const news = channel(pushy, "news"), again = channel(pushy, "News");
  assert.deepEqual(page.commands(), []); // nobody uses them yet
  const a = watch(news, ({ subscribed }) => subscribed), b = watch(presence(again), ({ count }) => count), c = watch(event(news, "said"));
  await page.serve();
  a.end();
  b.end();
  await page.serve();
  assert.deepEqual([page.commands(), a.seen], [["subscribe news"], [false, true]]);
  c.end();
  watch(news).end(); // a component that is replaced
  const d = watch(event(again, "said"));
  await page.serve();
  assert.deepEqual(page.commands(), ["subscribe news"]);
  d.end();
  await page.serve();
  assert.deepEqual([page.commands(), [...page.in]], [["subscribe news", "unsubscribe news"], []]);
});

test("a page that changes its channel 100 times has one subscription", async (t) => {
  const page = await open(t), { pushy } = page;
  let last = watch(channel(pushy, "room-0"));
  for (let n = 1; n <= 100; n++) {
    last.end();
    last = watch(presence(channel(pushy, `room-${n % 20}`)));
    if (n % 2) await page.serve();
  }
  await page.serve();
  assert.deepEqual([...page.in], ["room-0"]);
});

test("events, members, the connection and a refusal", async (t) => {
  const warned = warnings(t), page = await open(t, { presence: [member("me", "Ann")] }), { pushy } = page;
  const chat = channel(pushy, "chat", { rewind: 5 }), heard = [];
  const said = watch(event(chat, "said", "nothing")), people = watch(presence(chat), ({ members, me }) => `${members.map(({ name }) => name)} ${me?.name}`);
  const state = watch(connection(pushy), ({ state, connected }) => `${state} ${connected}`);
  const ends = [on(chat, "said", (text, { offset }) => heard.push([text, offset])), on(chat.channel, "subscribe", (members) => heard.push(members.length)), on(pushy, "direct", (text) => heard.push(text))];
  await page.serve();
  assert.equal(page.socket().last("subscribe").data.rewind, 5);
  page.socket().receive("said", "hello", "chat", 7);
  page.socket().receive("direct", "psst");
  page.socket().receive("pushy:presence-diff", { count: 2, add: [member("b", "Bob")] }, "chat");
  for (const end of ends) end();
  page.socket().receive("said", "bye", "chat", 8);
  page.socket().lose();
  assert.deepEqual(heard, [1, ["hello", 7], "psst"]);
  assert.deepEqual(said.seen, ["nothing", "hello", "bye"]);
  assert.deepEqual(people.seen, [" undefined", "Ann Ann", "Ann,Bob Ann"]);
  assert.deepEqual(state.seen, ["connected true", "waiting false"]);
  await page.again("second");

  const secret = watch(channel(pushy, "secret"), ({ error }) => error);
  page.socket().receive("pushy:subscription-error", { channel: "secret", reason: "No", id: page.socket().last("subscribe").id });
  assert.deepEqual([secret.seen, warned], [[undefined, "No"], ["pushy: secret: No"]]);
});

test("they keep the contract of svelte/store", async (t) => {
  const page = await open(t), news = channel(page.pushy, "news");
  assert.equal(get(connection(page.pushy)).state, "connected");
  assert.equal(get(derived(news, ({ subscribed }) => (subscribed ? "in" : "out"))), "out"); // used for a moment
  await page.serve();
  assert.deepEqual([...page.in], []);
  const loud = watch(derived([news, event(news, "said", "")], ([{ subscribed }, said]) => `${subscribed} ${said}`));
  await page.serve();
  page.socket().receive("said", "hello", "news");
  assert.deepEqual(loud.seen.at(-1), "true hello");
});

const source = `<script>
  import { channel, connection, event, on, presence } from "pushy-client/svelte";
  const { pushy, heard, names } = $props();
  const room = $derived(channel(pushy, $names)), people = $derived(presence(room)), said = $derived(event(room, "said", "…")), light = connection(pushy);
  $effect(() => on(room, "said", (text) => heard.push(text)));
</script>
<p>{$light.state} {$room.subscribed} {$people.count} {$said}</p>`;

/** Compiles the component and bundles it with Svelte. */
async function component(generate) {
  const file = (name) => path.join(home, `${generate}-${name}`);
  writeFileSync(file("app.js"), compile(source, { generate, filename: "App.svelte" }).js.code);
  writeFileSync(file("entry.js"), generate === "server"
    ? `import App from "./server-app.js"; import { render } from "svelte/server"; export const html = (props) => render(App, { props }).body;`
    : `import App from "./client-app.js"; import { mount, unmount, flushSync, hydrate } from "svelte"; export { App, mount, unmount, flushSync, hydrate };`);
  await build({
    entryPoints: [file("entry.js")], outfile: file("out.mjs"), bundle: true, format: "esm", platform: generate === "server" ? "node" : "browser",
    conditions: generate === "server" ? [] : ["browser"], alias: { "pushy-client/svelte": path.resolve(import.meta.dirname, "../svelte.mjs") },
  });
  return import(file("out.mjs"));
}

test("a component: rendered by a server, then mounted in the page", { timeout: 300_000 }, async (t) => {
  const page = await open(t, { presence: [member("me", "Ann")] }), { pushy } = page, heard = [];
  const { html } = await component("server"), { App, hydrate, unmount, flushSync } = await component("client");
  const names = writable("private-room"), props = { pushy, heard, names };
  browse(false);
  const body = html(props);
  browse(true);
  assert.match(body, /<p>idle false 0 …<\/p>/);
  assert.deepEqual([pushy.channels.size, page.commands()], [0, []]);

  const target = root();
  target.innerHTML = body;
  const app = hydrate(App, { target, props });
  await page.serve();
  flushSync();
  assert.equal(target.textContent.trim(), "connected true 1 …");
  page.socket().receive("said", "hello", "private-room");
  flushSync();
  assert.equal(target.textContent.trim(), "connected true 1 hello");
  // The name changes.
  names.set("lobby");
  flushSync();
  await page.serve();
  flushSync();
  assert.deepEqual([[...page.in], target.textContent.trim()], [["lobby"], "connected true 1 …"]);
  page.socket().receive("said", "hi", "lobby");
  page.socket().receive("said", "elsewhere", "private-room");
  flushSync();
  assert.equal(target.textContent.trim(), "connected true 1 hi");
  await unmount(app);
  page.socket().receive("said", "bye", "lobby");
  await page.serve();
  assert.deepEqual([heard, [...page.in], page.commands().length], [["hello", "hi"], [], 4]);
});

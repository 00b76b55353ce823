// pushy-client/react, as it is built, in a page in memory.
import assert from "node:assert/strict";
import { test } from "node:test";
import WebSocket from "ws";
import { warnings } from "./fakes.js";
import { browse, room, root } from "./page.js";
import { build, start } from "./server.js";

browse(true);
globalThis.IS_REACT_ACT_ENVIRONMENT = true;
// Before React DOM, which looks for it when it is loaded.
const refresh = (await import("react-refresh/runtime")).default;
refresh.injectIntoGlobalHook(globalThis);
const { act, createElement: h, StrictMode, Suspense, startTransition, useState } = await import("react");
const { createRoot, hydrateRoot } = await import("react-dom/client");
const { renderToString } = await import("react-dom/server");
const { useChannel, useConnection, useEvent, usePresence } = await import("../react.mjs");
const { Pushy } = await import("../pushy.mjs");

/** Renders elements, one after another, and returns the page. */
async function mount(page, element) {
  const main = root(), react = createRoot(main);
  const render = async (next) => {
    await act(async () => react.render(next));
    await act(page.serve);
  };
  await render(element);
  return { text: () => main.textContent, render, unmount: () => render(null) };
}

const member = (memberId, name) => ({ memberId, name, subscribed: 1, idle: false });

function Room({ pushy, name, options }) {
  const { channel, subscribed, error } = useChannel(pushy, name, options);
  return `${channel?.name} ${subscribed} ${error}`;
}

test("StrictMode mounts a component twice and subscribes once", async (t) => {
  const page = await room(t);
  const { text, unmount } = await mount(page, h(StrictMode, null, h(Room, { pushy: page.pushy, name: "news" }), h(Room, { pushy: page.pushy, name: "News" })));
  assert.equal(text(), "news true undefinednews true undefined");
  await unmount();
  assert.deepEqual(page.commands(), ["subscribe news", "unsubscribe news"]);
  assert.deepEqual([...page.in], []);
});

test("components share a subscription, which ends with the last one", async (t) => {
  const page = await room(t), { pushy } = page;
  const { render } = await mount(page, [h(Room, { key: 1, pushy, name: "news" }), h(Room, { key: 2, pushy, name: "news" })]);
  await render([h(Room, { key: 2, pushy, name: "news" })]);
  assert.deepEqual(page.commands(), ["subscribe news"]);
  // Another component takes its place.
  await render(h("p", null, h(Room, { pushy, name: "news" })));
  assert.deepEqual(page.commands(), ["subscribe news"]);
  await render(null);
  assert.deepEqual(page.commands(), ["subscribe news", "unsubscribe news"]);
  await render(h(Room, { pushy, name: "news" }));
  assert.deepEqual([...page.in], ["news"]);
});

test("a page that changes its channel 100 times has one subscription", async (t) => {
  const page = await room(t), { pushy } = page;
  const { render, text } = await mount(page, h(StrictMode, null, h(Room, { pushy, name: "room-0" })));
  for (let n = 1; n <= 50; n++) await render(h(StrictMode, null, h(Room, { pushy, name: `room-${n % 20}` })));
  // And faster than the server answers.
  const main = root(), fast = createRoot(main);
  for (let n = 1; n <= 50; n++) await act(async () => fast.render(h(Room, { pushy, name: `fast-${n % 20}` })));
  await act(page.serve);
  assert.equal(main.textContent, "fast-10 true undefined");
  await act(async () => fast.unmount());
  await act(page.serve);
  assert.deepEqual([...page.in], ["room-10"]);
  assert.equal(text(), "room-10 true undefined");
  assert.deepEqual([...pushy.channels.values()].filter(({ subscribed }) => subscribed).map(({ name }) => name), ["room-10"]);
});

test("unmounted before the connection, and during the subscription", async (t) => {
  const page = await room(t, { answers: false }), { pushy } = page;
  page.socket().lose();
  const early = await mount({ serve: () => page.turn(1) }, h(Room, { pushy, name: "early" }));
  await early.unmount();
  await page.again();
  assert.deepEqual(page.commands(), []);

  const late = await mount({ serve: () => page.turn(1) }, h(Room, { pushy, name: "late" }));
  assert.equal(late.text(), "late false undefined");
  await late.unmount();
  assert.deepEqual(page.commands(), ["subscribe late", "unsubscribe late"]);
  await act(page.serve); // the success arrives after it
  assert.deepEqual([[...page.in], pushy.channel("late").subscribed], [[], false]);

  // Mounted again while the end is under way.
  const back = await mount({ serve: () => page.turn(1) }, h(Room, { pushy, name: "back" }));
  await back.unmount();
  await back.render(h(Room, { pushy, name: "back" }));
  await act(page.serve);
  await act(page.serve);
  assert.deepEqual([[...page.in], back.text()], [["back"], "back true undefined"]);
});

test("a transition that is abandoned subscribes to nothing", async (t) => {
  const page = await room(t), { pushy } = page;
  const never = new Promise(() => {});
  const Slow = () => {
    throw never; // as React 18 has it
  };
  let go;
  function App() {
    const [where, set] = useState("home");
    go = set;
    return where === "home" ? "home" : h(Suspense, { fallback: "wait" }, h(Room, { pushy, name: where }), h(Slow));
  }
  const { text, render } = await mount(page, h(App));
  await act(async () => startTransition(() => go("slow")));
  await act(page.serve);
  assert.deepEqual([page.commands(), text()], [[], "wait"]);
  await render(null);
  assert.deepEqual(page.commands(), []);
});

test("hot reload keeps the subscription, with the same hooks and with others", async (t) => {
  const page = await room(t), { pushy } = page, heard = [];
  const load = (component, signature) => {
    refresh.register(component, "chat.jsx Chat");
    refresh.setSignature(component, signature);
    return component;
  };
  const First = load(function Chat() {
    const { channel, subscribed } = useChannel(pushy, "chat");
    useEvent(channel, "said", (text) => heard.push(`first ${text}`));
    return `first ${subscribed}`;
  }, "useChannel useEvent");
  const { text, unmount } = await mount(page, h(First));
  assert.equal(text(), "first true");
  load(function Chat() {
    const { channel, subscribed } = useChannel(pushy, "chat");
    useEvent(channel, "said", (text) => heard.push(`second ${text}`));
    return `second ${subscribed}`;
  }, "useChannel useEvent");
  await act(async () => refresh.performReactRefresh());
  await act(page.serve);
  assert.equal(text(), "second true");
  page.socket().receive("said", "a", "chat");
  load(function Chat() {
    const [greeting] = useState("third");
    const { channel, subscribed } = useChannel(pushy, "chat");
    useEvent(channel, "said", (text) => heard.push(`third ${text}`));
    return `${greeting} ${subscribed}`;
  }, "useState useChannel useEvent"); // React mounts it anew
  await act(async () => refresh.performReactRefresh());
  await act(page.serve);
  assert.equal(text(), "third true");
  page.socket().receive("said", "b", "chat");
  assert.deepEqual([heard, page.commands()], [["second a", "third b"], ["subscribe chat"]]);
  await unmount();
  assert.deepEqual(page.commands(), ["subscribe chat", "unsubscribe chat"]);
});

test("listeners are those of the last render, and end with the component", async (t) => {
  const page = await room(t), { pushy } = page, heard = [];
  function Chat({ tag, name = "chat" }) {
    const { channel } = useChannel(pushy, name);
    useEvent(channel, "said", (text, { offset }) => heard.push(`${tag} ${text} ${offset}`));
    useEvent(channel?.events, "subscribe", (text) => heard.push(`${tag} published ${text}`));
    useEvent(pushy, "direct", (text) => heard.push(`${tag} direct ${text}`));
    useEvent(channel, "unsubscribe", () => heard.push(`${tag} left`));
    return null;
  }
  const { render } = await mount(page, h(StrictMode, null, h(Chat, { tag: 1 })));
  const say = (text) => page.socket().receive("said", text, "chat", 7);
  say("a");
  await render(h(StrictMode, null, h(Chat, { tag: 2 })));
  say("b");
  page.socket().receive("subscribe", "c", "chat");
  page.socket().receive("direct", "d");
  await render(h(StrictMode, null, h(Chat, { tag: 3, name: null })));
  say("e");
  page.socket().receive("direct", "f");
  await render(null);
  say("g");
  page.socket().receive("direct", "h");
  assert.deepEqual(heard, ["1 a 7", "2 b 7", "2 published c", "2 direct d", "3 direct f"]);
});

test("presence: each change renders, also a number alone; members remain while the connection is lost", async (t) => {
  const page = await room(t, { presence: [member("me", "Ann")] }), { pushy } = page;
  let renders = 0;
  function People({ options }) {
    const { channel, subscribed } = useChannel(pushy, "private-room", options);
    const { members, count, me } = usePresence(channel);
    renders++;
    return `${subscribed} ${count} ${me?.name}: ${members.map(({ name }) => name)}`;
  }
  const people = await mount(page, h(People));
  assert.equal(people.text(), "true 1 Ann: Ann");
  const receive = (data) => act(async () => page.socket().receive("pushy:presence-diff", data, "private-room"));
  await receive({ count: 2, add: [member("b", "Bob")] });
  assert.equal(people.text(), "true 2 Ann: Ann,Bob");
  const before = renders;
  await receive({ count: 4, add: [member("c", "Cyd"), member("d", "Dan")], update: [{ memberId: "b", name: "Ben" }] });
  assert.deepEqual([people.text(), renders], ["true 4 Ann: Ann,Ben,Cyd,Dan", before + 1]);
  await receive({ count: 4 });
  assert.equal(renders, before + 1); // nothing has changed
  await act(async () => page.socket().lose());
  assert.equal(people.text(), "false 4 Ann: Ann,Ben,Cyd,Dan");
  await act(() => page.again("second"));
  assert.equal(people.text(), "true 1 Ann: Ann");
  await act(async () => page.socket().receive("pushy:presence-sync", { presence: [] }, "private-room"));
  assert.equal(people.text(), "true 0 undefined: ");
  await people.unmount();

  const crowd = await mount(page, h(People, { options: { presence: "count" } }));
  assert.equal(page.socket().last("subscribe").data.presence.mode, "count");
  await receive({ count: 9812 });
  assert.match(crowd.text(), /^true 9812 /);
});

test("the state of the connection", async (t) => {
  const page = await room(t), { pushy } = page, shown = [];
  function Light() {
    const { state, connected, retryAt, transport, socketId } = useConnection(pushy);
    shown.push([state, connected, retryAt > 0, transport, socketId].join(" "));
    return null;
  }
  await mount(page, h(Light));
  await act(async () => page.socket().lose());
  await act(() => page.again("second"));
  await act(async () => pushy.disconnect());
  assert.deepEqual(shown, [
    "connected true false websocket first", "waiting false true websocket ", "connecting false false websocket ",
    "connected true false websocket second", "closed false false websocket ",
  ]);
});

test("a refusal is the error, is written to the console once, and can be tried again", async (t) => {
  const warned = warnings(t), page = await room(t, { answers: false }), { pushy } = page;
  const { text, render } = await mount({ serve: () => page.turn(1) }, [h(Room, { key: 1, pushy, name: "secret" }), h(Room, { key: 2, pushy, name: "secret" })]);
  const fail = (reason) => act(async () => page.socket().receive("pushy:subscription-error", { channel: "secret", reason, id: page.socket().last("subscribe").id }));
  await fail("No");
  assert.equal(text(), "secret false Nosecret false No");
  assert.deepEqual(warned, ["pushy: secret: No"]);
  await render([h(Room, { key: 1, pushy, name: "secret" })]);
  await act(async () => pushy.channel("secret").subscribe());
  await act(page.serve);
  assert.equal(text(), "secret true undefined");
  await render(null);
  await act(page.serve);
  await render(h(Room, { pushy, name: "secret" }));
  await fail("Never");
  assert.equal(text(), "secret false Never");
  await render(null);
  // A component that is mounted later begins anew, from its first render.
  const shown = [];
  const Later = () => shown.push(useChannel(pushy, "secret").error) && null;
  await render([h(Room, { key: 1, pushy, name: "secret" }), h(Later, { key: 2 })]);
  assert.deepEqual([text(), shown], ["secret false undefined", [undefined]]);
  await act(page.serve);
  assert.equal(text(), "secret true undefined");
});

test("options and a token from the page", async (t) => {
  const page = await room(t), { pushy } = page;
  await mount(page, h(StrictMode, null, h(Room, { pushy, name: "private-news", options: { rewind: 5, since: "e.7", token: { auth: "signed", data: { name: "Ann" } } } })));
  const sent = page.socket().sent.filter(({ command }) => command === "subscribe");
  assert.equal(sent.length, 1);
  const { auth, data, rewind, since, token } = sent[0].data;
  assert.deepEqual([auth, data, rewind, since, token], ["signed", { name: "Ann" }, 5, { epoch: "e", offset: 7 }, undefined]);
});

test("a server that renders pages shows the empty state, keeps nothing, and the page continues from there", async (t) => {
  const page = await room(t, { presence: [member("me", "Ann")] }), { pushy } = page;
  function App() {
    const { channel, subscribed, error } = useChannel(pushy, "private-room");
    const { members, count } = usePresence(channel);
    const { state } = useConnection(pushy);
    useEvent(channel, "said", () => {});
    return h("p", null, `${channel.name} ${subscribed} ${error} ${members.length} ${count} ${state}`);
  }
  browse(false);
  t.after(() => browse(true));
  const html = renderToString(h(StrictMode, null, h(App)));
  browse(true);
  assert.equal(html, "<p>private-room false undefined 0 0 idle</p>");
  assert.deepEqual([pushy.channels.size, page.commands()], [0, []]);

  const main = root();
  main.innerHTML = html;
  const mistakes = [];
  await act(async () => hydrateRoot(main, h(StrictMode, null, h(App)), { onRecoverableError: (error) => mistakes.push(error.message) }));
  await act(page.serve);
  assert.deepEqual([main.textContent, mistakes, page.commands()], ["private-room true undefined 1 1 connected", [], ["subscribe private-room"]]);
});

test("on a server: 100 changes of the channel, faster than the answers and slower, leave one subscription", { timeout: 300_000 }, async (t) => {
  build();
  const server = await start(), pushy = new Pushy(server.origin, { WebSocket }), main = root(), react = createRoot(main);
  t.after(() => server.stop());
  t.after(() => pushy.disconnect());
  const show = (element) => act(async () => react.render(h(StrictMode, null, element)));
  const until = async (holds) => {
    while (!(await holds())) await act(() => new Promise((resolve) => setTimeout(resolve, 2)));
  };
  for (let n = 1; n <= 100; n++) {
    await show(h(Room, { pushy, name: `room-${n % 7}` }));
    if (n % 5 === 0) await until(() => main.textContent === `room-${n % 7} true undefined`);
  }
  await until(async () => (await server.control("count")).channels === 1);
  assert.equal(main.textContent, "room-2 true undefined");
  assert.deepEqual([...pushy.channels.values()].filter(({ subscribed }) => subscribed).map(({ name }) => name), ["room-2"]);
  await show(null);
  await until(async () => (await server.control("count")).channels === 0);
});

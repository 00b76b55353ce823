// Something else than pushy answers, such as a gateway or a captive portal: no
// request is repeated without a pause. Issue 11, number 30.
import assert from "node:assert/strict";
import { test } from "node:test";
import { client, clock, flush } from "./fakes.js";

const connect = 'a["{\\"event\\":\\"pushy:connect\\",\\"data\\":{\\"socketId\\":\\"s\\",\\"protocol\\":\\"xhr-streaming\\"}}"]\n';
const page = "<!doctype html>\n<html>\n<head><title>Log in</title></head>\n<body>\n<h1>Hotel</h1>\n</body>\n</html>\n";
const text = (body, status = 200, headers = {}) => () => new Response(body, { status, headers });

/** Long enough for streams, which have no timers. */
const soon = async () => {
  for (let n = 0; n < 100; n++) await flush();
};

/** What one client asks for in ten seconds. */
async function count(t, options, answer) {
  const turn = clock(t);
  const paths = [];
  const { pushy, sockets } = client({
    fetch: async (url, how) => {
      paths.push(new URL(url).pathname.split("/").at(-1));
      return answer(paths.length, how);
    },
    ...options,
  });
  const told = [];
  pushy.bind("state", (state) => told.push(state)).connect();
  for (let n = 0; n < 100; n++) {
    await soon();
    await turn(100);
    for (const socket of sockets) socket.lose();
  }
  pushy.disconnect();
  t.mock.timers.reset();
  t.mock.restoreAll();
  return { paths, told };
}

for (const [name, answer] of [
  ["a page", text(page)],
  ["a page in one line", text(page.replaceAll("\n", ""))],
  ["a page that begins like a frame", text("hello\nworld\n")],
  ["a page that begins like another", text("once upon a time\n")],
  ["an array that is no frame", text("[]\n")],
  ["JSON", text('{"error":"no"}\n')],
  ["an empty line", text("\n")],
  ["many empty lines", text("\n".repeat(100))],
  ["an empty body", text("")],
  ["no body", () => new Response(null, { status: 204 })],
  ["a heartbeat and the end", text("h\n")],
  ["a prelude and the end", text(`${"h".repeat(2048)}\n`)],
  ["an opening and the end", text("o\n")],
  ["a greeting and the end", text(`o\n${connect}`)],
  ["a greeting without an opening", text(connect)],
  ["frames without messages", text("o\na[]\n")],
  ["an empty array", text("a[]\n")],
  ["messages that are none", text('a["x"]\n')],
  ["messages that have no event", text('a["{}","null","7"]\n')],
  ["numbers", text("a[1,null,{}]\n")],
  ["a broken frame", text("a[\n")],
  ["another broken frame", text('o\na["\n')],
  ["a frame that breaks off", text('o\na["{')],
  ["an array of nothing", text("c[]\n")],
  ["a goodbye", text('c[3001,"later"]\n')],
  ["another connection", text('c[2010,"Another connection still open"]\n')],
  ["a redirect", text("", 302, { Location: "/login" })],
  ["a redirect to the same", text("", 307, { Location: "?" })],
  ["a server error", text(page, 502)],
  ["a missing page", text(page, 404)],
  ["too many requests", text(page, 429)],
  ["no network", () => Promise.reject(new TypeError("Failed to fetch"))],
]) {
  test(`${name}, again and again`, async (t) => {
    for (const transports of [["streaming"], ["polling"], ["websocket", "streaming", "polling"]]) {
      const { paths, told } = await count(t, { transports, url: `http://127.0.0.1/${encodeURIComponent(name)}` }, answer);
      assert.ok(paths.length >= 2, `${paths.length} requests: it tries again`);
      assert.ok(paths.length <= 7 * transports.length + 7, `${paths.length} requests of ${transports} in 10 s`);
      assert.ok(told.some(({ state }) => state === "waiting"), "and says so");
    }
  });
}

test("a send that a page answers is a failure, and nothing is lost in silence", async (t) => {
  let messages = 0;
  const outcomes = [];
  let pushy;
  const { paths } = await count(t, { transports: ["polling"], url: "http://127.0.0.1/send" }, (n, { body }) => {
    if (body) {
      messages++;
      return new Response(page);
    }
    return n === 1 || !messages ? new Response(`o\n${connect}`) : new Promise(() => {});
  });
  assert.ok(paths.length < 20, `${paths.length}`);
  ({ pushy } = client({
    transports: ["polling"], url: "http://127.0.0.1/send-2",
    fetch: async (_, { body }) => (body ? new Response(page) : outcomes.length++ ? new Promise(() => {}) : new Response(`o\n${connect}`)),
  }));
  const lost = pushy.exec("pay").catch(({ code }) => code);
  await soon();
  assert.equal(await lost, "unknown");
  assert.equal(pushy.state, "waiting");
  pushy.disconnect();
});

test("what answered is told", async () => {
  const { pushy } = client({ transports: ["polling"], fetch: async () => new Response(page) });
  let last;
  pushy.bind("state", (state) => (last = state)).connect();
  await soon();
  assert.deepEqual([last.state, last.code, last.reason], ["waiting", 1006, "not an answer from pushy: <!doctype html>"]);
  pushy.disconnect();
});

test("busy channels and slow ones have no pause", async () => {
  let n = 0;
  const heard = [];
  const { pushy } = client({
    transports: ["polling"],
    fetch: async () => (n++ ? n < 100 ? new Response(`a["{\\"event\\":\\"news\\",\\"data\\":${n}}"]\n`) : new Promise(() => {}) : new Response(`o\n${connect}`)),
  });
  pushy.bind("news", (data) => heard.push(data)).connect();
  for (let i = 0; i < 50; i++) await soon();
  assert.equal(heard.length, 98);
  pushy.disconnect();
});

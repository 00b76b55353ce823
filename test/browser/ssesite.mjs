// Starts test/sse, for the tests of Server-Sent Events, and has its pages.
import { setTimeout as pause } from "node:timers/promises";
import { build, launch, patience, startNodes } from "./example.mjs";
import { after, before, until } from "./suite.mjs";

export { pause, until };
export const soak = Boolean(process.env.PUSHY_SOAK);
export const buildSite = () => build("./test/sse");

export let browser, site;

// useSite starts the site and Chromium before the tests of a file, and ends them after these.
export function useSite(limit) {
  before(async () => {
    buildSite();
    site = await startSite();
    browser = await launch();
  }, limit);
  after(async () => {
    await browser?.close();
    await site?.stop();
  });
}

export async function startSite(files = import.meta.dirname, ...flags) {
  const { origins: [origin, control], stop } = await startNodes(2, undefined, "-files", files, ...flags);
  const post = async (path, body) => {
    const answer = await fetch(control + path, { method: "POST", body });
    if (!answer.ok) throw new Error(`${path}: ${await answer.text()}`);
  };
  const site = {
    origin,
    stop,
    act: (what, more) => post("/do", JSON.stringify({ do: what, ...more })),
    publish: (channel, event, data) => site.act("publish", { channel, event, data }),
    // requests returns those for streams with a parameter t.
    requests: async (t) => (await (await fetch(`${control}/requests`)).json() ?? []).filter(({ query }) => query.includes(`t=${t}`)),
    members: async (channel) => (await fetch(`${control}/members?channel=${channel}`)).json(),
    // secure returns the origin of the same server with HTTP/2.
    secure: async () => (await fetch(`${control}/tls`)).text(),
    // page stores a page, and returns its URL.
    async page(name, html) {
      await post(`/page/${name}`, `<!doctype html><meta charset="utf-8"><title>${name}</title><link rel="icon" href="data:,">${html}`);
      return `${origin}/page/${name}`;
    },
  };
  return site;
}

// plain is a page that collects what an EventSource receives in window.got.
export const plain = (query) => `<script>
  window.got = [];
  const events = new EventSource("/pushy/events?${query}");
  for (const name of ["n", "text", "pushy:open", "pushy:gap", "pushy:busy", "pushy:drain", "pushy:end"]) {
    events.addEventListener(name, (e) => got.push([name, e.data]));
  }
</script>`;

// breakOften publishes numbered events, breaks all connections meanwhile, and checks that each of the
// clients receives every number once, in order.
export async function breakOften(site, clients, events = soak ? 10_000 : 500, breaks = soak ? 20 : 3) {
  for (const [name, got] of Object.entries(clients)) await until(got, `${name} does not connect`, (all) => all.length > 0);
  await site.act("cut"); // before the first event
  let published = false;
  const publishing = site.act("many", { channel: "kept", event: "n", from: 1, to: events, pause: 10 }).then(() => { published = true; });
  for (let i = 0; i < breaks; i++) {
    await pause((events * 10) / (breaks + 1));
    await site.act("cut");
    await pause(2500); // most are replaying, or about to
    if (i % 2) await site.act("cut");
  }
  await publishing;
  for (const [name, got] of Object.entries(clients)) {
    const numbers = (all) => all.filter(([event]) => event === "n").map(([, data]) => Number(data));
    const all = await until(got, `${name} lacks events`, (all) => numbers(all).at(-1) === events, 2 * patience);
    const wrong = numbers(all).findIndex((n, i) => n !== i + 1);
    if (wrong >= 0 || numbers(all).length !== events) throw new Error(`${name}: number ${numbers(all)[wrong]} at place ${wrong + 1} of ${numbers(all).length}`);
    const gaps = all.filter(([event, data]) => event === "pushy:gap" && data.includes("kept"));
    if (gaps.length) throw new Error(`${name}: ${JSON.stringify(gaps)}`);
    if (!published) throw new Error("events are still published");
  }
}

// strings must arrive as they are, with LF instead of CR and CRLF.
export const strings = [
  "", " ", "  x", "\n", "\n\n", "\r", "\r\n", "a\rb", "a\nb", "a\r\nb", "a\n", ":", ": x", "data:", "data: x\ndata: y", "id: 7\nretry: 1",
  "event: x\n\ndata: z", "\u2028\u2029\u0085", "a\0b", "\u{1F600} é", "\ufeffx", '{"a":1}', "null", "0123456789abcdefé\n".repeat(10_000),
];

// Pages of test/server for the client's tests.
import { build as buildServer, buildOld, start as startServer } from "../../client/test/server.js";
import { patience } from "./example.mjs";

export { buildOld, buildServer, startServer };

/** Runs in the page: a client, and a log of all its events. */
function setUp([url, auth, options]) {
  const told = (window.told = []);
  const pushy = (window.pushy = new Pushy(url, auth, { minDelay: 100, maxDelay: 1000, ...options }));
  for (const event of ["connect", "disconnect"]) pushy.bind(event, () => told.push(event));
  pushy.bind("state", ({ state }) => told.push(state));
  window.room = (name) => {
    const channel = pushy.channel(name);
    for (const event of ["subscribe", "unsubscribe", "subscribe-error", "auth-error", "pushy:member-added", "pushy:member-quit"]) {
      channel.bind(event, (data) => told.push(`${name} ${event} ${data?.name ?? data?.status ?? (typeof data === "string" ? data : "")}`.trim()));
    }
    channel.bind("news", ({ n }) => told.push(`${name} ${n}`));
    channel.subscribe();
  };
}

/** Opens a page with a client, in the given browser context or in a new one. */
export async function client(browser, server, { name = "Ann", url = "/pushy", clock = false, more = false, before, options, context } = {}) {
  context ??= await browser.newContext();
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  if (clock) await page.clock.install();
  await before?.(page);
  await page.goto(server.origin);
  const begin = async () => {
    if (more) await page.addScriptTag({ url: "/pushy/more.js" });
    await page.evaluate(setUp, [url, `/auth?name=${name}`, options]);
  };
  await begin();
  return Object.assign(page, {
    setUp: begin, // after a reload
    room: (name) => page.evaluate((name) => room(name), name),
    told: () => page.evaluate(() => told.splice(0)),
    subscribed: (...names) => page.waitForFunction((names) => names.every((name) => pushy.channel(name).subscribed), names),
    members: (room) => page.evaluate((room) => [...pushy.channel(room).members.values()].map(({ name }) => name), room),
    /** Waits until a room has exactly these members, in any order. */
    async has(room, ...names) {
      await page.waitForFunction(([room, names]) =>
        JSON.stringify([...pushy.channel(room).members.values()].map(({ name }) => name).sort()) === names, [room, JSON.stringify(names.sort())]);
    },
    /** Waits for a line of the log. A state can have passed before a poll sees it; the log keeps it. */
    hears: (line) => page.waitForFunction((line) => told.includes(line), line),
    transport: () => page.evaluate(() => pushy.transport),
  });
}

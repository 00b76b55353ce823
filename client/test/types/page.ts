// Checked by tsc, never run: what pages may write. test/package.test.js checks it once
// more against the package as it is installed, without the types of the DOM.
import DefaultPushy, { Pushy, PushyError, type Channel, type Member } from "pushy-client";

export async function page(pushy: Pushy) {
  const room = pushy.channel("private-room").bind("subscribe", (members) => members?.[0].memberId).subscribe();
  room.on("news", (news) => news.title).off("news");
  const sent: boolean = room.send("client-typing", { on: true });
  room.on("client-typing", (_, { from = "" }) => from.length && sent);
  room.on("pushy:dropped", ({ count }) => count + 1);
  room.on("auth-error", ({ status, retryAt = 0 }) => status + retryAt);
  room.on("subscribe-error", (reason, detail) => [reason.length, detail instanceof PushyError && detail.code]);
  pushy.bind("state", ({ state, retryAt = 0 }) => state === "waiting" && retryAt - Date.now());
  pushy.on("connect", (p) => p.socketId?.length).on("disconnect", (_, { code }) => code);
  pushy.on("moved", (move) => move.to);
  const reply: { n: number } = await pushy.exec("count", { by: 1 }, { offline: "reject" });
  const typed = await pushy.exec<{ n: number }>("count");
  for await (const { event, data, published } of room) if (event === "moved" && published) return [data, reply.n + typed.n, room.members.get("a")?.subscribed];
  // @ts-expect-error there is no such state
  return pushy.state === "asleep";
}

/** Own events have types. */
export function own() {
  const pushy = new Pushy<{ moved: { to: string } }>("/pushy");
  pushy.on("moved", ({ to }) => to.length).events.on("moved", ({ to }) => to.length);
  const lobby: Channel<{ news: { title: string }; subscribe: { plan: string } }> = pushy.channel("lobby");
  lobby.on("news", ({ title }) => title.length);
  // @ts-expect-error there is no such event
  lobby.on("olds", () => {});
  // @ts-expect-error its data have no such field
  lobby.on("news", ({ text }) => text);
  // A name of the client's own means that; what was published under it comes by events.
  lobby.on("subscribe", (members?: Member[]) => members?.length);
  lobby.events.on("subscribe", ({ plan }) => plan.length);
}

export const ways = () => [
  new Pushy(), new Pushy("/pushy"), new Pushy("/pushy", "/auth"), new Pushy("/pushy", undefined, { debug: true }),
  new Pushy("/pushy", { auth: "/auth", debug: false }),
  new Pushy(() => "/pushy", { auth: async (channel, id) => ({ auth: channel + id }), headers: { "X-CSRF": "7" } }),
  new DefaultPushy(async () => "/pushy", (channel) => ({ auth: channel }), { headers: () => [["X-CSRF", "7"]] }),
];

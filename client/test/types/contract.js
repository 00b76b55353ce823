// Checked by tsc, never run: what src exports is what pushy.d.ts says.
import * as source from "../../src/module.js";

/** @type {typeof import("../../pushy.d.ts")} */
export const declared = source;

/**
 * As a page's own code uses it.
 * @param {import("../../pushy.d.ts").Pushy} pushy
 */
export async function page(pushy) {
  const room = pushy.channel("private-room").bind("subscribe", (members) => members?.[0].memberId).subscribe();
  room.on("news", (news) => news.title).off("news");
  room.on("auth-error", ({ status, retryAt = 0 }) => status + retryAt);
  pushy.bind("state", ({ state, retryAt = 0 }) => state === "waiting" && retryAt - Date.now());
  /** @type {{n: number}} */
  const reply = await pushy.exec("count", { by: 1 }, { offline: "reject" });
  for await (const { event, data } of room) if (event === "moved") return [data, reply.n, room.members.get("a")?.subscribed];
  // @ts-expect-error there is no such state
  return pushy.state === "asleep";
}

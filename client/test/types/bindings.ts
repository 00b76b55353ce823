// Checked by tsc, never run: what components may write, with pushy-client/react and pushy-client/svelte.
import { Pushy, type Channel, type Member } from "pushy-client";
import { useChannel, useConnection, useEvent, usePresence } from "pushy-client/react";
import { channel, connection, event, on, presence, type Readable } from "pushy-client/svelte";

interface Chat {
  said: { text: string };
  left: null;
}

export function component(pushy: Pushy<{ moved: { to: string } }>, user?: { room: string }) {
  const { channel: chat, subscribed, error = "" } = useChannel<Chat>(pushy, "chat", { rewind: 5, since: "e.5", token: { auth: "a" } });
  useEvent(chat, "said", ({ text }, { from = "" }) => text.length + from.length);
  useEvent(chat, "subscribe", (members) => members?.[0].memberId);
  useEvent(chat, "pushy:gap", ({ reason = "" }) => reason.length);
  useEvent(chat.events, "left", (nothing) => nothing === null);
  useEvent(pushy, "moved", ({ to }) => to.length);
  useEvent(pushy, "state", ({ state }) => state === "waiting");
  // @ts-expect-error there is no such event
  useEvent(chat, "sang", () => {});
  // @ts-expect-error its data have no such field
  useEvent(chat, "said", ({ title }) => title);

  const any = useChannel(pushy, "any");
  useEvent(any.channel, "whatever", (data) => data.at.all);

  const own = useChannel(pushy, user && user.room);
  // @ts-expect-error there may be none
  own.channel.send("client-typing");
  useEvent(own.channel, "said", () => {});
  const { members, count, me } = usePresence(own.channel);
  const member: Member | undefined = me ?? members[count - 1];
  const typed: string | undefined = usePresence<{ name: string }>(chat).me?.name;
  const { state, connected, retryAt = 0 } = useConnection(pushy);
  return [subscribed, error.length, member?.memberId, state === "waiting" && retryAt - Date.now(), connected, typed];
}

export function stores(pushy: Pushy) {
  const room = channel<Chat>(pushy, "chat", { rewind: 5, since: "e.5", token: { auth: "a" } });
  const same: Channel<Chat> = room.channel, said: Readable<{ text: string } | undefined> = event(room, "said");
  event(room, "said", { text: "" }).subscribe(({ text }) => text.length)();
  room.subscribe(({ subscribed, error }) => subscribed && error?.length)();
  presence(room).subscribe(({ members, me, count }) => members.length - count + (me?.subscribed ?? 0));
  presence<{ name: string }>(room).subscribe(({ members }) => members[0].name.length);
  connection(pushy).subscribe(({ state }) => state === "closed");
  const off: () => void = on(room, "said", ({ text }) => text.length);
  on(same, "unsubscribe", (reason) => reason?.length);
  on(pushy, "state", ({ code = 0 }) => code + 1);
  // @ts-expect-error there is no such event
  event(room, "sang");
  // @ts-expect-error its data have no such field
  on(room, "said", ({ title }) => title);
  return [off, said];
}

// The connection of this tab's player.
import { Pushy } from "pushy-client";

// A tab remains the same player when it is reloaded. crypto.randomUUID needs a secure context.
const key: string = (sessionStorage.key_ ??=
  crypto.randomUUID?.() ??
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join(""));

/** The name under which this tab has joined before it was reloaded, or "". */
export const remembered = (): string => sessionStorage.name_ ?? "";

/** The client connects with the first subscription. */
export function join(name: string): Pushy {
  sessionStorage.name_ = name;
  const who = new URLSearchParams({ key, name });
  return new Pushy(`/pushy?${who}`, { auth: `/auth?${who}` });
}

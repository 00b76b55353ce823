// Checked by tsc, never run: what src exports is what the .d.ts files say.
import * as source from "../../src/module.js";
import * as reactSource from "../../src/react.js";
import * as svelteSource from "../../src/svelte.js";

/** @type {typeof import("../../react.d.ts")} */
export const react = reactSource;

/** @type {typeof import("../../svelte.d.ts")} */
export const svelte = svelteSource;

/** @type {Pick<typeof import("../../pushy.d.ts"), "PushyError">} */
export const declared = source;

/**
 * What both have, less the events, which are typed for pages, and what more.js adds.
 * @typedef {Omit<import("../../pushy.d.ts").Pushy, "bind" | "unbind" | "on" | "off" | "events" | "channel" | "channels" | "connect" | "disconnect" | "idle">} Client
 * @typedef {Omit<import("../../pushy.d.ts").Channel, "bind" | "unbind" | "on" | "off" | "events" | "subscribe" | "unsubscribe" | "history" | "find" | "update" | typeof Symbol.asyncIterator>} Channel
 */

/** @param {source.Pushy} pushy @returns {Client} */
export const client = (pushy) => pushy.connect().disconnect();

/** @param {source.Pushy} pushy @returns {Channel} */
export const channel = (pushy) => pushy.channel("lobby", { rewind: 5, since: "e.5" }).subscribe().unsubscribe();

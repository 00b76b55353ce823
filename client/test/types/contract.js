// Checked by tsc, never run: what src exports is what pushy.d.ts says.
import * as source from "../../src/module.js";

/** @type {Pick<typeof import("../../pushy.d.ts"), "PushyError">} */
export const declared = source;

/**
 * What both have, less the events: those are typed for pages.
 * @typedef {Omit<import("../../pushy.d.ts").Pushy, "bind" | "unbind" | "on" | "off" | "events" | "channel" | "channels">} Client
 * @typedef {Omit<import("../../pushy.d.ts").Channel, "bind" | "unbind" | "on" | "off" | "events">} Channel
 */

/** @param {source.Pushy} pushy @returns {Client} */
export const client = (pushy) => pushy;

/** @param {source.Pushy} pushy @returns {Channel} */
export const channel = (pushy) => pushy.channel("lobby");

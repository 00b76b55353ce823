// The stores of pushy-client/svelte. They keep Svelte's store contract, and need nothing of Svelte itself.
import { ofChannel, ofConnection, ofPresence, rendering } from "./bindings.js";

/** @typedef {(value: any) => void} Run */

/** @param {import("./bindings.js").Store<any>} store */
const readable = ({ on, get, empty }) => ({
  /** @param {Run} run */
  subscribe(run) {
    if (rendering()) {
      run(empty);
      return () => {};
    }
    /** @type {any} */
    let last;
    const tell = () => {
      const value = get();
      if (value !== last) run((last = value));
    };
    const end = on(tell);
    tell();
    return end;
  },
});

/** @param {any} pushy */
export const connection = (pushy) => readable(ofConnection(pushy));

/** @param {any} pushy @param {any} name @param {any} [options] */
export function channel(pushy, name, options) {
  const store = ofChannel(pushy, name, () => options);
  return { ...readable(store), channel: store.empty.channel };
}

/** Subscribes as long as a store that depends on the room is used. @param {any} room */
const begin = (room) => () => room.subscribe(() => {});

/** @param {any} room */
export const presence = (room) => readable(ofPresence(room.channel, begin(room)));

/** @param {any} room @param {string} event @param {any} [last] */
export const event = (room, event, last) => ({
  /** @param {Run} run */
  subscribe(run) {
    run(last);
    if (rendering()) return () => {};
    const end = begin(room)(), off = on(room, event, (data) => run((last = data)));
    return () => {
      off();
      end();
    };
  },
});

/** @param {any} source @param {string} event @param {(...args: any[]) => void} listener */
export function on(source, event, listener) {
  const emitter = source.on ? source : source.channel;
  emitter?.on(event, listener);
  return () => emitter?.off(event, listener);
}

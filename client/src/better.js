// While a fallback carries the connection, the transports before it are tried in
// the background: one failed handshake must not keep a page, nor those after it,
// from its WebSocket. The connection itself is left alone; the next one uses what
// was found.

import { links } from "./links.js";

const first = 5000; // milliseconds to the first try, twice as many to each later one
const longest = 600_000;
const patience = 15_000; // for one try

/**
 * @param {(path: string) => string} at
 * @param {import("../pushy.d.ts").Options} how
 * @param {string[]} names the transports, the best first
 * @param {(name: string) => void} found called when one gets through
 * @returns {() => void} stops it
 */
export function seek(at, how, names, found) {
  let tries = 0;
  /** @type {any} */
  let timer;
  /** @type {import("./links.js").Link | undefined} */
  let link;
  const stop = () => {
    clearTimeout(timer);
    link?._close();
  };
  const wait = () => {
    stop();
    if (names.length) timer = setTimeout(attempt, Math.min(first * 2 ** tries, longest));
  };
  const attempt = () => {
    const index = tries++ % names.length, name = names[index];
    timer = setTimeout(wait, patience);
    try {
      link = links[name](at, how, /** @type {any} */ ({
        _alive() {},
        _close: wait,
        _message() {
          names = names.slice(0, index);
          found(name);
          wait();
          return true;
        },
      }));
    } catch {
      wait();
    }
  };
  wait();
  return stop;
}

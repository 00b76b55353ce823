// While the connection uses a fallback, the preferred transports are tried in the
// background, so that one failed handshake does not prevent WebSockets on this page and on
// the next ones. The connection itself does not change; the next connection uses the
// transport that was found.

const first = 5000; // milliseconds before the first attempt; the time doubles with each later one
const longest = 600_000;
const patience = 15_000; // for one attempt

/**
 * @param {Record<string, import("./links.js").Opener>} links
 * @param {(path: string) => string} at
 * @param {import("../pushy.d.ts").Options} how
 * @param {string[]} names the transports, the preferred one first
 * @param {(name: string) => void} found called with a transport that works
 * @returns {() => void} stops it
 */
export function seek(links, at, how, names, found) {
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

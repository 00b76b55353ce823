// Remembers which transport worked, for the next connection and the next page. It does so
// for an hour, because a transport that is blocked in one network may work in the next.

const hour = 3_600_000;

/** Used where there is no storage: in node, and in browsers that forbid it. @type {Map<string, string>} */
const here = new Map();

/** @param {(path: string) => string} at */
const keyOf = (at) => "pushy:" + at("").split("?")[0];

/**
 * @param {(path: string) => string} at
 * @returns {string | undefined}
 */
export function recall(at) {
  const key = keyOf(at);
  let text = here.get(key);
  try {
    text = localStorage.getItem(key) ?? text;
  } catch {}
  try {
    const [name, time] = JSON.parse(/** @type {string} */ (text)), age = Date.now() - time;
    if (age >= 0 && age < hour) return name; // below 0 if the clock was set back
  } catch {}
}

/**
 * @param {(path: string) => string} at
 * @param {string} name
 */
export function remember(at, name) {
  const key = keyOf(at);
  const text = JSON.stringify([name, Date.now()]);
  here.set(key, text);
  try {
    localStorage.setItem(key, text);
  } catch {}
}
